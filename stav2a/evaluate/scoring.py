"""From folders of sounds to scores: every system, every crop, every metric, on the same clips."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.errors import UsageError
from stav2a.evaluate.cache import Cache
from stav2a.evaluate.folders import REFERENCE, LeftOut, Paired
from stav2a.evaluate.hearing import FileSounds, Hearing
from stav2a.evaluate.listening import SHORTEST, SILENCE, Crop, flow_in_words
from stav2a.evaluation import evaluate
from stav2a.metrics.sets import EvaluationSet, Score

REAL = "real sound"


@dataclass(frozen=True)
class Evaluated:
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
    left_out: Sequence[LeftOut]
    noticed: Sequence[LeftOut]
    common_s: float


def score(
    clips: Sequence[Paired],
    metrics: Sequence[Any],
    *,
    crops: Sequence[Crop],
    cache: Path,
    unpaired: Sequence[LeftOut] = (),
    workers: int | None = None,
) -> Evaluated:
    """Score every system on every crop.

    Args:
        clips: As `pair` gives them.
        metrics: Registered ones; their `ears` say what has to be heard.
        crops: Seconds from the start; None is all that a clip's files have in common.
        cache: Folder of what was heard before.
        unpaired: What is left out already.
        workers: Processes; by default one a core.

    Raises:
        UsageError: Not one clip can be used.
    """
    flow = next((metric.flow for metric in metrics if hasattr(metric, "flow")), None)
    hearing = Hearing(clips, crops=crops, flow=flow, cache=Cache(cache), workers=workers)
    hearing.need(ear for metric in metrics for ear in getattr(metric, "ears", ()))
    ids = {crop: hearing.whole(crop) for crop in crops}
    left_out = [*unpaired, *_left_out(hearing)]
    usable = {crop: chosen for crop, chosen in ids.items() if chosen}
    if not usable:
        reasons = "; ".join(dict.fromkeys(each.reason for each in left_out))
        raise UsageError(f"no clip can be scored: {reasons}")
    return Evaluated(
        scores={crop: _scores(hearing, metrics, chosen, crop) for crop, chosen in usable.items()},
        ids=usable,
        left_out=left_out,
        noticed=_noticed(hearing),
        common_s=statistics.median(hearing.listened[clip].common_s for clip in hearing.whole(None)),
    )


def _scores(
    hearing: Hearing, metrics: Sequence[Any], ids: Sequence[str], crop: Crop
) -> dict[str, Sequence[Score]]:
    systems = [side for side in hearing.clips[0].files if side != REFERENCE]
    found = {system: evaluate(_set(hearing, ids, system, crop), metrics) for system in systems}
    alone = [metric for metric in metrics if not getattr(metric, "compares", False)]
    return {REAL: evaluate(_set(hearing, ids, REFERENCE, crop), alone), **found}


def _set(hearing: Hearing, ids: Sequence[str], side: str, crop: Crop) -> EvaluationSet:
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


def _left_out(hearing: Hearing) -> list[LeftOut]:
    """Clips that can't be used at all, then those that are too short for a crop, or can't be watched."""
    found = []
    for clip in hearing.clips:
        listened = hearing.listened[clip.id]
        faults = {side: reason for side, reason in listened.faults.items() if side != "video"}
        found += [LeftOut(clip.id, side, reason) for side, reason in faults.items()]
        if faults:
            continue
        found += [
            LeftOut(
                clip.id,
                f"first {crop:g} s",
                f"lasts {listened.common_s:.2f} s, less than {SHORTEST:.0%} of it",
            )
            for crop in hearing.crops
            if crop is not None and not listened.lasts(crop)
        ]
        if hearing.flow is not None and listened.flow is None:
            found.append(LeftOut(clip.id, "AV-Align", listened.faults.get("video", "no video of this name")))
    return found


def _noticed(hearing: Hearing) -> list[LeftOut]:
    """Silence, and sounds that are cut because another of the clip is shorter."""
    found = []
    for clip in hearing.clips:
        listened = hearing.listened[clip.id]
        if set(listened.faults) - {"video"}:
            continue
        for side, facts in listened.facts.items():
            if facts.peak < SILENCE:
                found.append(LeftOut(clip.id, side, "silent: no sample above -80 dB"))
            if None in hearing.crops and facts.duration_s > 1.02 * listened.common_s + 0.05:
                reason = f"lasts {facts.duration_s:.2f} s, another {listened.common_s:.2f} s: cut to that"
                found.append(LeftOut(clip.id, side, reason))
    return found
