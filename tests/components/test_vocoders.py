import numpy as np
import pytest
import torch
from torch import Tensor

from stav2a.components.vocoders import BigVGAN, GriffinLim, HiFiGAN, NoVocoder
from stav2a.data import mel as front_end

RATE, SAMPLES = front_end.SAMPLE_RATE, 12_800


def tone(frequency_hz: float, start_s: float = 0.0) -> Tensor:
    """A sine (1, S) that begins at a moment and dies away slowly."""
    t = torch.arange(SAMPLES) / RATE - start_s
    sound = torch.sin(2 * torch.pi * frequency_hz * t) * torch.exp(-3 * t)
    return torch.where(t >= 0, 0.5 * sound, torch.tensor(1e-5))[None]


@pytest.fixture(scope="module")
def vocoder() -> GriffinLim:
    return GriffinLim()


@pytest.mark.parametrize("frequency_hz", [440.0, 1000.0, 3100.0])
def test_a_tone_keeps_its_pitch_its_length_and_its_loudness(vocoder, frequency_hz):
    sound = tone(frequency_hz)
    made = vocoder(front_end.log_mel(sound))
    assert made.shape == sound.shape
    peak_hz = np.abs(np.fft.rfft(made[0].numpy())).argmax() * RATE / SAMPLES
    assert peak_hz == pytest.approx(frequency_hz, rel=0.05)  # half a mel band
    assert 0.5 < made.square().mean().sqrt() / sound.square().mean().sqrt() < 1.5


@pytest.mark.parametrize("start_s", [0.203, 0.4, 0.551])
def test_a_sound_begins_when_it_should(vocoder, start_s):
    made = vocoder(front_end.log_mel(tone(800.0, start_s)))[0].abs().numpy()
    began_s = np.argmax(made > 0.3 * made.max()) / RATE
    assert abs(began_s - start_s) < 0.010


def test_the_same_spectrogram_gives_the_same_bits(vocoder):
    mel = front_end.log_mel(tone(700.0))
    assert torch.equal(vocoder(mel), vocoder(mel))


def test_a_clip_does_not_depend_on_its_batch(vocoder):
    mel = front_end.log_mel(torch.cat([tone(500.0), tone(900.0, 0.3)]))
    torch.testing.assert_close(vocoder(mel)[1:], vocoder(mel[1:]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 7, 64])
def test_hifigan_makes_a_hop_of_samples_a_frame(frames):
    torch.manual_seed(0)
    made = HiFiGAN(upsample_initial_channel=32).eval()(torch.randn(2, 1, frames, front_end.N_MELS))
    assert made.shape == (2, frames * front_end.HOP)
    assert made.abs().max() <= 1


@torch.no_grad()
def test_bigvgan_makes_a_hop_of_samples_a_frame():
    torch.manual_seed(0)
    small = BigVGAN(bins=8, upsample_initial_channel=16, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4))
    made = small.eval()(torch.randn(2, 1, 7, 8))
    assert small.hop == 8 and made.shape == (2, 7 * 8) and made.abs().max() <= 1
    assert not any(p.requires_grad for p in small.parameters())


def test_without_a_vocoder_the_waveform_is_kept_within_full_scale():
    assert NoVocoder()(torch.tensor([-2.0, 0.5, 3.0]).view(1, 1, 3, 1)).tolist() == [[-1.0, 0.5, 1.0]]


def test_hifigan_is_nothing_to_train():
    assert not any(p.requires_grad for p in HiFiGAN(upsample_initial_channel=32).parameters())
