"""From folders of sounds to scores: every system, every crop, every metric, on the same clips."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.evaluation.folders.features import (
    SHORTEST,
    SILENCE,
    ArrayCache,
    Crop,
    FeatureCache,
    FileSounds,
    flow_in_words,
)
from stav2a.evaluation.folders.pairing import REFERENCE, PairedClip, SkippedClip
from stav2a.evaluation.scores import evaluate
from stav2a.metrics.score import EvaluationSet, Score
from stav2a.registry import available, did_you_mean, get
from stav2a.utils.errors import UsageError

REAL = "real sound"


@dataclass(frozen=True)
class FolderScores:
    """All figures of an evaluation.

    Args:
        scores: Crop -> system -> its scores; `real sound` is the row of the references themselves.
        ids: Crop -> the clips that its figures rest on, the same for all systems.
        left_out: What is in no figure, and why.
        noticed: What is in the figures, but should be known.
        common_s: How long the clips are, in the median; all systems and the real sound have as much.
    """

    scores: Mapping[Crop, Mapping[str, Sequence[Score]]]
    ids: Mapping[Crop, Sequence[str]]
    left_out: Sequence[SkippedClip]
    noticed: Sequence[SkippedClip]
    common_s: float


def score(
    clips: Sequence[PairedClip],
    metrics: Sequence[Any],
    *,
    crops: Sequence[Crop],
    cache: Path,
    unpaired: Sequence[SkippedClip] = (),
    workers: int | None = None,
) -> FolderScores:
    """Score every system on every crop.

    Args:
        clips: As `pair` gives them.
        metrics: Registered ones; their `extractors` say what has to be heard.
        crops: Seconds from the start; None is all that a clip's files have in common.
        cache: Folder of what was heard before.
        unpaired: What is left out already.
        workers: Processes; by default one a core.

    Raises:
        UsageError: Not one clip can be used.
    """
    flow = next((metric.flow for metric in metrics if hasattr(metric, "flow")), None)
    hearing = FeatureCache(clips, crops=crops, flow=flow, cache=ArrayCache(cache), workers=workers)
    hearing.need(extractor for metric in metrics for extractor in getattr(metric, "extractors", ()))
    ids = {crop: hearing.whole(crop) for crop in crops}
    left_out = [*unpaired, *_left_out(hearing)]
    usable = {crop: chosen for crop, chosen in ids.items() if chosen}
    if not usable:
        reasons = "; ".join(dict.fromkeys(each.reason for each in left_out))
        raise UsageError(f"no clip can be scored: {reasons}")
    return FolderScores(
        scores={crop: _scores(hearing, metrics, chosen, crop) for crop, chosen in usable.items()},
        ids=usable,
        left_out=left_out,
        noticed=_noticed(hearing),
        common_s=statistics.median(hearing.listened[clip].common_s for clip in hearing.whole(None)),
    )


def _scores(
    hearing: FeatureCache, metrics: Sequence[Any], ids: Sequence[str], crop: Crop
) -> dict[str, Sequence[Score]]:
    systems = [side for side in hearing.clips[0].files if side != REFERENCE]
    found = {system: evaluate(_set(hearing, ids, system, crop), metrics) for system in systems}
    alone = [metric for metric in metrics if not getattr(metric, "compares", False)]
    return {REAL: evaluate(_set(hearing, ids, REFERENCE, crop), alone), **found}


def _set(hearing: FeatureCache, ids: Sequence[str], side: str, crop: Crop) -> EvaluationSet:
    by_id = {clip.id: clip for clip in hearing.clips}
    listened = [hearing.listened[clip] for clip in ids]
    captions = [by_id[clip].caption for clip in ids]
    seen = any(each.flow is not None for each in listened)
    return EvaluationSet(
        ids=ids,
        sounds=FileSounds(hearing, ids, side, crop),
        flows=[_cropped(each.flow, each.frame_rate_hz, crop) for each in listened] if seen else None,
        frame_rate_hz=[each.frame_rate_hz for each in listened] if seen else None,
        flow_definition=flow_in_words(hearing.flow) if seen else "none",
        captions=[text or "" for text in captions] if any(captions) else None,
    )


def _cropped(flow: Any, rate_hz: float, crop: Crop) -> Any:
    return flow if flow is None or crop is None else flow[: round(crop * rate_hz)]


def _left_out(hearing: FeatureCache) -> list[SkippedClip]:
    """Clips that can't be used at all, then those that are too short for a crop, or can't be watched."""
    found = []
    for clip in hearing.clips:
        listened = hearing.listened[clip.id]
        faults = {side: reason for side, reason in listened.faults.items() if side != "video"}
        found += [SkippedClip(clip.id, side, reason) for side, reason in faults.items()]
        if faults:
            continue
        found += [
            SkippedClip(
                clip.id,
                f"first {crop:g} s",
                f"lasts {listened.common_s:.2f} s, less than {SHORTEST:.0%} of it",
            )
            for crop in hearing.crops
            if crop is not None and not listened.lasts(crop)
        ]
        if hearing.flow is not None and listened.flow is None:
            found.append(
                SkippedClip(clip.id, "AV-Align", listened.faults.get("video", "no video of this name"))
            )
    return found


def _noticed(hearing: FeatureCache) -> list[SkippedClip]:
    """Silence, and sounds that are cut because another of the clip is shorter."""
    found = []
    for clip in hearing.clips:
        listened = hearing.listened[clip.id]
        if set(listened.faults) - {"video"}:
            continue
        for side, facts in listened.facts.items():
            if facts.peak < SILENCE:
                found.append(SkippedClip(clip.id, side, "silent: no sample above -80 dB"))
            if None in hearing.crops and facts.duration_s > 1.02 * listened.common_s + 0.05:
                reason = f"lasts {facts.duration_s:.2f} s, another {listened.common_s:.2f} s: cut to that"
                found.append(SkippedClip(clip.id, side, reason))
    return found


RELEASED = "_released"
PAPERS = ("fd", "fad", "kl", "is", "pam", "clap", "av_align", "aa_align")  # Table I's columns


def build(names: Sequence[str], *, detector: str | None = None, flow: str | None = None) -> dict[str, Any]:
    """The metrics of these names, by them.

    Args:
        names: Of registered metrics; with `_released` at the end, in the form of the paper's authors.
        detector: The onset detector of those that have one; None is each metric's own.
        flow: The optical flow of those that have one; None is each metric's own.

    Raises:
        UsageError: No metric of that name, or it has no other form.
        RegistryError: No detector or flow of that name.
    """
    chosen = {"detector": ("onset_detector", detector), "flow": ("optical_flow", flow)}
    parts = {setting: get(slot, name).factory for setting, (slot, name) in chosen.items() if name}
    return {name: _build(name, parts) for name in names}


def released(names: Sequence[str]) -> list[str]:
    """The same names, those that have a form of the paper's in it."""
    return [f"{name}{RELEASED}" if _has_released(name) else name for name in names]


def _build(name: str, parts: Mapping[str, Callable[..., Any]]) -> Any:
    entries = {entry.name: entry for entry in available("metric")}
    plain = name if name in entries else name.removesuffix(RELEASED)
    if plain not in entries:
        raise UsageError(f"there is no metric {name!r}. {did_you_mean(name, entries)}")
    factory = entries[plain].factory
    if plain != name and not _has_released(plain):
        raise UsageError(f"{plain} has one form alone, the paper's too. Write {plain}.")
    make = factory if plain == name else factory.released  # type: ignore[attr-defined]
    return make(**{setting: part for setting, part in parts.items() if setting in entries[plain].parameters})


def _has_released(name: str) -> bool:
    return any(entry.name == name and hasattr(entry.factory, "released") for entry in available("metric"))
