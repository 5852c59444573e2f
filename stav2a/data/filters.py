"""Data filters: which clips are worth learning from (sec. II-A)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from stav2a.data.flow import motion
from stav2a.data.io import Decoded
from stav2a.data.onsets import Librosa
from stav2a.metrics.alignment import aa_align, video_peaks_s
from stav2a.registry import register
from stav2a.slots import OnsetDetector


@dataclass(frozen=True)
class Decision:
    """Whether a clip is kept, the score behind it, and the reason in words."""

    keep: bool
    score: float | None
    reason: str


@register("data_filter", "none")
class KeepAll:
    """Keep every clip."""

    def __call__(self, clip: Decoded) -> Decision:
        return Decision(True, None, "kept: no filter")


@register("data_filter", "av_align")
class AVAlignFilter:
    """Keep clips whose sound begins when the picture moves: AV-Align of at least a threshold [17].

    Args:
        threshold: The lowest score that is kept.
        detector: Finds the sound's onsets; librosa's is the metric's definition.
        flow_size: Shorter side at which optical flow is found; None is the native size, exact and slow.
        tolerance_frames: How far an onset may lie from a peak of motion, exclusive; 1 is the definition.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        detector: Callable[[], OnsetDetector] = Librosa,
        flow_size: int | None = None,
        tolerance_frames: float = 1.0,
    ) -> None:
        self.threshold, self.detect = threshold, detector()
        self.flow_size, self.tolerance_frames = flow_size, tolerance_frames

    def __call__(self, clip: Decoded) -> Decision:
        if len(clip.frames) < 3:
            return Decision(False, None, f"rejected: {len(clip.frames)} frames, too few for motion")
        onsets = self.detect(clip.audio, clip.sample_rate)
        peaks = video_peaks_s(motion(clip.frames, self.flow_size), clip.frame_rate_hz)
        tolerance_s = self.tolerance_frames / clip.frame_rate_hz
        score = aa_align(onsets, peaks, tolerance_s=tolerance_s, matching="released")
        found = f"{len(onsets)} onsets, {len(peaks)} peaks of motion"
        if math.isnan(score):
            return Decision(False, None, "rejected: no onset and no motion")
        kept = score >= self.threshold
        sign = "≥" if kept else "<"
        return Decision(
            kept, score, f"{'kept' if kept else 'rejected'}: {score:.2f} {sign} {self.threshold:g} ({found})"
        )
