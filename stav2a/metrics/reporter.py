"""From values per clip to a score: interval, chance level, what was left out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stav2a.metrics import bootstrap
from stav2a.metrics.score import COUNTED, Score

Pair = Callable[[int, int], float]


@dataclass(frozen=True, kw_only=True)
class MetricReporter:
    """What stays the same from metric to metric: a figure's names, and how its interval is drawn.

    Args:
        name: Of the score.
        label: Of the score.
        higher_is_better: Its direction.
        resamples: Bootstrap draws.
        shuffles: Shuffles for the chance level.
        seed: Of draws and shuffles.
    """

    name: str
    label: str
    higher_is_better: bool
    resamples: int
    shuffles: int = 0
    seed: int = 0

    def absent(self, reason: str, definition: str) -> Score:
        """No figure, and why."""
        return Score(
            name=self.name,
            label=self.label,
            definition=definition,
            higher_is_better=self.higher_is_better,
            unavailable=reason,
        )

    def mean(
        self,
        ids: Sequence[str],
        values: NDArray[np.float64],
        definition: str,
        *,
        empty: str = "no value",
        left_out: Mapping[str, str] | None = None,
        details: Mapping[str, float] | None = None,
        pair: Pair | None = None,
    ) -> Score:
        """The mean over clips, with its interval; with `pair`, its chance level and corrected value too.

        Args:
            ids: Of the clips that were measured.
            values: Theirs; NaN is left out, for the reason `empty`.
            definition: Of the value; n, interval and chance are added.
            empty: What NaN means.
            left_out: Clips that were not measured, and why.
            details: Further figures.
            pair: The score of the generated clip i with the reference of clip j.
        """
        known = np.isfinite(values)
        reasons = dict(left_out or {}) | {clip: empty for clip, k in zip(ids, known, strict=True) if not k}
        if not known.any():
            return self.absent(
                f"no clip has a value ({'; '.join(sorted(set(reasons.values())))})", definition
            )
        interval = bootstrap.mean_interval(values, resamples=self.resamples, seed=self.seed)
        others = min(self.shuffles, len(ids) - 1)
        chance_in_words = f"; chance: each clip with the references of {others} others" if pair else ""
        chance = self._against_chance(values, pair) if pair else _NO_CHANCE
        return Score(
            name=self.name,
            label=self.label,
            definition=f"{definition}{COUNTED}{known.sum()}; {self._interval_in_words()}{chance_in_words}",
            higher_is_better=self.higher_is_better,
            value=float(values[known].mean()),
            n=int(known.sum()),
            low=_or_none(interval.low),
            high=_or_none(interval.high),
            per_clip={clip: float(v) for clip, v, k in zip(ids, values, known, strict=True) if k},
            left_out=reasons,
            details=dict(details or {}),
            chance=chance.level,
            corrected=chance.corrected,
            corrected_low=chance.low,
            corrected_high=chance.high,
        )

    def statistic(
        self,
        statistic: Callable[[NDArray[np.int64]], float],
        n: int,
        definition: str,
        *,
        details: Mapping[str, float] | None = None,
    ) -> Score:
        """A figure of the whole set, with its interval. `statistic` takes the places of the clips to use."""
        value = statistic(np.arange(n))
        drawn = bootstrap.replicates(statistic, n, resamples=self.resamples, seed=self.seed)
        interval = bootstrap.ends(bootstrap.centred(drawn, value))
        conditions = f"{n}; {self._interval_in_words()}, centred; holds at this n only"
        return Score(
            name=self.name,
            label=self.label,
            definition=f"{definition}{COUNTED}{conditions}",
            higher_is_better=self.higher_is_better,
            value=value,
            n=n,
            low=_or_none(interval.low),
            high=_or_none(interval.high),
            details=dict(details or {}),
            replicates=drawn.tolist() if drawn.size and np.isfinite(drawn).all() else None,
        )

    def relabelled(self, label: str) -> "MetricReporter":
        """The same under another label."""
        return replace(self, label=label)

    def _interval_in_words(self) -> str:
        confidence = f"{100 * bootstrap.CONFIDENCE:g} % bootstrap interval over clips"
        return f"{confidence} ({self.resamples} draws, seed {self.seed})"

    def _against_chance(self, values: NDArray[np.float64], pair: Pair) -> "_Chance":
        levels = bootstrap.chance_levels(pair, len(values), shuffles=self.shuffles, seed=self.seed)
        corrected = bootstrap.corrected_for_chance(values, levels, resamples=self.resamples, seed=self.seed)
        level = float(bootstrap.nan_mean(levels))
        return _Chance(*(_or_none(figure) for figure in (level, *corrected)))


class _Chance(NamedTuple):
    level: float | None
    corrected: float | None
    low: float | None
    high: float | None


_NO_CHANCE = _Chance(None, None, None, None)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
