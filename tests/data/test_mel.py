import numpy as np
import torch

from stav2a.data import mel


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, samples))


def plain_log_mel(audio: np.ndarray) -> np.ndarray:
    """The same by the book, in float64."""
    padded = np.pad(audio, ((0, 0), (432, 432)), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = [padded[:, 160 * i : 160 * i + 1024] * window for i in range(audio.shape[1] // 160)]
    magnitudes = np.abs(np.fft.rfft(np.stack(frames, axis=1), axis=-1))
    return np.log(np.maximum(magnitudes @ mel.mel_filters(), 1e-5))


def test_log_mel_equals_plain_computation():
    audio = noise(8000)
    computed = mel.log_mel(torch.from_numpy(audio).float())
    assert computed.shape == (2, 1, 50, 64)
    np.testing.assert_allclose(computed[:, 0].numpy(), plain_log_mel(audio), atol=1e-4)


def test_filters_are_triangles_on_slaneys_mel_scale():
    """Linear below 1 kHz (15 mel) and logarithmic above, 27 steps for a factor of 6.4."""
    last = 15 + 27 * np.log(8) / np.log(6.4)
    mels = np.linspace(0, last, 66)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0, 8000, 513)[:, None]
    inside = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    expected = (np.maximum(0, inside) * 2 / (right - left)).astype(np.float32)
    np.testing.assert_allclose(mel.mel_filters(), expected, rtol=1e-6)
    assert not np.signbit(mel.mel_filters()).any()


def test_a_normalised_sound_has_no_mean_and_the_asked_peak():
    """Tango's and AudioLDM's: x - mean, divided by the largest magnitude, times 0.5."""
    sound = noise(1000)[0].astype(np.float32) + np.float32(0.2)
    found, centred = mel.normalised(sound, 0.5), sound - sound.mean()
    np.testing.assert_allclose(found, centred / np.abs(centred).max() * 0.5, atol=1e-6)
    assert found.dtype == np.float32
    assert mel.normalised(sound, None) is sound
    assert not mel.normalised(np.full(10, 0.3, np.float32), 0.5).any()


def test_silence_lies_on_the_floor():
    assert torch.all(mel.log_mel(torch.zeros(1, 1600)) == torch.tensor(1e-5).log())


def test_a_length_that_is_no_multiple_of_the_hop_loses_the_rest():
    assert mel.log_mel(torch.zeros(1, 1759)).shape[2] == 10
