"""Intervals over seeds and clips. Arrays in, numbers out.

Each seed is scored on the same clips, so seeds and clips cross, like the rows and columns of a sheet. Both
are drawn with replacement, and independently (the pigeonhole bootstrap; Owen, 2007). Two rows compared meet
the same draws of both: what is hard about a clip, or lucky about a seed, falls out of their difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stav2a.metrics import bootstrap

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """One figure of a row, or of a difference: by seed, and by seed over many draws of the clips.

    Args:
        values: Seed -> its figure on the clips.
        draws: Seed -> its figure on each draw of the clips (B,), the same draws for all seeds and rows; None
            where they are not known.
    """

    values: Mapping[int, float]
    draws: Mapping[int, Array] | None

    def minus(self, other: "Figures") -> "Figures":
        """The difference, pair by pair: of the seeds that both sides have, draw by draw."""
        seeds = [seed for seed in self.values if seed in other.values]
        return Figures(
            values={seed: self.values[seed] - other.values[seed] for seed in seeds},
            draws={seed: self.draws[seed] - other.draws[seed] for seed in seeds}
            if self.draws is not None and other.draws is not None
            else None,
        )


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the ends of its 95 % interval over seeds and clips.

    Args:
        value: The mean.
        low: Lower end; None where the interval is not known.
        high: Upper end.
        by_seed: Seed -> its own figure.
    """

    value: float
    low: float | None
    high: float | None
    by_seed: Mapping[int, float]

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; an end of 0 is inside. False where there is no interval."""
        if self.low is None or self.high is None:
            return False
        return not self.low <= 0 <= self.high


def estimate(figures: Figures, seed: int = 0) -> Estimate:
    """Mean and interval of figures of one seed or more.

    Example:
        >>> same = np.array([0.5, 0.5])
        >>> estimate(Figures({0: 0.5, 1: 0.5}, {0: same, 1: same}))
        Estimate(value=0.5, low=0.5, high=0.5, by_seed={0: 0.5, 1: 0.5})
    """
    value = float(np.mean(list(figures.values.values())))
    if figures.draws is None:
        return Estimate(value, None, None, dict(figures.values))
    drawn = over_seeds(np.stack([figures.draws[each] for each in figures.values]), seed)
    low, high = bootstrap.ends(drawn)
    return Estimate(value, low, high, dict(figures.values))


def over_seeds(draws: Array, seed: int = 0) -> Array:
    """Means over seeds drawn with replacement, one for each draw of the clips.

    S seeds drawn from S have a spread that is too small by (S - 1) / S, a third for three seeds: the part
    that the seeds add is stretched by the root of S / (S - 1), so that its variance is unbiased. A single
    seed adds nothing, for nothing is known of the others.

    Few seeds stay few: simulated with three, 95 % intervals hold the truth in 96 % of cases where clips alone
    decide, in 91 % where seeds weigh as much, in 84 % where seeds alone do (75 % if they were not stretched).

    Args:
        draws: The figure of each seed on each draw of the clips.
        seed: Of the drawing of seeds.

    Shapes:
        (S, B) -> (B,)
    """
    seeds, count = draws.shape
    mean = draws.mean(axis=0)
    if seeds == 1:
        return mean
    # A stream of its own: draws of seeds must not follow the draws of clips.
    rng = np.random.default_rng((seed, seeds))
    shares = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=count).T / seeds  # (S, B)
    return mean + np.sqrt(seeds / (seeds - 1)) * ((shares * draws).sum(axis=0) - mean)
