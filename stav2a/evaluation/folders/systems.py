"""Scores of folders of sounds: every system, every crop, every metric, on the same clips."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.evaluation.folders.features import (
    SHORTEST,
    SILENCE,
    ArrayCache,
    ClipFeatures,
    Crop,
    FeatureCache,
    FileSounds,
    FileVideos,
    define_flow,
)
from stav2a.evaluation.folders.pairing import REFERENCE, PairedClip, SkippedClip
from stav2a.evaluation.scores import evaluate
from stav2a.metrics.score import RELEASED, EvaluationSet, MetricError, Score
from stav2a.recipe import Recipe
from stav2a.registry import available, did_you_mean, get
from stav2a.utils.errors import UsageError

REAL = "real sound"
PAPERS = {  # Table I's columns and their headings
    "fd": "FD ↓", "fad": "FAD ↓", "kl": "KL ↓", "is": "IS ↑", "pam": "PAM ↑", "clap": "CLAP ↑",
    "av_align": "AV-Align ↑", "aa_align": "AA-Align ↑",
}  # fmt: skip

DRAWS = ("resamples", "shuffles", "draws", "seed")  # parameters that leave a figure's definition as it is


@dataclass(frozen=True)
class ChosenMetric:
    """A metric that was chosen by name.

    Args:
        name: Registered name of its first form.
        metric: The metric itself.
        as_published: True if it is in the form of the paper's tables.
    """

    name: str
    metric: Any
    as_published: bool


def choose(
    names: Sequence[str],
    *,
    released: bool = False,
    detector: str | None = None,
    flow: str | None = None,
    loaded: Recipe[Any] | None = None,
) -> list[ChosenMetric]:
    """The metrics of these names, with the parameters that a recipe binds.

    Args:
        names: Names of registered metrics; with `_released` at the end, in the form of the paper's authors.
        released: Take every metric in that form, if it has one of its own.
        detector: Onset detector of those that have one; None is each metric's own.
        flow: Optical flow of those that have one; None is each metric's own.
        loaded: Recipe that binds parameters of metrics and judges.

    Raises:
        UsageError: No metric of that name, or it has no other form.
        RegistryError: No detector or flow of that name.
    """
    slots = {"detector": ("onset_detector", detector), "flow": ("optical_flow", flow)}
    parts = {setting: get(slot, name).factory for setting, (slot, name) in slots.items() if name}
    bound = loaded.bindings if loaded else {}
    entries = {entry.name: entry for entry in available("metric")}
    chosen = {}
    for name in names:
        plain = shorter if (shorter := name.removesuffix(RELEASED)) in entries else name
        if plain not in entries:
            raise UsageError(f"there is no metric {name!r}.", advice=did_you_mean(name, entries))
        papers = f"{plain}{RELEASED}"  # where there are two forms
        if name == papers and papers not in entries:
            raise UsageError(f"{plain} has one form alone, the paper's too.", advice=f"Write {plain}.")
        entry = entries[papers if released and papers in entries else name]
        factory: Any = loaded.component(entry) if loaded else entry.factory
        metric = factory(**{each: part for each, part in parts.items() if each in entry.parameters})
        changed = any(f"{entry.selector}.{each}" in bound for each in entry.settable if each not in DRAWS)
        as_published = (entry.name == papers or papers not in entries) and not changed
        chosen[entry.name] = ChosenMetric(plain, metric, as_published)
    return list(chosen.values())


@dataclass(frozen=True)
class FolderScores:
    """All figures of an evaluation.

    Args:
        scores: Crop -> system -> its scores; `real sound` is the row of the references themselves.
        ids: Crop -> the clips that its figures rest on, the same for all systems.
        skipped: Clips that are in no figure, or not in some, with their reasons.
        warnings: Clips that are in the figures, with a remark.
        common_s: Median of the clips' durations; all systems and the real sound have as much.
    """

    scores: Mapping[Crop, Mapping[str, Sequence[Score]]]
    ids: Mapping[Crop, Sequence[str]]
    skipped: Sequence[SkippedClip]
    warnings: Sequence[SkippedClip]
    common_s: float

    def check_measured(self) -> None:
        """Refuse scores among which no system has a figure of any metric.

        Raises:
            MetricError: With the metrics; the report has the reasons.
        """
        scores = [
            score
            for rows in self.scores.values()
            for row, found in rows.items()
            if row != REAL
            for score in found
        ]
        if all(score.unavailable for score in scores):
            names = ", ".join(dict.fromkeys(score.label for score in scores))
            raise MetricError(
                f"nothing was measured: no system has a figure of {names}.",
                advice="The reasons are above, under Missing. Mend one, or give other --metrics.",
            )


def score(
    clips: Sequence[PairedClip],
    metrics: Sequence[Any],
    *,
    crops: Sequence[Crop],
    cache: Path,
    unpaired: Sequence[SkippedClip] = (),
    workers: int | None = None,
    jobs: int = 1,
) -> FolderScores:
    """Score every system on every crop.

    Args:
        clips: Clips as `pair` returns them.
        metrics: Registered metrics; their `extractors` name the features that are needed.
        crops: Seconds from the start; None is all that a clip's files have in common.
        cache: Folder of the features of earlier evaluations.
        unpaired: Clips that are left out already.
        workers: Processes; by default one a core.
        jobs: Processes that share the judges' work as well, if more than 1.

    Raises:
        UsageError: Not one clip can be used.
    """
    features = extract_features(clips, metrics, crops=crops, cache=cache, workers=workers, jobs=jobs)
    skipped, warnings = _remarks(features)
    skipped = [*unpaired, *skipped]
    ids = {crop: chosen for crop in crops if (chosen := features.usable(crop))}
    if not ids:
        reasons = "; ".join(dict.fromkeys(each.reason for each in skipped))
        raise UsageError(f"no clip can be scored: {reasons}")
    alone = [metric for metric in metrics if not getattr(metric, "compares", False)]
    systems = [side for side in clips[0].files if side != REFERENCE]
    return FolderScores(
        scores={
            crop: {
                REAL: evaluate(_set(features, chosen, REFERENCE, crop), alone),
                **{each: evaluate(_set(features, chosen, each, crop), metrics) for each in systems},
            }
            for crop, chosen in ids.items()
        },
        ids=ids,
        skipped=skipped,
        warnings=warnings,
        common_s=statistics.median(features.by_clip[clip].common_s for clip in features.usable(None)),
    )


def extract_features(
    clips: Sequence[PairedClip],
    metrics: Sequence[Any],
    *,
    crops: Sequence[Crop],
    cache: Path,
    workers: int | None = None,
    jobs: int = 1,
) -> FeatureCache:
    """Features of the clips that the metrics need, in memory and in the cache. Arguments are `score`'s."""
    flow = next((metric.flow for metric in metrics if hasattr(metric, "flow")), None)
    array_cache = ArrayCache(cache)
    features = FeatureCache(clips, crops=crops, flow=flow, cache=array_cache, workers=workers, jobs=jobs)
    features.need(extractor for metric in metrics for extractor in getattr(metric, "extractors", ()))
    features.watch(watcher for metric in metrics for watcher in getattr(metric, "watchers", ()))
    return features


