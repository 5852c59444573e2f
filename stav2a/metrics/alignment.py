"""Alignment in time: of onsets with onsets (AA-Align, F1) and with motion (AV-Align). Arrays in, numbers out.

Two ways of counting, never to be compared with one another:

`one_to_one`: the largest number of disjoint pairs closer than the tolerance. Symmetric, within [0, 1].
`released`: the number of estimated onsets that have any reference onset closer than the tolerance, as the
paper's authors published it. Several may hit the same one, so that the score can exceed 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stav2a.metrics.score import MetricError

MATCHINGS = ("one_to_one", "released")

# The windows are strict, and 0.3 - 0.2 < 0.1 in floating point: a tie must not hit by rounding.
_ROUNDING_S = 1e-9


class OnsetScores(NamedTuple):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def checked_matching(matching: str) -> str:
    """`matching` itself, if there is such a way of counting."""
    if matching not in MATCHINGS:
        raise MetricError(f"matching was {matching!r}. Write one of: {', '.join(MATCHINGS)}.")
    return matching


def count_hits(
    estimated_s: ArrayLike, reference_s: ArrayLike, *, tolerance_s: float, matching: str = "one_to_one"
) -> int:
    """Number of estimated times that hit a reference time, |estimated - reference| < tolerance_s.

    Args:
        estimated_s: Times in seconds, in any order.
        reference_s: Times in seconds, in any order.
        tolerance_s: Strict half width of the window; a tie misses.
        matching: `one_to_one` or `released`.

    Shapes:
        (N,), (M,) -> a count

    Raises:
        MetricError: Times that are not a row of finite numbers; an unknown `matching`; no tolerance.

    Example:
        >>> burst, one = [1.00, 1.02, 1.04], [1.01]
        >>> [count_hits(burst, one, tolerance_s=0.1, matching=each) for each in MATCHINGS]
        [1, 3]
    """
    checked_matching(matching)
    if not tolerance_s > 0:
        raise MetricError(f"tolerance_s was {tolerance_s}. Give a time above 0 s.")
    advice = "Give a row of finite times in seconds."
    estimated = np.sort(_row(estimated_s, "the estimated onsets were", advice))
    reference = np.sort(_row(reference_s, "the reference onsets were", advice))
    window = tolerance_s - _ROUNDING_S
    count = _matched_pairs if matching == "one_to_one" else _hits_of_any
    return count(estimated, reference, window)


def aa_align(
    generated_s: ArrayLike, reference_s: ArrayLike, *, tolerance_s: float = 0.1, matching: str = "one_to_one"
) -> float:
    """AA-Align of one clip (eq. 8): hits / (|generated| + |reference| - hits).

    Both sides empty is NaN: there is nothing to align. One side empty is 0.

    Args:
        generated_s: Onsets of the generated sound, in seconds.
        reference_s: Onsets of the real sound, in seconds.
        tolerance_s: T of the paper.
        matching: `one_to_one` or `released`.

    Shapes:
        (N,), (M,) -> a score

    Example:
        >>> round(aa_align([0.5, 1.0, 2.0], [0.52, 1.5]), 4)
        0.25
    """
    hits = count_hits(generated_s, reference_s, tolerance_s=tolerance_s, matching=matching)
    union = np.size(generated_s) + np.size(reference_s) - hits  # eq. 8
    return hits / union if union else float("nan")


def onset_scores(estimated_s: ArrayLike, reference_s: ArrayLike, *, tolerance_s: float = 0.1) -> OnsetScores:
    """Precision, recall and F1 of estimated onsets against known ones, matched one to one.

    Both sides empty is NaN; one side empty is 0, as in mir_eval, whose window includes its ends, unlike ours.

    Args:
        estimated_s: Detected onsets, in seconds.
        reference_s: Known onsets, in seconds.
        tolerance_s: Strict half width of the window.

    Shapes:
        (N,), (M,) -> three scores

    Example:
        >>> onset_scores([0.5, 1.0, 2.0], [0.52, 1.5])
        OnsetScores(precision=0.3333333333333333, recall=0.5, f1=0.4)
    """
    hits = count_hits(estimated_s, reference_s, tolerance_s=tolerance_s)
    estimated, reference = np.size(estimated_s), np.size(reference_s)
    if not estimated and not reference:
        return OnsetScores(float("nan"), float("nan"), float("nan"))
    return OnsetScores(
        precision=hits / estimated if estimated else 0.0,
        recall=hits / reference if reference else 0.0,
        f1=2 * hits / (estimated + reference),
    )


def video_peaks(trajectory: ArrayLike, threshold: float | None = 0.1) -> NDArray[np.int64]:
    """Frames at which the mean flow is a strict local maximum, and above the threshold.

    The paper ignores maxima of 0.1 px/frame and less, which are noise of static pictures; `None` keeps them.

    Args:
        trajectory: Mean flow magnitude per frame, px/frame: [flow(0, 1), flow(0, 1), flow(1, 2), ...].
        threshold: Strict lower limit of a peak; None keeps every peak.

    Shapes:
        (N,) -> (P,) frame indices, ascending; frame i is at i / frame_rate_hz seconds

    Raises:
        MetricError: Fewer than 3 frames, or a flow that is not finite.

    Example:
        >>> video_peaks([0, 0, 2, 1, 1.05, 1, 0.05]).tolist(), video_peaks([0, 0.05, 0]).tolist()
        ([2, 4], [])
    """
    flow = _row(trajectory, "the flow trajectory was", "Give a row of finite numbers, one a frame.")
    if len(flow) < 3:
        raise MetricError(
            f"the video has {len(flow)} frame(s). AV-Align needs 3 or more to find a peak of motion."
        )
    middle = flow[1:-1]
    peak = (flow[:-2] < middle) & (middle > flow[2:])
    if threshold is not None:
        peak &= middle > threshold
    return np.flatnonzero(peak) + 1


def video_peaks_s(
    trajectory: ArrayLike,
    frame_rate_hz: float,
    threshold: float | None = 0.1,
    times_s: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Times of `video_peaks` in seconds; raises `MetricError` for a frame rate that is none.

    `times_s` (N,) are the frames' own times, where they are not i / frame_rate_hz.
    """
    if frame_rate_hz is None or not (np.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise MetricError(f"the video's frame rate was {frame_rate_hz}. AV-Align needs one above 0 Hz.")
    peaks = video_peaks(trajectory, threshold)
    return peaks / frame_rate_hz if times_s is None else times_s[peaks]


def _row(values: ArrayLike, what: str, advice: str) -> NDArray[np.float64]:
    """A row of finite numbers in float64."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        fault = f"of shape {array.shape}" if array.ndim != 1 else "not all finite"
        raise MetricError(f"{what} {fault}.", advice=advice)
    return array


def _hits_of_any(estimated: NDArray[np.float64], reference: NDArray[np.float64], window: float) -> int:
    if not estimated.size or not reference.size:
        return 0
    nearest = np.abs(estimated[:, None] - reference[None, :]).min(axis=1)
    return int((nearest < window).sum())


def _matched_pairs(estimated: NDArray[np.float64], reference: NDArray[np.float64], window: float) -> int:
    """Maximum matching of equal windows on a line: the earliest is paired with the earliest."""
    left, right = estimated.tolist(), reference.tolist()
    hits = i = j = 0
    while i < len(left) and j < len(right):
        distance = left[i] - right[j]
        hit = abs(distance) < window
        hits += hit
        i += hit or distance < 0
        j += hit or distance > 0
    return hits
