import importlib.metadata

import numpy as np
import pytest

from stav2a.data.onsets import Librosa, SuperFlux, _madmom_found, onset_frames
from stav2a.data.struck_objects.rendering import render_sound
from stav2a.data.struck_objects.scene import CLASSES, plan

WORLD = [plan(0, "test", index, 0, 0) for index in range(2 * len(CLASSES))]


def clicks(times_s: list[float], sample_rate: int = 16_000, duration_s: float = 2.0) -> np.ndarray:
    audio = np.random.default_rng(0).normal(0, 1e-3, round(duration_s * sample_rate))
    ring = np.exp(-np.arange(800) / 100) * np.random.default_rng(1).normal(0, 0.3, 800)
    for time in times_s:
        start = round(time * sample_rate)
        audio[start : start + 800] += ring
    return audio.astype(np.float32)


def by_madmom(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """madmom's own chain."""
    with _madmom_found():
        from madmom.audio.filters import LogarithmicFilterbank
        from madmom.audio.signal import FramedSignal, Signal
        from madmom.audio.spectrogram import FilteredSpectrogram, LogarithmicSpectrogram, Spectrogram
        from madmom.features.onsets import OnsetPeakPickingProcessor, superflux
    signal = Signal(audio, sample_rate=sample_rate, num_channels=1)
    framed = FramedSignal(signal, frame_size=round(2048 / 44_100 * sample_rate), fps=200)
    filtered = FilteredSpectrogram(Spectrogram(framed), filterbank=LogarithmicFilterbank, num_bands=24)
    strength = superflux(LogarithmicSpectrogram(filtered, log=np.log10))
    peaks = OnsetPeakPickingProcessor(
        threshold=1.1, pre_max=0.01, post_max=0.05, pre_avg=0.15, post_avg=0, combine=0.03, fps=200
    )
    return np.asarray(peaks(strength))


@pytest.mark.parametrize("sample_rate", [16_000, 22_050])
def test_superflux_equals_madmoms_own_chain(sample_rate):
    for performance in WORLD[:6]:
        audio = render_sound(performance)
        np.testing.assert_array_equal(SuperFlux()(audio, sample_rate), by_madmom(audio, sample_rate))


@pytest.mark.parametrize("detector", [SuperFlux(), Librosa()])
def test_clicks_are_found_within_30_ms(detector):
    found = detector(clicks([0.3, 0.9, 1.5]), 16_000)
    found = found[found > 0.1]  # librosa also takes the beginning of the noise for an onset
    np.testing.assert_allclose(found, [0.3, 0.9, 1.5], atol=0.03)


@pytest.mark.parametrize("detector", [SuperFlux(), Librosa()])
def test_silence_has_no_onsets(detector):
    assert len(detector(np.zeros(16_000, np.float32), 16_000)) == 0
    assert len(detector(np.zeros(0, np.float32), 16_000)) == 0


def test_superflux_finds_the_strikes_of_every_class_without_bias():
    errors = []
    for performance in WORLD:
        found = SuperFlux()(render_sound(performance), 16_000)
        assert len(found) <= len(performance.onsets_s) + 1
        errors += [np.abs(found - time).min() for time in performance.onsets_s]
    assert max(errors) < 0.03


def test_looking_for_madmom_leaves_importlib_as_it_was():
    before = importlib.metadata.distribution
    with _madmom_found():
        assert importlib.metadata.distribution("madmom").version
    assert importlib.metadata.distribution is before


def test_an_onset_marks_the_frame_it_lies_in():
    labels = onset_frames([0.0, 0.28, 0.3999, 9.0], length=12, frame_rate_hz=25)
    assert np.flatnonzero(labels).tolist() == [0, 7, 9]


def test_an_onset_on_a_frames_edge_is_not_lost_to_rounding():
    assert np.flatnonzero(onset_frames([0.29], length=40, frame_rate_hz=100)).tolist() == [29]