def _set(features: FeatureCache, ids: Sequence[str], side: str, crop: Crop) -> EvaluationSet:
    texts = {clip.id: clip.caption or "" for clip in features.clips}
    captions = [texts[clip] for clip in ids]
    known = [features.by_clip[clip] for clip in ids]
    seen = any(each.flow is not None for each in known)
    return EvaluationSet(
        ids=ids,
        sounds=FileSounds(features, ids, side, crop),
        flows=[_cropped(each, crop) for each in known] if seen else None,
        frame_rate_hz=[each.frame_rate_hz for each in known] if seen else None,
        frame_times_s=[each.frame_times_s for each in known] if seen else None,
        flow_definition=define_flow(features.flow) if seen else "none",
        captions=captions if any(captions) else None,
        videos=FileVideos(features, ids, crop),
    )


def _cropped(clip: ClipFeatures, crop: Crop) -> np.ndarray | None:
    """Flow of the frames that a crop keeps, by their times."""
    if clip.flow is None or clip.frame_times_s is None or crop is None:
        return clip.flow
    return clip.flow[clip.frame_times_s < crop - 0.5 / clip.frame_rate_hz]


def _remarks(features: FeatureCache) -> tuple[list[SkippedClip], list[SkippedClip]]:
    """Clips that are left out of all figures or of some, and silent or shortened sounds, which are not."""
    skipped, warnings = [], []
    for clip in features.clips:
        known = features.by_clip[clip.id]
        skipped += [SkippedClip(clip.id, side, reason) for side, reason in known.faults.items()]
        if known.faults:
            continue
        for crop in features.crops:
            if crop is not None and not known.lasts(crop):
                reason = f"lasts {known.common_s:.2f} s, less than {SHORTEST:.0%} of it"
                skipped.append(SkippedClip(clip.id, f"first {crop:g} s", reason))
        if features.flow is not None and known.flow is None:
            skipped.append(SkippedClip(clip.id, "AV-Align", known.video_fault))
        for side, duration_s in known.durations_s.items():
            if known.peaks[side] < SILENCE:
                warnings.append(SkippedClip(clip.id, side, "silent: no sample above -80 dB"))
            if None in features.crops and duration_s > 1.02 * known.common_s + 0.05:
                reason = f"lasts {duration_s:.2f} s, another {known.common_s:.2f} s: cut to that"
                warnings.append(SkippedClip(clip.id, side, reason))
    return skipped, warnings
