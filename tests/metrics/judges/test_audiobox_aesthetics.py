"""Audiobox Aesthetics at tiny size, with random weights in the published layout.

The golden numbers are those of the package audiobox-aesthetics 0.0.4 with the same tensors (see `filled`), on
the same sounds.
"""

import re
from functools import partial

import numpy as np
import pytest
import torch

from stav2a.metrics.judges import audiobox_aesthetics
from stav2a.metrics.judges.audiobox_aesthetics import AXES, AestheticHeads, AudioboxAesthetics
from stav2a.metrics.registered.aesthetics import (
    ContentEnjoyment,
    ContentUsefulness,
    ProductionComplexity,
    ProductionQuality,
)
from stav2a.metrics.score import ArraySounds, EvaluationSet
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.judge_material import filled

RATE = 16_000
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
TARGETS = {axis: {"mean": 5.0 + i, "std": 2.0 - 0.25 * i} for i, axis in enumerate(("CE", "CU", "PC", "PQ"))}
PUBLISHED = [
    (r"^wavlm\.masked_spec_embed", "wavlm.mask_emb"),
    (r"^wavlm\.feature_projection\.layer_norm", "wavlm.layer_norm"),
    (r"^wavlm\.feature_projection\.projection", "wavlm.post_extract_proj"),
    (r"conv_layers\.(\d)\.conv\.", r"conv_layers.\1.0."),
    (r"conv_layers\.0\.layer_norm\.", "conv_layers.0.2."),
    (r"pos_conv_embed\.conv\.", "pos_conv.0."),
    (r"parametrizations\.weight\.original0", "weight_g"),
    (r"parametrizations\.weight\.original1", "weight_v"),
    (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"attention\.gru_rel_pos_const", "self_attn.grep_a"),
    (r"attention\.gru_rel_pos_linear", "self_attn.grep_linear"),
    (r"attention\.rel_attn_embed", "self_attn.relative_attention_bias"),
    (r"\.attention\.", ".self_attn."),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
    (r"^wavlm\.", "wavlm_model."),
]
GOLDEN = {  # PQ, PC, CE, CU
    0.01: [8.063577, 7.656691, 5.366602, 5.257123],
    3.01: [7.943954, 7.434197, 5.431809, 5.104835],
    10.0: [7.965982, 7.442313, 5.418679, 5.120132],
    14.7: [7.949027, 7.412758, 5.426863, 5.108613],
}


def sound(seconds):
    samples = round(RATE * seconds)
    noise = np.random.default_rng(round(100 * seconds)).normal(0, 0.1, samples)
    return (noise + 0.2 * np.sin(np.arange(samples) / 20)).astype(np.float32)


def published(heads):
    """Our tensors under the published names."""
    found = {}
    for name, tensor in heads.state_dict().items():
        for pattern, replacement in PUBLISHED:
            name = re.sub(pattern, replacement, name)
        found[f"model.{name}"] = tensor
    return found


def any_targets():
    return dict.fromkeys(AXES, (0.0, 1.0))


def tiny():
    return AestheticHeads(any_targets(), **SIZES)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setattr(audiobox_aesthetics, "AestheticHeads", partial(AestheticHeads, **SIZES))
    names = {name: name.replace("extractor", "convolutions") for name in published(tiny())}  # see KEPT
    numbers = filled({names[name]: tensor for name, tensor in published(tiny()).items()})
    state = {name: numbers[other] for name, other in names.items()}
    whole = {"state_dict": state, "model_cfg": {"nth_layer": 3, "proj_ln": True}, "target_transform": TARGETS}
    torch.save(whole, tmp_path / "checkpoint.pt")
    return str(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("seconds", GOLDEN)
def test_sounds_are_rated_as_by_the_authors(weights, seconds):
    found = AudioboxAesthetics(weights=weights)(sound(seconds), RATE)
    assert found.dtype.names == AXES
    assert list(found.tolist()) == pytest.approx(GOLDEN[seconds], abs=5e-6)


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in published(AestheticHeads(any_targets())).items()}
    assert len(shapes) == 324  # of the authors' module
    assert shapes["model.wavlm_model.encoder.pos_conv.0.weight_v"] == (768, 48, 128)
    assert shapes["model.wavlm_model.encoder.layers.0.self_attn.relative_attention_bias.weight"] == (320, 12)
    assert shapes["model.proj_layer.PQ.12.weight"] == (1, 768) and shapes["model.layer_weights.CE"] == (13,)


def test_silence_has_ratings(weights):
    found = AudioboxAesthetics(weights=weights)(np.zeros(RATE, np.float32), RATE)
    assert np.isfinite(found.tolist()).all()


def test_a_file_without_the_targets_or_of_another_model_is_refused(weights, tmp_path):
    whole = torch.load(weights)
    for name, change in {
        "plain": whole["state_dict"],
        "other": whole | {"state_dict": {"model.proj_layer.PQ.0.bias": torch.zeros(2)}},
        "odd": whole | {"target_transform": {"CE": 5.0}},
    }.items():
        torch.save(change, tmp_path / f"{name}.pt")
    for name in ("plain", "odd"):
        with pytest.raises(CheckpointError, match=f"{name}.pt: no entry target_transform of the form"):
            AudioboxAesthetics(weights=str(tmp_path / f"{name}.pt")).prepare()
    with pytest.raises(
        CheckpointError, match="weights of Audiobox Aesthetics does not fit this model: missing"
    ):
        AudioboxAesthetics(weights=str(tmp_path / "other.pt")).prepare()


def test_each_metric_shows_its_rating_and_that_of_the_real_sounds(weights):
    kinds = (ProductionQuality, ProductionComplexity, ContentEnjoyment, ContentUsefulness)
    sounds = ArraySounds(generated=[sound(3.01)], references=[sound(10.0)[: 3 * RATE]], sample_rate=RATE)
    samples = EvaluationSet(ids=["a"], sounds=sounds)
    judge = partial(AudioboxAesthetics, weights=weights)
    rated = judge()(sound(3.01)[: 3 * RATE], RATE)
    for kind in kinds:
        found = kind(judge=judge, resamples=10)(samples)
        assert found.value == pytest.approx(float(rated[kind.axis]))
        assert found.label.endswith(f"({kind.axis})") and "real sound" in found.extras
    assert ProductionQuality().judge.name == "Audiobox Aesthetics"
    assert (
        "weights of Audiobox Aesthetics not found"
        in ProductionQuality(judge=partial(AudioboxAesthetics, weights="/no"))(samples).unavailable
    )
