"""Main effects and pairwise interactions of factors, by least squares with effect coding.

A row of a factorial study is a combination of levels, one of each factor. The model of a metric is

    y = mean + sum over factors (main effect of the level) + sum over pairs (interaction of the two levels)

where the effects of a factor add up to zero over its levels, and interactions over the levels of either
factor. Interactions of three factors and more are taken to be zero. Every seed is fitted by itself, on the
rows that it has, and every draw of the clips likewise; so effects have the paired intervals of `comparison`.
In a full design without gaps the estimates are the plain differences of means.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stav2a.evaluation.comparison import Comparison, Estimate, estimate

Array = NDArray[np.float64]
Levels = Mapping[str, str]  # factor -> level
Factors = Mapping[str, Sequence[str]]  # factor -> its levels, the baseline's first
Pair = tuple[str, str]  # two factors

CONFIDENCE_Z = 1.959964  # 97.5 % of a normal distribution lie below
POWER_Z = 0.841621  # 80 %: the power of which seeds are counted
RANGE = (0.9, 0.1)  # of the variance's distribution, in which an estimate of it is given
EXACT = 1e-9


class EffectCoding:
    """Columns of the model: the mean, the main effects, and the interactions of some pairs.

    Args:
        factors: Factors with their levels.
        pairs: Pairs of factors whose interaction is in the model; all by default.

    Example:
        >>> coding = EffectCoding({"head": ["linear", "onset"], "fuser": ["concat", "sum"]})
        >>> coding.mean({"head": "onset", "fuser": "concat"}).tolist()
        [1.0, -1.0, 1.0, -1.0]
        >>> coding.mean({"head": "onset"}).tolist()
        [1.0, -1.0, 0.0, 0.0]
    """

    def __init__(self, factors: Factors, pairs: Sequence[Pair] | None = None) -> None:
        self.factors = factors
        self.pairs = list(combinations(factors, 2)) if pairs is None else list(pairs)
        mains: list[tuple[str, ...]] = [(factor,) for factor in factors]
        self.terms = [(), *mains, *self.pairs]

    @property
    def size(self) -> int:
        """Number of columns, which is that of the parameters."""
        return sum(self._width(term) for term in self.terms)

    def mean(self, levels: Levels) -> Array:
        """The mean of all combinations with these levels, as a sum of the parameters; of a row all are given.

        Shapes:
            -> (P,)
        """
        return np.concatenate([self._columns(term, levels) for term in self.terms])

    def _width(self, term: tuple[str, ...]) -> int:
        return math.prod(len(self.factors[factor]) - 1 for factor in term)

    def _columns(self, term: tuple[str, ...], levels: Levels) -> Array:
        if any(factor not in levels for factor in term):
            return np.zeros(self._width(term))  # effects add up to zero over the levels that are not given
        columns = np.ones(1)
        for factor in term:
            known = list(self.factors[factor])
            place = known.index(levels[factor])
            code = np.eye(len(known) - 1)[place] if place < len(known) - 1 else -np.ones(len(known) - 1)
            columns = np.kron(columns, code)
        return columns


@dataclass(frozen=True)
class Power:
    """Variance of an estimate by its number of seeds: `clips + seeds / S`.

    Args:
        measured: Number of seeds that it was estimated from.
        clips: Part of the clips, which are the same for all seeds.
        seeds: Part of one seed: how trainings differ, pooled over all rows, and how clips differ by seed.
        freedom: Degrees of freedom of the former.

    Example:
        >>> power = Power(measured=2, clips=0.0, seeds=0.02, freedom=3)
        >>> round(power.half_width(2), 3), round(power.half_width(8), 3), power.seeds_for(0.2)
        (0.196, 0.098, 4)
    """

    measured: int
    clips: float
    seeds: float
    freedom: int

    def half_width(self, seeds: int) -> float:
        """Half the width of the 95 % interval that is expected with so many seeds."""
        return CONFIDENCE_Z * math.sqrt(self.clips + self.seeds / seeds)

    def smallest(self, seeds: int) -> float:
        """The least true difference whose interval excludes 0 in four of five studies with so many seeds."""
        return self.half_width(seeds) * (CONFIDENCE_Z + POWER_Z) / CONFIDENCE_Z

    def seeds_for(self, difference: float, share: float = 1.0) -> int | None:
        """The fewest seeds with which a true difference is found in four of five studies.

        Args:
            difference: The difference.
            share: True variance of seeds as a share of the estimated one.

        Returns:
            2 or more; None where no number does: there is no difference, or the clips are too few for it.
        """
        room = (difference / (CONFIDENCE_Z + POWER_Z)) ** 2 - self.clips
        if room <= 0 or abs(difference) < EXACT:
            return None
        return max(2, math.ceil(share * self.seeds / room - EXACT))

    def range_for(self, difference: float) -> tuple[int | None, int | None]:
        """`seeds_for` at the ends of the 80 % interval of the variance of seeds."""
        from scipy.stats import chi2

        low, high = (float(self.freedom / chi2.ppf(end, self.freedom)) for end in RANGE)
        return self.seeds_for(difference, low), self.seeds_for(difference, high)


@dataclass(frozen=True)
class Effect:
    """A level of one factor, or two levels of two, and how they change a metric.

    Args:
        levels: Factor -> level.
        against: The baseline's levels of the same factors.
        mean: Mean of all combinations with these levels, as the model has it.
        coded: For one factor, the mean's difference to the mean of all levels; for two, what their mean has
            beside the main effects.
        difference: For one factor, the difference to the baseline's level, averaged over the other factors;
            for two, how much greater the one factor's difference is at this level of the other than at the
            baseline's. None for the baseline's own levels. Each is None where the rows do not determine it.
        assumes: Pairs whose interactions were taken to be zero for it.
        power: How the difference's interval depends on the number of seeds.
    """

    levels: Levels
    against: Levels
    mean: Estimate | None
    coded: Estimate | None
    difference: Estimate | None
    assumes: Sequence[Pair] = ()
    power: Power | None = None

    @property
    def is_baseline(self) -> bool:
        """True where one of its levels is the baseline's: there is no difference then."""
        return any(self.against[factor] == level for factor, level in self.levels.items())


