import librosa
import numpy as np
import pytest
import torch

from stav2a.metrics.judges.vggish import VGGish, examples, network
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.test_cnn14 import RATE, sound

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    path = tmp_path_factory.mktemp("vggish") / "vggish-10086976.pth"
    torch.manual_seed(0)
    torch.save(network().state_dict(), path)
    yield VGGish(weights=str(path))
    path.unlink()  # 290 MB


@pytest.mark.parametrize(("seconds", "windows"), [(0.1, 1), (1.0, 1), (1.92, 1), (1.95, 2), (4.0, 4)])
def test_every_096_s_are_a_window(judge, seconds, windows):
    assert judge(sound(seconds), RATE).shape == (windows, 128)


def test_the_last_relu_is_off_and_sounds_are_heard_alike_again(judge):
    heard = judge(sound(2.0), RATE)
    assert (heard < 0).any()
    assert heard.tobytes() == VGGish(weights=str(judge.path))(sound(2.0), RATE).tobytes()


def test_the_front_end_is_the_published_one():
    audio = sound(0.975)
    # librosa centres the window of 400 in 512 samples: shift the sound by as much
    shifted = np.pad(audio, (56, 56))
    spectrum = np.abs(librosa.stft(shifted, n_fft=512, hop_length=160, win_length=400, center=False))
    bank = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None)
    expected = np.log(bank @ spectrum + 0.01).T
    found = examples(audio)[0, 0].numpy()
    assert found.shape == (96, 64)
    np.testing.assert_allclose(found, expected[:96], atol=0.02)  # bins of the bank differ slightly


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="weights of VGGish does not fit this model: missing"):
        VGGish(weights=str(tmp_path / "other.pth")).model  # noqa: B018
