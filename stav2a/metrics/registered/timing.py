"""Metrics of when things sound."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from stav2a.metrics import alignment, bootstrap
from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import EvaluationSet, FeatureExtractor, MetricError, Score, describe
from stav2a.registry import expect, get, load, register

DetectorFactory = Callable[[], FeatureExtractor]
FlowFactory = Callable[[], Callable[[np.ndarray], np.ndarray]]
Built = TypeVar("Built")


@register("metric", "aa_align")
class AAAlign:
    """Onsets of the generated sound against onsets of the real one (sec. II-D, eq. 8).

    Args:
        matching: `one_to_one` (symmetric, at most 1) or `released` (the authors' code).
        tolerance_s: T, the strict half width of the window.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Of shuffles and draws.

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
        self.matching = alignment.checked_matching(matching)
        self.tolerance_s = tolerance_s
        self.detector = _built("onset_detector", "librosa", detector)
        self.extractors = (self.detector,)
        self.reporter = _sheet("aa_align", "AA-Align", matching, shuffles, resamples, seed)

    @classmethod
    def released(cls, *, detector: DetectorFactory | None = None) -> "AAAlign":
        """As the paper's authors published it."""
        return cls(matching="released", detector=detector)

    def __call__(self, samples: EvaluationSet) -> Score:
        generated, references = samples.sounds.features(self.detector)
        definition = (
            f"onsets of generated against real sound, {_count(self.matching)}, "
            f"|difference| < {self.tolerance_s:g} s (strict), {_heard(self.detector, samples)}"
        )

        def pair(i: int, j: int) -> float:
            return alignment.aa_align(
                generated[i], references[j], tolerance_s=self.tolerance_s, matching=self.matching
            )

        return self.reporter.mean(
            samples.ids,
            np.array([pair(i, i) for i in range(len(samples))]),
            definition,
            empty="no onset in either sound",
            details={
                "onsets a generated clip": _mean_size(generated),
                "onsets a real clip": _mean_size(references),
            },
            pair=pair,
        )


@register("metric", "av_align")
class AVAlign:
    """Onsets of the generated sound against peaks of the video's motion, with the paper's fix.

    Args:
        matching: `one_to_one` or `released`.
        threshold: Peaks of mean flow count above this many px/frame; None counts all.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        flow: An optical flow, by which the flows are found; None is `optical_flow.farneback`, the exact one.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Of shuffles and draws.

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
        self.matching = alignment.checked_matching(matching)
        self.threshold = threshold
        self.detector = _built("onset_detector", "librosa", detector)
        self.extractors = (self.detector,)
        self.flow = _built("optical_flow", "farneback", flow)
        self.reporter = _sheet("av_align", "AV-Align", matching, shuffles, resamples, seed)

    @classmethod
    def released(
        cls, *, detector: DetectorFactory | None = None, flow: FlowFactory | None = None
    ) -> "AVAlign":
        """As the paper's authors published it."""
        return cls(matching="released", detector=detector, flow=flow)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = (
            f"onsets of generated sound against peaks of video flow (flow: {samples.flow_definition}; "
            f"{'all peaks' if self.threshold is None else f'peaks > {self.threshold:g} px/frame'}), "
            f"{_count(self.matching)}, within ± 1 frame (strict), {_heard(self.detector, samples)}"
        )
        if samples.flows is None or samples.frame_rate_hz is None:
            return self.reporter.absent("no video flow was given", definition)
        peaks_s, left_out = self._peaks_s(samples)
        clips = sorted(peaks_s)
        if not clips:
            return self.reporter.absent(
                f"no clip has a usable video ({next(iter(left_out.values()))})", definition
            )
        generated, references = samples.sounds.features(self.detector)
        rates = samples.frame_rate_hz

        def score(onsets: np.ndarray, clip: int) -> float:
            tolerance_s = 1.0 / rates[clip]
            return alignment.aa_align(onsets, peaks_s[clip], tolerance_s=tolerance_s, matching=self.matching)

        return self.reporter.mean(
            [samples.ids[i] for i in clips],
            np.array([score(generated[i], i) for i in clips]),
            definition,
            empty="no onset in the sound, no peak in the video",
            left_out=left_out,
            details=_details(
                {"real sound": np.array([score(references[i], i) for i in clips])},
                {"peaks a video": float(np.mean([len(peaks_s[i]) for i in clips]))},
            ),
            pair=lambda i, j: score(generated[clips[i]], clips[j]),
        )

    def _peaks_s(self, samples: EvaluationSet) -> tuple[dict[int, np.ndarray], dict[str, str]]:
        """Peaks of each usable video in seconds, by place; reasons of the others, by id."""
        peaks_s, left_out = {}, {}
        for i, (clip, flow) in enumerate(zip(samples.ids, samples.flows or (), strict=True)):
            try:
                if flow is None:
                    raise MetricError("no video")
                peaks_s[i] = alignment.video_peaks_s(flow, (samples.frame_rate_hz or ())[i], self.threshold)
            except MetricError as error:
                left_out[clip] = str(error)
        return peaks_s, left_out


@register("metric", "onset_f1")
class OnsetF1:
    """F1 of the onsets heard in the generated sound against the exactly known ones.

    Args:
        tolerance_s: Strict half width of the window.
        detector: An onset detector; None is `onset_detector.librosa` at its defaults.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Of shuffles and draws.

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
        self.detector = _built("onset_detector", "librosa", detector)
        self.extractors = (self.detector,)
        self.reporter = _sheet("onset_f1", "Onset F1", "one_to_one", shuffles, resamples, seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = (
            f"F1 of onsets of generated sound against known onsets, {_count('one_to_one')}, "
            f"|difference| < {self.tolerance_s:g} s (strict), {_heard(self.detector, samples)}"
        )
        if samples.true_onsets_s is None:
            return self.reporter.absent("the clips' true onsets are not known", definition)
        generated, references = samples.sounds.features(self.detector)
        known = [np.asarray(times, dtype=np.float64) for times in samples.true_onsets_s]
        known = [times[times < samples.sounds.duration_s(i)] for i, times in enumerate(known)]

        def scores(sounds: list[np.ndarray]) -> np.ndarray:
            return np.array([self._scores(ours, theirs) for ours, theirs in zip(sounds, known, strict=True)])

        precision, recall, f1 = scores(generated).T
        return self.reporter.mean(
            samples.ids,
            f1,
            definition,
            empty="no onset in the sound, none known",
            details=_details(
                {"precision": precision, "recall": recall, "F1 of real sound": scores(references)[:, 2]}
            ),
            pair=lambda i, j: self._scores(generated[i], known[j]).f1,
        )

    def _scores(self, estimated_s: np.ndarray, known_s: np.ndarray) -> alignment.OnsetScores:
        return alignment.onset_scores(estimated_s, known_s, tolerance_s=self.tolerance_s)


def _built(slot: str, usual: str, factory: Callable[[], Built] | None) -> Built:
    if factory is None:
        load()
        factory = get(slot, usual).factory
    return expect(slot, factory)()


def _sheet(name: str, label: str, matching: str, shuffles: int, resamples: int, seed: int) -> MetricReporter:
    released = matching == "released"
    return MetricReporter(
        name=f"{name}_released" if released else name,
        label=f"{label} (released)" if released else label,
        higher_is_better=True,
        resamples=resamples,
        shuffles=shuffles,
        seed=seed,
    )


def _count(matching: str) -> str:
    return "matched one to one" if matching == "one_to_one" else "matched as released"


def _heard(detector: FeatureExtractor, samples: EvaluationSet) -> str:
    return f"onsets by {describe(detector)} from {samples.sounds.definition}"


def _mean_size(rows: list[np.ndarray]) -> float:
    return float(np.mean([len(row) for row in rows]))


def _details(rows: dict[str, np.ndarray], figures: dict[str, float] | None = None) -> dict[str, float]:
    """Means of what is known of each row; a row of which nothing is known is left out."""
    means = {name: float(bootstrap.nan_mean(row)) for name, row in rows.items()}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)} | (figures or {})