@dataclass(frozen=True)
class FactorialEffects:
    """Effects of all factors on all metrics.

    Args:
        factors: Factors with the levels that have scores, the baseline's first.
        rows: Row -> its levels, of the rows that have scores.
        mains: Metric -> main effects, factor by factor.
        interactions: Metric -> interactions, pair by pair.
        empty: Pair of factors -> pairs of levels that no row with scores has.
        without: Factor -> levels that no row with scores has.
        spread: Metric -> reason why it is not known how much trainings differ.
    """

    factors: Factors
    rows: Mapping[str, Levels]
    mains: dict[str, list[Effect]] = field(default_factory=dict)
    interactions: dict[str, list[Effect]] = field(default_factory=dict)
    empty: Mapping[Pair, Sequence[tuple[str, str]]] = field(default_factory=dict)
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spread: dict[str, str] = field(default_factory=dict)


def factorial_effects(
    comparison: Comparison, levels: Mapping[str, Levels], factors: Factors
) -> FactorialEffects:
    """Main effects and pairwise interactions of compared rows.

    Args:
        comparison: The rows compared, with the draws of their clips.
        levels: Row -> its levels; also of rows without scores.
        factors: Factor -> its levels.

    Shapes:
        of each metric R rows by S seeds by B draws -> estimates
    """
    scored = {row: levels[row] for row in comparison.rows if comparison.seeds[row]}
    base = levels[comparison.baseline]
    seen = {factor: {each[factor] for each in scored.values()} for factor in factors}
    known = {
        factor: [base[factor], *(level for level in given if level in seen[factor] and level != base[factor])]
        for factor, given in factors.items()
    }
    without = {
        factor: [level for level in given if level not in known[factor]] for factor, given in factors.items()
    }
    varied = {factor: given for factor, given in known.items() if len(given) > 1}
    pairs = list(combinations(varied, 2))
    there = {pair: {(each[pair[0]], each[pair[1]]) for each in scored.values()} for pair in pairs}
    empty = {
        (a, b): [cell for cell in product(varied[a], varied[b]) if cell not in there[a, b]] for a, b in pairs
    }
    empty = {pair: cells for pair, cells in empty.items() if cells}
    found = FactorialEffects(
        known, scored, empty=empty, without={factor: each for factor, each in without.items() if each}
    )
    for metric in (each.score.name for each in comparison.metrics):
        fits = {
            seed: _Fit(rows, figures, draws, EffectCoding(varied), empty)
            for seed, (rows, figures, draws) in _by_seed(comparison, metric, scored).items()
        }
        spread = _seed_variance(comparison, metric)
        if isinstance(spread, str):
            found.spread[metric] = spread
        found.mains[metric] = [
            _effect(fits, {factor: level}, base, spread) for factor in varied for level in varied[factor]
        ]
        found.interactions[metric] = [
            _effect(fits, {a: first, b: second}, base, spread)
            for a, b in pairs
            for first, second in product(varied[a], varied[b])
        ]
    return found


