"""PaSST, with random weights in the published layout, against numbers of its authors' code."""

import functools
import re

import numpy as np
import pytest
import torch

from stav2a.metrics.judges import passt
from stav2a.metrics.judges.passt import CLASSES, LONGEST_S, RATE, WIDTH, PaSST, PatchTransformer, log_mels
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.judge_material import filled

# Of hear21passt 0.0.26 (PyPI), AugmentMelSTFT and PaSST in evaluation mode, torch 2.13, torchaudio 2.11: the
# sound of `half_a_second`, the weights of `published`, width 24, 2 layers, 3 heads, 5 classes, 4 columns.
MELS = """
    -0.78419 -0.84397 -1.00836 -0.6873 -0.30816 -0.96652 -0.54625 -0.62096 0.23863 0.11266 -0.09924 0.11179
    -0.10083 0.14103 -0.07731 0.01645 0.04221 0.61524 0.65 0.35584 0.22469 0.38944 0.21212 0.60035
"""
EMBEDDING = """
    -0.03585 -0.44592 0.48476 -0.90048 0.05337 2.49737 0.19309 -0.14535 -1.07519 -1.03611 0.46891 -0.20387
    -1.0622 -0.48548 0.0932 0.89547 1.73567 -0.30457 0.53319 -2.05287 -0.63339 -0.01581 0.83225 0.41803
"""
LOGITS = "-0.18006 -0.15534 0.40679 0.21506 -0.28509"
THEIRS = (
    (r"\.self_attn\.in_proj_", ".attn.qkv."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.linear(\d)", r".mlp.fc\1"),
)


def numbers(text):
    return np.array(text.split(), float)


def half_a_second():
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32))


def published(model):
    """Random weights under the published names, with the head that no output needs."""
    state = model.state_dict()
    state |= {f"head_dist.{kind}": state[f"head.1.{kind}"] for kind in ("weight", "bias")}
    for ours, theirs in THEIRS:
        state = {re.sub(ours, theirs, name): tensor for name, tensor in state.items()}
    return filled(state)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """One layer of the published size, instead of twelve."""
    one_layer = functools.partial(PatchTransformer, depth=1)
    path = tmp_path_factory.mktemp("passt") / PaSST.published
    torch.save(published(one_layer()), path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passt, "PatchTransformer", one_layer)
        judge = PaSST(weights=str(path))
        judge.prepare()
    yield judge
    path.unlink()


def sound(seconds, seed=0):
    drawn = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return drawn - drawn.mean()


@torch.no_grad()
def test_the_numbers_are_those_of_the_authors_code():
    mels = log_mels(half_a_second())
    np.testing.assert_allclose(mels[::18, ::7].flatten()[:24], numbers(MELS), atol=5e-5)
    model = PatchTransformer(frames=50, width=24, depth=2, heads=3, classes=5)
    model.load_state_dict(passt.renamed(published(model)))
    embedding, logits = model.eval()(mels[None])
    np.testing.assert_allclose(embedding[0], numbers(EMBEDDING), atol=2e-5)
    np.testing.assert_allclose(logits[0], numbers(LOGITS), atol=2e-5)


def test_the_layout_is_the_published_one():
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in PatchTransformer().state_dict().items()}
    assert len(shapes) == 159 - len(passt.UNNEEDED)
    assert shapes["time_new_pos_embed"] == (1, 768, 1, 99) and shapes["freq_new_pos_embed"] == (1, 768, 12, 1)
    assert shapes["patch_embed.proj.weight"] == (768, 1, 16, 16)
    assert shapes["blocks.11.self_attn.in_proj_weight"] == (3 * 768, 768)
    assert shapes["blocks.11.linear1.weight"] == (4 * 768, 768) and shapes["head.1.weight"] == (527, 768)


def test_a_sound_gives_an_embedding_and_logits_of_its_first_ten_seconds(judge):
    heard = judge(sound(LONGEST_S), RATE)
    assert heard["embedding"].shape == (WIDTH,) and heard["logits"].shape == (CLASSES,)
    longer = np.concatenate([sound(LONGEST_S), sound(2.0, seed=1)])
    np.testing.assert_allclose(judge(longer, RATE)["logits"], heard["logits"], atol=1e-4)


def test_a_shorter_sound_is_filled_up_and_its_mean_is_no_sound(judge):
    heard, silence = judge(sound(4.0) + 0.2, RATE)["embedding"], judge(np.full(1, 0.5), RATE)["embedding"]
    silent = np.zeros(LONGEST_S * RATE - 4 * RATE, np.float32)
    np.testing.assert_allclose(judge(np.append(sound(4.0), silent), RATE)["embedding"], heard, atol=1e-3)
    assert np.isfinite(silence).all() and np.abs(silence - heard).max() > 0.01


def test_the_definition_tells_front_end_and_weights(judge):
    front_end = "32 kHz, no mean, the first 10 s, zero-padded, 128 mels of 0 to 15000 Hz"
    assert judge.definition.startswith(f"PaSST ({front_end}; weights ")


def test_other_files_are_refused(tmp_path):
    other, cut = tmp_path / "other.pt", tmp_path / "cut.pt"
    torch.save({"pos_embed": torch.zeros(1, 578, 768)}, other)
    with pytest.raises(CheckpointError, match="weights of PaSST does not fit this model: missing cls_token"):
        PaSST(weights=str(other)).prepare()
    cut.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut.pt can't be read as a checkpoint. It is cut off"):
        PaSST(weights=str(cut)).prepare()
    assert PaSST(weights=str(tmp_path / "no.pt")).fault == (
        "weights of PaSST not found: put passt-s-f128-p16-s10-ap.476-swa.pt, from "
        f"github.com/kkoutini/PaSST (release v0.0.1-audioset), here: {tmp_path / 'no.pt'}"
    )
