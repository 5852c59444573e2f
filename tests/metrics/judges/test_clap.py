import json

import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapModel

from stav2a.metrics.judges.clap import Clap
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.judge_material import filled, tokenizer

WORDS = ["a", "dog", "barks", "an", "orchestra", "plays", "symphony"]
RATE = 48_000


def small():
    """Sizes of a small ClapModel."""
    return ClapConfig(
        text_config={
            "vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "pad_token_id": 0, "projection_dim": 8,
        },
        audio_config={
            "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 1], "hidden_size": 16,
            "projection_dim": 8,
        },
        projection_dim=8,
    )  # fmt: skip


def save(folder, change=lambda tensors: tensors):
    """A small ClapModel with random weights, and a tokenizer of a few words."""
    model = ClapModel(small())
    model.load_state_dict(change(filled(model.state_dict())))
    model.save_pretrained(folder)
    tokenizer(folder, WORDS)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Clap(weights=str(save(tmp_path_factory.mktemp("clap") / "clap-htsat-unfused")))


def sound(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=round(seconds * RATE))).astype(np.float32)


def test_sounds_and_captions_have_embeddings_of_unit_length(judge):
    heard, texts = judge(sound(1.0), RATE), judge.read(["a dog barks", "an orchestra plays"])
    assert (heard.shape, texts.shape) == ((8,), (2, 8))
    np.testing.assert_allclose([np.linalg.norm(heard), *np.linalg.norm(texts, axis=1)], 1.0, atol=1e-5)


def test_only_the_first_ten_seconds_are_heard_and_always_alike(judge):
    long = sound(12.0)
    changed = long.copy()
    changed[10 * RATE :] = 0
    assert judge(long, RATE).tobytes() == judge(changed, RATE).tobytes() == judge(long, RATE).tobytes()
    assert judge(long, RATE).tobytes() != judge(sound(12.0, seed=1), RATE).tobytes()


def test_the_front_end_is_the_published_one(judge):
    extractor = judge._ready[1]
    assert (extractor.truncation, extractor.padding) == ("rand_trunc", "repeatpad")
    assert (extractor.frequency_min, extractor.frequency_max) == (50, 14_000)
    assert (extractor.sampling_rate, extractor.hop_length, extractor.fft_window_size) == (48_000, 480, 1024)


def test_a_captions_neighbours_do_not_change_it(judge):
    (alone,), together = (
        judge.read(["a dog barks"]),
        judge.read(["an orchestra plays a symphony", "a dog barks"]),
    )
    assert alone.tobytes() == together[1].tobytes()


def test_weights_that_cannot_tell_captions_apart_are_refused(tmp_path):
    def blind(tensors):
        return {
            n: torch.zeros_like(t) if n == "text_projection.linear1.weight" else t for n, t in tensors.items()
        }

    with pytest.raises(
        CheckpointError, match="'a dog barks' and .* are all but the same to these weights of CLAP"
    ):
        Clap(weights=str(save(tmp_path / "clap", blind)))(sound(0.1), RATE)


def test_weights_of_another_model_are_refused(judge, tmp_path):
    folder = save(tmp_path / "clap")
    config = json.loads((folder / "config.json").read_text())
    config["audio_config"]["depths"] = [2, 1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="weights of CLAP don't fit a ClapModel"):
        Clap(weights=str(folder)).model  # noqa: B018


def test_a_folder_without_weights_is_told(tmp_path):
    (tmp_path / "clap").mkdir()
    with pytest.raises(CheckpointError, match="no weights of CLAP there. Expected model.safetensors"):
        Clap(weights=str(tmp_path / "clap")).model  # noqa: B018