Terms = Sequence[tuple[float, Levels]]  # a sum of means of levels, each with its sign


def _contrast(levels: Levels, against: Levels) -> Terms:
    """Difference of levels to others; of two factors, the difference of the differences.

    A factor without another level is averaged over.
    """
    terms: list[tuple[float, Levels]] = [(1.0, {})]
    for factor, level in levels.items():
        other = {factor: against[factor]} if factor in against else {}
        terms = [
            term
            for sign, chosen in terms
            for term in ((sign, {**chosen, factor: level}), (-sign, {**chosen, **other}))
        ]
    return terms


class _Fit:
    """The figures of one seed, and the weights of its rows in any effect.

    Effects come from the model with all interactions if the rows determine them there. If not, they come
    from the model without the interactions that the rows lack, which are then taken to be zero.

    Args:
        rows: Levels of each row.
        figures: Figure of each row (R,).
        draws: Figure of each row on each draw of the clips (R, B); None where they are not known.
        coding: The model with all interactions.
        empty: Pairs of which levels do not meet in any row.
    """

    def __init__(
        self,
        rows: Sequence[Levels],
        figures: Array,
        draws: Array | None,
        coding: EffectCoding,
        empty: Collection[Pair],
    ) -> None:
        self.figures, self.draws = figures, draws
        fewer = [pair for pair in coding.pairs if pair not in empty]
        while fewer and not _has_full_rank(EffectCoding(coding.factors, fewer), rows):
            fewer.pop()
        self.models = [(each, _matrix(each, rows)) for each in (coding, EffectCoding(coding.factors, fewer))]
        self.inverses = [np.linalg.pinv(matrix) for _, matrix in self.models]

    def weights(self, terms: Terms) -> tuple[Array, tuple[Pair, ...]] | None:
        """Weight of each row (R,), and the interactions taken to be zero; None where it is undetermined."""
        asked = {pair for _, levels in terms for pair in combinations(levels, 2)}
        for (coding, matrix), inverse in zip(self.models, self.inverses, strict=True):
            wanted = sum(sign * coding.mean(levels) for sign, levels in terms)
            found = wanted @ inverse
            if asked <= set(coding.pairs) and np.allclose(found @ matrix, wanted, atol=EXACT):
                return found, tuple(pair for pair in self.models[0][0].pairs if pair not in coding.pairs)
        return None


def _matrix(coding: EffectCoding, rows: Sequence[Levels]) -> Array:
    return np.array([coding.mean(levels) for levels in rows])


def _has_full_rank(coding: EffectCoding, rows: Sequence[Levels]) -> bool:
    return bool(np.linalg.matrix_rank(_matrix(coding, rows)) == coding.size)


def _by_seed(
    comparison: Comparison, metric: str, levels: Mapping[str, Levels]
) -> dict[int, tuple[list[Levels], Array, Array | None]]:
    """Seed -> levels, figures (R,) and draws (R, B) of the rows that have it."""
    own = {row: comparison.estimates[row, metric] for row in levels if (row, metric) in comparison.estimates}
    found = {}
    for seed in sorted({seed for each in own.values() for seed in each.by_seed}):
        rows = [row for row, each in own.items() if seed in each.by_seed]
        drawn = [comparison.draws[row, metric][seed] for row in rows if (row, metric) in comparison.draws]
        figures = np.array([own[row].by_seed[seed] for row in rows])
        found[seed] = [levels[row] for row in rows], figures, np.stack(drawn) if drawn else None
    return found


