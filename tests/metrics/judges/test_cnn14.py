import sys

import librosa
import numpy as np
import pytest
import torch

from stav2a.metrics.judges.cnn14 import Cnn14, network
from stav2a.utils.checkpoints import CheckpointError

RATE = 16_000


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """With weights as published: the order of a sampler beside them."""
    path = tmp_path_factory.mktemp("cnn14") / "Cnn14_16k_mAP=0.438.pth"
    torch.manual_seed(0)
    beside = {"iteration": 1, "sampler": {"indexes": np.arange(9), "pointer": 3}}
    torch.save({"model": network().state_dict(), **beside}, path)
    yield Cnn14(weights=str(path))
    path.unlink()  # 320 MB


def sound(seconds, rate=RATE, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=round(seconds * rate))).astype(np.float32)


def test_a_sound_gives_an_embedding_and_logits_again_and_again(judge):
    heard = judge(sound(1.0), RATE)
    assert (heard["embedding"].shape, heard["logits"].shape) == ((2048,), (527,))
    assert (heard["embedding"] >= 0).all()  # after fc1's ReLU
    assert heard.tobytes() == Cnn14(weights=str(judge.path))(sound(1.0), RATE).tobytes()
    assert (heard["logits"] != judge(sound(1.0, seed=1), RATE)["logits"]).any()


def test_logits_are_before_the_sigmoid_and_follow_from_the_embedding(judge):
    heard = judge(sound(1.0), RATE)
    layer = judge.model.fc_audioset
    expected = layer.weight.detach().numpy() @ heard["embedding"] + layer.bias.detach().numpy()
    np.testing.assert_allclose(heard["logits"], expected, atol=1e-5)


def test_the_front_end_is_the_published_one(judge):
    model, audio = judge.model, sound(1.0)
    found = model.logmel_extractor(model.spectrogram_extractor(torch.from_numpy(audio)[None]))[0, 0].numpy()
    mels = librosa.feature.melspectrogram(
        y=audio, sr=RATE, n_fft=512, hop_length=160, n_mels=64, fmin=50, fmax=8000, pad_mode="reflect"
    )
    np.testing.assert_allclose(found, 10 * np.log10(np.maximum(mels, 1e-10)).T, atol=1e-3)


def test_other_rates_and_the_shortest_sounds_are_heard(judge):
    assert judge(sound(1.0, rate=44_100), 44_100)["logits"].shape == (527,)
    assert np.isfinite(judge(sound(0.01), RATE)["logits"]).all()
    assert np.isfinite(judge(np.zeros(RATE), RATE)["logits"]).all()


def test_the_package_that_calls_wget_is_not_imported(judge):
    assert judge.model
    assert "panns_inference" not in sys.modules


def test_the_definition_tells_front_end_and_weights(judge):
    front_end = "16 kHz, window 512, hop 160, 64 mels of 50 to 8000 Hz"
    assert judge.definition.startswith(f"PANNs Cnn14 classifier ({front_end}; weights ")


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"model": {"fc1.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match="weights of PANNs Cnn14 classifier does not fit this model: missing"
    ):
        Cnn14(weights=str(tmp_path / "other.pth")).model  # noqa: B018


def test_weights_that_are_not_there_are_told(tmp_path):
    assert Cnn14(weights=str(tmp_path / "no.pth")).fault == (
        "weights of PANNs Cnn14 classifier not found: put Cnn14_16k_mAP=0.438.pth, from "
        f"zenodo.org/records/3987831, here: {tmp_path / 'no.pth'}"
    )
