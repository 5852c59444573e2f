"""Scores from values per clip, or from a statistic of the whole set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stav2a.metrics import bootstrap
from stav2a.metrics.score import Score


@dataclass(frozen=True, kw_only=True)
class MetricReporter:
    """Maker of one metric's scores, with their intervals and chance levels.

    Args:
        name: Name of the score.
        label: Label of the score.
        higher_is_better: Direction of the metric.
        resamples: Number of bootstrap draws.
        shuffles: Number of shuffles for the chance level.
        seed: Seed of draws and shuffles.
    """

    name: str
    label: str
    higher_is_better: bool
    resamples: int
    shuffles: int = 0
    seed: int = 0

    def absent(self, reason: str, definition: str) -> Score:
        """Score without a figure, and the reason."""
        return self._score(definition, unavailable=reason)

    def mean(
        self,
        ids: Sequence[str],
        values: NDArray[np.float64],
        definition: str,
        *,
        judge: str = "",
        empty: str = "no value",
        skipped: Mapping[str, str] | None = None,
        extras: Mapping[str, float] | None = None,
        pair: Callable[[int, int], float] | None = None,
    ) -> Score:
        """Mean over clips, with its interval; with `pair`, its chance level and corrected value too.

        Args:
            ids: Names of the clips that were measured.
            values: One value a clip; NaN is left out, for the reason `empty`.
            definition: Definition of the value.
            judge: Description of the judge.
            empty: Meaning of NaN.
            skipped: Clips that were not measured, with their reasons.
            extras: Further figures.
            pair: Score of the generated clip i with the reference of clip j.
        """
        known = np.isfinite(values)
        reasons = dict(skipped or {}) | {clip: empty for clip, k in zip(ids, known, strict=True) if not k}
        if not known.any():
            reason = "; ".join(sorted(set(reasons.values())))
            return self.absent(f"no clip has a value ({reason})", definition)
        low, high = bootstrap.mean_interval(values, resamples=self.resamples, seed=self.seed)
        return self._score(
            definition,
            judge=judge,
            value=float(values[known].mean()),
            n=int(known.sum()),
            low=_or_none(low),
            high=_or_none(high),
            draws=self.resamples,
            seed=self.seed,
            extras=dict(extras or {}),
            per_clip={clip: float(v) for clip, v, k in zip(ids, values, known, strict=True) if k},
            skipped=reasons,
            **(self._against_chance(values, pair) if pair else {}),
        )

    def statistic(
        self,
        statistic: Callable[[NDArray[np.int64]], float],
        n: int,
        definition: str,
        *,
        judge: str,
        floor: float | None = None,
        extras: Mapping[str, float] | None = None,
    ) -> Score:
        """Statistic of the whole set, with its interval.

        Args:
            statistic: Figure of the clips at the given indices.
            n: Number of clips.
            definition: Definition of the figure.
            judge: Description of the judge.
            floor: Bias floor of a distance.
            extras: Further figures.
        """
        value = statistic(np.arange(n))
        drawn = bootstrap.replicates(statistic, n, resamples=self.resamples, seed=self.seed)
        low, high = bootstrap.ends(bootstrap.centred(drawn, value))
        return self._score(
            definition,
            judge=judge,
            value=value,
            n=n,
            low=_or_none(low),
            high=_or_none(high),
            draws=self.resamples,
            seed=self.seed,
            centred=True,
            floor=floor,
            extras=dict(extras or {}),
            replicates=drawn.tolist() if drawn.size and np.isfinite(drawn).all() else None,
        )

    def _against_chance(
        self, values: NDArray[np.float64], pair: Callable[[int, int], float]
    ) -> dict[str, Any]:
        levels = bootstrap.chance_levels(pair, len(values), shuffles=self.shuffles, seed=self.seed)
        corrected = bootstrap.corrected_for_chance(values, levels, resamples=self.resamples, seed=self.seed)
        return {
            "chance": _or_none(float(bootstrap.nan_mean(levels))),
            "others": min(self.shuffles, len(values) - 1),
            "corrected": _or_none(corrected.value),
            "corrected_low": _or_none(corrected.low),
            "corrected_high": _or_none(corrected.high),
        }

    def _score(self, definition: str, **facts: Any) -> Score:
        return Score(
            name=self.name,
            label=self.label,
            definition=definition,
            higher_is_better=self.higher_is_better,
            **facts,
        )


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
