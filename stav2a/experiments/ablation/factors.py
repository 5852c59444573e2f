"""Combinations of the levels of factors, and the designs that choose among them."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from stav2a.evaluation.factorial import EffectCoding, Factors, Levels

FULL, ONE_AT_A_TIME, FRACTIONAL = DESIGNS = ("full", "one_at_a_time", "fractional")
RIDGE = 1e-6  # of the information matrix, so that it has an inverse before it has full rank


def combined_name(levels: Levels) -> str:
    """Name of a combination: its levels in the factors' order.

    Example:
        >>> combined_name({"local head": "onset", "pooler": "attentive"})
        'onset + attentive'
    """
    return " + ".join(levels.values())


def combinations_of(factors: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """All combinations of one level of each factor; the last factor varies fastest.

    Example:
        >>> [combined_name(each) for each in combinations_of({"head": ["a", "b"], "pooler": ["x", "y"]})]
        ['a + x', 'a + y', 'b + x', 'b + y']
    """
    return [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]


def one_at_a_time(factors: Factors, baseline: Levels) -> list[dict[str, str]]:
    """The baseline, and every combination that differs from it in one level.

    Example:
        >>> factors = {"head": ["a", "b"], "pooler": ["x", "y", "z"]}
        >>> [combined_name(each) for each in one_at_a_time(factors, {"head": "a", "pooler": "x"})]
        ['a + x', 'a + y', 'a + z', 'b + x']
    """
    return [
        each
        for each in combinations_of(factors)
        if sum(each[factor] != level for factor, level in baseline.items()) <= 1
    ]


def smallest_fraction(factors: Factors) -> int:
    """Number of parameters of all main effects and pairwise interactions: the fewest combinations.

    Example:
        >>> smallest_fraction({"head": ["a", "b"], "pooler": ["x", "y", "z"], "fuser": ["s", "t"]})
        10
    """
    return EffectCoding(factors).size


def d_optimal(factors: Factors, baseline: Levels, count: int) -> list[dict[str, str]]:
    """A fraction of all combinations, from which main effects and pairwise interactions can be estimated.

    Starting from the baseline, the combination is added that increases the determinant of the information
    matrix of these effects most; of several the first. So the choice depends on the factors and the count
    alone.

    Args:
        factors: Factors with their levels.
        baseline: Combination that is always chosen.
        count: Number of combinations, from `smallest_fraction` to all.

    Example:
        >>> factors = {"head": ["a", "b"], "pooler": ["x", "y"], "fuser": ["s", "t"]}
        >>> baseline = {"head": "a", "pooler": "x", "fuser": "s"}
        >>> chosen = d_optimal(factors, baseline, 7)
        >>> [combined_name(each) for each in combinations_of(factors) if each not in chosen]
        ['b + y + t']
    """
    everything, coding = combinations_of(factors), EffectCoding(factors)
    rows = np.array([coding.mean(each) for each in everything])
    chosen = [everything.index(dict(baseline))]
    while len(chosen) < count:
        information = rows[chosen].T @ rows[chosen] + RIDGE * np.eye(coding.size)
        # The determinant grows by 1 + x' M^-1 x when the row x is added.
        gains = np.log1p(np.einsum("rp,pq,rq->r", rows, np.linalg.inv(information), rows)).round(6)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
    return [everything[place] for place in sorted(chosen)]
