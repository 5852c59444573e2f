"""CAVP as a judge, at tiny size, with random weights under the checkpoint's names."""

from functools import partial

import librosa
import numpy as np
import pytest
import torch

from stav2a.metrics.judges import cavp
from stav2a.metrics.judges.cavp import CAVPJudge, CAVPTowers, SoundTower, pooled, spectrogram
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.judge_material import filled

WIDTHS, DIM = (2, 3, 4, 5, 6, 7), 4
SIZES = {"widths": WIDTHS, "dim": DIM, "video": {"width": 4, "blocks": (1, 1, 1, 1)}}


def sound(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(cavp, "CAVPTowers", partial(CAVPTowers, **SIZES))
    path = tmp_path / "cavp_epoch66.ckpt"
    state = {f"module.{name}": tensor for name, tensor in filled(CAVPTowers(**SIZES).state_dict()).items()}
    torch.save({"epoch": 66, "state_dict": state}, path)
    return CAVPJudge(weights=str(path))


@torch.no_grad()
def test_the_sound_tower_gives_what_the_authors_module_gives():
    """Numbers of Diff-Foley's inference/model/cavp_modules.py (commit fc5d02f), at these widths."""
    tower = SoundTower(WIDTHS, DIM).eval()
    tower.load_state_dict(filled(tower.state_dict()))
    mel = np.random.default_rng(0).random((1, 128, 70)).astype(np.float32)
    found = tower(torch.from_numpy(mel).transpose(1, 2))[0].numpy()
    expected = [
        [0.0785280391573906, 0.18713337182998657, 0.12756966054439545, 0.11873593926429749],
        [0.08412250876426697, 0.19823408126831055, 0.12478584051132202, 0.13762634992599487],
        [0.08437642455101013, 0.19873791933059692, 0.12465948611497879, 0.13848373293876648],
        [0.07878416776657104, 0.18764157593250275, 0.12744221091270447, 0.11960075795650482],
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_sounds_front_end_is_the_published_one():
    audio = sound(2.0)
    basis = librosa.filters.mel(sr=16_000, n_fft=1024, fmin=125, fmax=7600, n_mels=128)
    mel = basis @ np.abs(librosa.stft(audio, n_fft=1024, hop_length=256))
    expected = np.clip((20 * np.log10(np.maximum(mel, 1e-5)) - 20 + 100) / 100, 0, 1).T
    np.testing.assert_allclose(spectrogram(audio), expected, atol=1e-6)


@pytest.mark.parametrize(("seconds", "windows"), [(0.01, 1), (4.0, 1), (4.2, 1), (10.0, 3)])
def test_sound_and_picture_have_a_feature_for_each_window(judge, seconds, windows):
    times = judge.frame_times_s(seconds)
    assert times[0] == 0 and np.allclose(np.diff(times), 0.25)
    frames = np.zeros((len(times), 40, 50, 3), np.uint8)
    fitted = np.stack([judge.fit(frame) for frame in frames])
    assert fitted.shape == (len(times), 224, 224, 3)
    small = fitted[:, ::7, ::7]
    assert judge(sound(seconds), 16_000).shape == (windows, DIM)
    assert judge.watched(small).shape == (max(windows, -(-len(times) // 16)), DIM)


def test_the_last_window_reaches_back_from_the_end():
    features = torch.arange(20.0)[:, None]
    assert pooled(features, 8)[:, 0].tolist() == [7, 15, 19]
    assert pooled(-features, 8)[:, 0].tolist() == [0, -8, -12]


def test_a_picture_is_encoded_as_by_the_feature_encoder(judge):
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    e_v = judge.watched(frames)
    with torch.no_grad():
        expected = judge.model.picture(torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255)
    np.testing.assert_allclose(e_v[0], expected[0].amax(dim=0), rtol=1e-6)


def test_weights_of_another_model_are_refused(judge, tmp_path):
    torch.save({"state_dict": {"video_encoder.x": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="weights of CAVP does not fit"):
        CAVPJudge(weights=str(tmp_path / "other.ckpt")).prepare()
