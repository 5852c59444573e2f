"""Does the sound begin when the picture moves?"""

import math
from collections.abc import Callable

from stav2a.data.filters.decision import Decision
from stav2a.data.flow import Farneback, motion
from stav2a.data.io import Decoded
from stav2a.data.onsets import Librosa
from stav2a.metrics.alignment import aa_align, video_peaks
from stav2a.registry import expect, register
from stav2a.slots import OnsetDetector, OpticalFlow


@register("data_filter", "av_align")
class AVAlignFilter:
    """Keep clips whose sound begins when the picture moves: AV-Align of at least a threshold [17].

    Args:
        threshold: The lowest score that is kept.
        detector: Finds the sound's onsets; librosa's is the metric's definition.
        flow: Finds the motion; Farneback's is the metric's definition.
        flow_size: Shorter side to which pictures are reduced before; None is the native size, the definition.
        tolerance_frames: How far an onset may lie from a peak of motion, exclusive; 1 is the definition.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        detector: Callable[[], OnsetDetector] = Librosa,
        flow: Callable[[], OpticalFlow] = Farneback,
        flow_size: int | None = None,
        tolerance_frames: float = 1.0,
    ) -> None:
        self.threshold, self.detect = threshold, expect("onset_detector", detector)()
        self.flow, self.flow_size = expect("optical_flow", flow)(), flow_size
        self.tolerance_frames = tolerance_frames

    def __call__(self, clip: Decoded) -> Decision:
        if len(clip.frames) < 3:
            return _rejected(f"{len(clip.frames)} frames, too few for motion")
        onsets = self.detect(clip.audio, clip.sample_rate)
        moved = clip.reduction * motion(clip.frames, self.flow_size, self.flow)
        peaks = clip.times_s[video_peaks(moved)]
        tolerance_s = self.tolerance_frames / clip.frame_rate_hz
        score = aa_align(onsets, peaks, tolerance_s=tolerance_s, matching="released")
        if math.isnan(score):
            return _rejected("no onset and no motion")
        kept = score >= self.threshold
        return Decision(
            kept,
            score,
            f"{'kept' if kept else 'rejected'}: {score:.2f} {'≥' if kept else '<'} {self.threshold:g} "
            f"({len(onsets)} onsets, {len(peaks)} peaks of motion)",
            "av_align",
        )


def _rejected(why: str) -> Decision:
    return Decision(False, None, f"rejected: {why}", "av_align")