def _effect(fits: Mapping[int, _Fit], levels: Levels, base: Levels, spread: "SeedVariance | str") -> Effect:
    against = {factor: base[factor] for factor in levels}
    mean = _estimate(fits, [(1.0, levels)])
    coded = _estimate(fits, _contrast(levels, {}))
    difference = None
    if all(against[factor] != level for factor, level in levels.items()):
        difference = _estimate(fits, _contrast(levels, against))
    shown = difference or mean
    return Effect(
        levels,
        against,
        mean and mean.estimate,
        coded and coded.estimate,
        difference and difference.estimate,
        shown.assumes if shown else (),
        _power(difference, spread) if difference and not isinstance(spread, str) else None,
    )


class _Fitted(NamedTuple):
    estimate: Estimate
    assumes: tuple[Pair, ...]
    draws: Array | None  # (S, B)
    squares: float  # sum of the squared weights, of all seeds on average


def _estimate(fits: Mapping[int, _Fit], terms: Terms) -> _Fitted | None:
    """An effect over the seeds that determine it; None where none does."""
    values, draws, squares = {}, {}, []
    assumes: dict[Pair, None] = {}
    for seed, fit in fits.items():
        if weighted := fit.weights(terms):
            weights, assumed = weighted
            values[seed] = float(_without_rounding(weights @ fit.figures, fit.figures))
            if fit.draws is not None:
                draws[seed] = _without_rounding(weights @ fit.draws, fit.draws)
            squares.append(float(weights @ weights))
            assumes |= dict.fromkeys(assumed)
    if not values:
        return None
    drawn = np.stack(list(draws.values())) if len(draws) == len(values) else None
    return _Fitted(
        estimate(values, None if drawn is None else draws), tuple(assumes), drawn, float(np.mean(squares))
    )


def _without_rounding(sums: Array, summed: Array) -> Array:
    """Sums with 0 in the place of what rounding leaves of figures that cancel."""
    return np.where(np.abs(sums) < EXACT * np.abs(summed).max(), 0.0, sums)


class SeedVariance(NamedTuple):
    """Variance of a row's figure by seed, beside what all rows share; and its degrees of freedom."""

    variance: float
    freedom: int


def _seed_variance(comparison: Comparison, metric: str) -> SeedVariance | str:
    """Residual variance of rows by seeds, a mean over the draws of the clips; or why it is not known.

    Trainings of all rows are taken to vary alike: two seeds of one difference are too few for a variance.
    """
    drawn = {
        row: comparison.draws[row, metric] for row in comparison.rows if (row, metric) in comparison.draws
    }
    seeds = {seed for each in drawn.values() for seed in each}
    complete = [each for each in drawn.values() if seeds == set(each)]
    if not drawn:
        return "the draws of its clips are not known"
    if len(seeds) < 2:
        return "there is one seed"
    if len(complete) < 2:
        return "fewer than two rows have all seeds"
    table = np.stack([np.stack([each[seed] for seed in sorted(seeds)]) for each in complete])  # (R, S, B)
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean((0, 1))
    freedom = (len(complete) - 1) * (len(seeds) - 1)
    return SeedVariance(float(np.square(rest).sum((0, 1)).mean() / freedom), freedom)


def _power(fitted: _Fitted, spread: SeedVariance) -> Power | None:
    """Parts of the variance that the bootstrap of seeds and clips has (`comparison.over_seeds`)."""
    if fitted.draws is None or len(fitted.draws) < 2:
        return None
    seeds = len(fitted.draws)
    covariance = np.cov(fitted.draws)  # over the draws of the clips, between seeds
    each = float(np.trace(covariance)) / seeds
    shared = max(0.0, (float(covariance.sum()) - seeds * each) / (seeds * (seeds - 1)))
    return Power(seeds, shared, max(0.0, each - shared) + spread.variance * fitted.squares, spread.freedom)
