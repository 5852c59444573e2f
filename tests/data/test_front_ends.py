"""Front ends: the sizes that they promise, by the book."""

import numpy as np
import pytest
import torch
from diffusers import MMAudioVAE

from stav2a.components.vocoders import GriffinLim
from stav2a.data import mel
from stav2a.data.front_ends import AudioLDMMel, MMAudioMel, MMAudioMel16k, Waveform
from stav2a.utils.errors import UsageError


def noise(samples: int) -> torch.Tensor:
    return 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


def test_audioldm_s_is_the_mel_of_its_vocoder():
    front_end, audio = AudioLDMMel(), noise(8000)
    assert torch.equal(front_end(audio), mel.log_mel(audio))
    assert (front_end.sample_rate, front_end.hop, front_end.bins) == (16_000, 160, 64)


def test_mmaudio_s_is_that_of_diffusers():
    front_end, audio = MMAudioMel(), 4 * noise(9000)  # some samples are clipped
    converter = MMAudioVAE(hidden_channels=8).mel_converter
    theirs = converter(audio).transpose(1, 2)[:, None]
    assert theirs.shape == (2, 1, 9000 // front_end.hop, front_end.bins)
    torch.testing.assert_close(front_end(audio), theirs, rtol=1e-4, atol=1e-4)


def test_mmaudio_s_at_16_khz_by_the_book():
    audio = noise(4000).double().numpy()
    padded = np.pad(audio.clip(-1, 1), ((0, 0), (384, 384)), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[:, 256 * i : 256 * i + 1024] * window for i in range(4000 // 256)], axis=1)
    magnitudes = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    expected = np.log10(np.maximum(magnitudes @ mel.slaney_filters(16_000, 1024, 80, 8000), 1e-5))
    found = MMAudioMel16k()(torch.from_numpy(audio).float())
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("front_end", [AudioLDMMel(), MMAudioMel(), MMAudioMel16k()])
def test_griffin_lim_undoes_each_spectrogram(front_end):
    samples = front_end.hop * 40
    audio = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(samples) / front_end.sample_rate)[None]
    made = GriffinLim(front_end, iterations=8)(front_end(audio))
    assert made.shape == audio.shape
    peak_hz = np.abs(np.fft.rfft(made[0].numpy())).argmax() * front_end.sample_rate / samples
    assert peak_hz == pytest.approx(1000, rel=0.05)
    assert 0.5 < made.square().mean().sqrt() / audio.square().mean().sqrt() < 1.5


def test_a_waveform_is_a_sample_a_frame():
    front_end, audio = Waveform(sample_rate=24_000), noise(50)
    assert front_end(audio).shape == (2, 1, 50, 1) and torch.equal(front_end(audio)[:, 0, :, 0], audio)
    with pytest.raises(UsageError, match=r"front_end.waveform.sample_rate = 1: expected 1000 to 768000"):
        Waveform(sample_rate=1)


def test_sounds_of_other_rates_are_resampled_for_the_classifier():
    audio = noise(44_100).numpy()
    assert mel.log_mels(audio, 44_100).shape == (2, 1, 100, 64)
    assert torch.equal(mel.log_mels(audio, 16_000), mel.log_mel(torch.from_numpy(audio)))
