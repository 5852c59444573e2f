"""Metrics of the times of sounds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stav2a.metrics import alignment, bootstrap
from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import RELEASED, EvaluationSet, FeatureExtractor, MetricError, Score, describe
from stav2a.registry import expect, get, register

DetectorFactory = Callable[[], FeatureExtractor]
FlowFactory = Callable[[], Callable[[np.ndarray], np.ndarray]]

COUNTED = {"one_to_one": "matched one to one", "released": "matched as released"}


class OnsetMetric:
    """Base of the metrics of onsets.

    Args:
        detector: An onset detector's factory; None is `onset_detector.librosa` at its defaults.
        name: Name of the score.
        label: Label of the score.
        matching: `one_to_one` or `released`, which has a name and a label of its own.
        draws: Arguments of the reporter: resamples, shuffles and seed.
    """

    def __init__(
        self, detector: DetectorFactory | None, name: str, label: str, matching: str, **draws: int
    ) -> None:
        self.matching = alignment.checked_matching(matching)
        self.detector = _default(detector, "onset_detector", "librosa")
        self.extractors = (self.detector,)
        if matching == "released":
            name, label = f"{name}{RELEASED}", f"{label} (released)"
        self.reporter = MetricReporter(name=name, label=label, higher_is_better=True, **draws)

    def defined(self, onsets: str, window: str) -> str:
        """Definition of a score: the onsets compared, the matching, and the window."""
        return f"{onsets}, {COUNTED[self.matching]}, {window} (strict)"

    def judge(self, samples: EvaluationSet) -> str:
        """Description of the detector and of the sounds."""
        return f"{describe(self.detector)} from {samples.sounds.definition}"


@register("metric", "aa_align")
class AAAlign(OnsetMetric):
    """Onsets of the generated sound against onsets of the real one (sec. II-D, eq. 8).

    Args:
        matching: `one_to_one` (symmetric, at most 1) or `released` (the authors' code).
        tolerance_s: T, the strict half width of the window.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        generated and references (S_i,) each -> a mean over clips
    """

    def __init__(
        self,
        *,
        matching: str = "one_to_one",
        tolerance_s: float = 0.1,
        detector: DetectorFactory | None = None,
        shuffles: int = 20,
        resamples: int = 2000,
        seed: int = 0,
    ):
        self.tolerance_s = tolerance_s
        draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
        super().__init__(detector, "aa_align", "AA-Align", matching, **draws)

    def __call__(self, samples: EvaluationSet) -> Score:
        generated, references = samples.sounds.features(self.detector)
        align = partial(alignment.aa_align, tolerance_s=self.tolerance_s, matching=self.matching)

        def pair(i: int, j: int) -> float:
            return align(generated[i], references[j])

        return self.reporter.mean(
            samples.ids,
            np.array([pair(i, i) for i in range(len(samples))]),
            self.defined("onsets of generated against real sound", f"|difference| < {self.tolerance_s:g} s"),
            judge=self.judge(samples),
            empty="no onset in either sound",
            extras=_sizes({"onsets a generated clip": generated, "onsets a real clip": references}),
            pair=pair,
        )


@register("metric", "aa_align_released")
def aa_align_released(
    *,
    tolerance_s: float = 0.1,
    detector: DetectorFactory | None = None,
    shuffles: int = 20,
    resamples: int = 2000,
    seed: int = 0,
) -> AAAlign:
    """AA-Align as the paper's authors count it: an onset may be hit by many, and the score can exceed 1.

    Args:
        tolerance_s: T, the strict half width of the window.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
    return AAAlign(matching="released", tolerance_s=tolerance_s, detector=detector, **draws)


@register("metric", "av_align")
class AVAlign(OnsetMetric):
    """Onsets of the generated sound against peaks of the video's motion, with the paper's fix.

    Args:
        matching: `one_to_one` or `released`.
        threshold: Peaks of mean flow count above this many px/frame; None counts all.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        flow: An optical flow for the videos; None is `optical_flow.farneback`, the exact one.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        generated (S_i,), flows (L_i,) each -> a mean over the clips that have a video
    """

    def __init__(
        self,
        *,
        matching: str = "one_to_one",
        threshold: float | None = 0.1,
        detector: DetectorFactory | None = None,
        flow: FlowFactory | None = None,
        shuffles: int = 20,
        resamples: int = 2000,
        seed: int = 0,
    ):
        self.threshold = threshold
        self.flow = _default(flow, "optical_flow", "farneback")
        draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
        super().__init__(detector, "av_align", "AV-Align", matching, **draws)

    def __call__(self, samples: EvaluationSet) -> Score:
        peaks = "all peaks" if self.threshold is None else f"peaks > {self.threshold:g} px/frame"
        flow = f"video flow (flow: {samples.flow_definition}; {peaks})"
        definition = self.defined(f"onsets of generated sound against peaks of {flow}", "within ± 1 frame")
        if samples.flows is None or samples.frame_rate_hz is None:
            return self.reporter.absent("no video flow was given", definition)
        rates, peaks_s, skipped = samples.frame_rate_hz, {}, {}
        for i, (clip, trajectory) in enumerate(zip(samples.ids, samples.flows, strict=True)):
            try:
                if trajectory is None:
                    raise MetricError("no video")
                times_s = samples.frame_times_s[i] if samples.frame_times_s else None
                peaks_s[i] = alignment.video_peaks_s(trajectory, rates[i], self.threshold, times_s)
            except MetricError as error:
                skipped[clip] = str(error)
        clips = list(peaks_s)
        if not clips:
            reason = next(iter(skipped.values()))
            return self.reporter.absent(f"no clip has a usable video ({reason})", definition)
        generated, references = samples.sounds.features(self.detector)

        def score(onsets: np.ndarray, clip: int) -> float:
            tolerance_s = 1.0 / rates[clip]
            return alignment.aa_align(onsets, peaks_s[clip], tolerance_s=tolerance_s, matching=self.matching)

        return self.reporter.mean(
            [samples.ids[i] for i in clips],
            np.array([score(generated[i], i) for i in clips]),
            definition,
            judge=self.judge(samples),
            empty="no onset in the sound, no peak in the video",
            skipped=skipped,
            extras={
                **_means({"real sound": np.array([score(references[i], i) for i in clips])}),
                **_sizes({"peaks a video": list(peaks_s.values())}),
            },
            pair=lambda i, j: score(generated[clips[i]], clips[j]),
        )


@register("metric", "av_align_released")
def av_align_released(
    *,
    threshold: float | None = 0.1,
    detector: DetectorFactory | None = None,
    flow: FlowFactory | None = None,
    shuffles: int = 20,
    resamples: int = 2000,
    seed: int = 0,
) -> AVAlign:
    """AV-Align as the paper's authors count it: a peak of motion may be hit by many onsets.

    Args:
        threshold: Peaks of mean flow count above this many px/frame; None counts all.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        flow: An optical flow for the videos; None is `optical_flow.farneback`, the exact one.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
    return AVAlign(matching="released", threshold=threshold, detector=detector, flow=flow, **draws)


@register("metric", "onset_f1")
class OnsetF1(OnsetMetric):
    """F1 of the onsets detected in the generated sound against the exactly known ones.

    Args:
        tolerance_s: Strict half width of the window.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        generated (S_i,), true onsets (N_i,) each -> a mean over clips
    """

    def __init__(
        self,
        *,
        tolerance_s: float = 0.1,
        detector: DetectorFactory | None = None,
        shuffles: int = 20,
        resamples: int = 2000,
        seed: int = 0,
    ):
        self.tolerance_s = tolerance_s
        draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
        super().__init__(detector, "onset_f1", "Onset F1", "one_to_one", **draws)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = self.defined(
            "F1 of onsets of generated sound against known onsets", f"|difference| < {self.tolerance_s:g} s"
        )
        if samples.true_onsets_s is None:
            return self.reporter.absent("the clips' true onsets are not known", definition)
        generated, references = samples.sounds.features(self.detector)
        known = [np.asarray(times, dtype=np.float64) for times in samples.true_onsets_s]
        known = [times[times < samples.sounds.duration_s(i)] for i, times in enumerate(known)]

        def scores(estimated_s: np.ndarray, clip: int) -> alignment.OnsetScores:
            return alignment.onset_scores(estimated_s, known[clip], tolerance_s=self.tolerance_s)

        precision, recall, f1 = np.array([scores(sound, i) for i, sound in enumerate(generated)]).T
        real = np.array([scores(sound, i).f1 for i, sound in enumerate(references)])
        return self.reporter.mean(
            samples.ids,
            f1,
            definition,
            judge=self.judge(samples),
            empty="no onset in the sound, none known",
            extras=_means({"precision": precision, "recall": recall, "F1 of real sound": real}),
            pair=lambda i, j: scores(generated[i], j).f1,
        )


def _default(factory: Callable[[], Any] | None, slot: str, name: str) -> Any:
    """Product of the factory; of the slot's component of that name where there is none."""
    return expect(slot, factory or get(slot, name).factory)()


def _sizes(rows: dict[str, list[np.ndarray]]) -> dict[str, float]:
    return {name: float(np.mean([len(row) for row in each])) for name, each in rows.items()}


def _means(rows: dict[str, np.ndarray]) -> dict[str, float]:
    """Means of the rows that have any value."""
    means = {name: float(bootstrap.nan_mean(row)) for name, row in rows.items()}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)}
