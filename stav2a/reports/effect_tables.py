"""Tables and notes of factorial studies: main effects, interactions, and the seeds that differences need."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from stav2a.evaluation.comparison import DIRECTIONS, Comparison, Estimate
from stav2a.evaluation.factorial import EXACT, Effect, FactorialEffects, Pair
from stav2a.reports.comparison_tables import Note, grouped, number_formats, titled
from stav2a.reports.tables import MINUS, Cell, Table, csv_of

TIMES = "×"
MORE_CLIPS = "more clips"  # where no number of seeds is enough
MOST_SEEDS = 1000  # that a table shows
SEEDS = (2, 3, 5, 10, 20, 50)  # of the table of smallest differences


def effect_name(effect: Effect) -> str:
    """Name of an effect's difference.

    Example:
        >>> effect_name(Effect({"pooler": "mean"}, {"pooler": "none"}, None, None, None))
        'pooler: mean − none'
        >>> levels = {"pooler": "mean", "local head": "onset"}
        >>> effect_name(Effect(levels, {"pooler": "none", "local head": "linear"}, None, None, None))
        'pooler mean × local head onset'
    """
    if len(effect.levels) == 1:
        ((factor, level),) = effect.levels.items()
        return f"{factor}: {level} {MINUS} {effect.against[factor]}"
    return f" {TIMES} ".join(f"{factor} {level}" for factor, level in effect.levels.items())


def effect_tables(comparison: Comparison, effects: FactorialEffects) -> list[Table]:
    """Main effects, interactions, and where the spread of seeds is known the seeds that they need."""
    return [
        _differences(
            comparison,
            effects.mains,
            "Main effects",
            "Each level less the baseline's level of its factor, averaged over the other factors.",
        ),
        _differences(
            comparison,
            effects.interactions,
            "Interactions",
            "The difference of the first level to the baseline's together with the second level, less the "
            "same difference together with the baseline's.",
        ),
        _needed_seeds(comparison, effects),
        _smallest_differences(comparison, effects),
    ]


def _columns(
    comparison: Comparison, of_metric: Mapping[str, Sequence[Effect]]
) -> Iterator[tuple[str, str, list[Effect]]]:
    """Name, title and effects that are differences, of each metric."""
    for score in (metric.score for metric in comparison.metrics):
        yield score.name, titled(score), [each for each in of_metric[score.name] if not each.is_baseline]


def _differences(
    comparison: Comparison, of_metric: Mapping[str, Sequence[Effect]], title: str, caption: str
) -> Table:
    columns, rows = {}, []
    for name, label, effects in _columns(comparison, of_metric):
        ours, _ = number_formats(comparison, name)
        columns[name, label] = [ours.estimate(each.difference, signed=True) for each in effects]
        rows = [effect_name(each) for each in effects]
    return Table.of(title, f"{caption} Paired differences with 95 % intervals.", rows, columns)


def _needed_seeds(comparison: Comparison, effects: FactorialEffects) -> Table:
    """Seeds that each difference needs, and the interval that twice as many as now would give it."""
    columns, rows = {}, []
    both = {name: [*effects.mains[name], *effects.interactions[name]] for name in effects.mains}
    for name, label, differences in _columns(comparison, both):
        powers = [each.power for each in differences if each.power]
        if not powers:
            continue
        ours, _ = number_formats(comparison, name)
        twice = 2 * max(power.measured for power in powers)
        columns[name, f"{label}, seeds"] = [_seeds(each) for each in differences]
        columns[name, f"± with {twice}"] = [
            Cell(ours.figure(each.power.half_width(twice))) if each.power else Cell() for each in differences
        ]
        rows = [effect_name(each) for each in differences]
    caption = (
        "Seeds with which a true difference as large as the measured one would be found in four of five "
        "studies, in brackets as far as it is known; and half the width of the interval with twice the seeds."
    )
    return Table.of("Seeds that differences need", caption, rows, columns)


def _seeds(effect: Effect) -> Cell:
    if effect.power is None or effect.difference is None:
        return Cell()
    needed = effect.power.seeds_for(effect.difference.value)
    if needed is None:
        return Cell(MORE_CLIPS) if abs(effect.difference.value) >= EXACT else Cell()
    if needed > MOST_SEEDS:
        return Cell(f"> {MOST_SEEDS}")
    low, high = effect.power.range_for(effect.difference.value)
    return Cell(str(needed), f"[{low}, {high}]")


def _smallest_differences(comparison: Comparison, effects: FactorialEffects) -> Table:
    columns = {}
    for name, label, mains in _columns(comparison, effects.mains):
        powers = [each.power for each in mains if each.power]
        if powers:
            ours, _ = number_formats(comparison, name)
            columns[name, label] = [
                Cell(ours.figure(median(power.smallest(seeds) for power in powers))) for seeds in SEEDS
            ]
    caption = (
        "The least true main effect that is found in four of five studies, by the number of seeds; the "
        "median of the main effects above."
    )
    return Table.of("Smallest difference found", caption, [f"{seeds} seeds" for seeds in SEEDS], columns)


def effect_notes(
    comparison: Comparison, effects: FactorialEffects, refused: Mapping[str, str]
) -> Iterator[Note]:
    """Notes on how effects were estimated, and on combinations and levels that are missing."""
    labels = {metric.score.name: metric.score.label for metric in comparison.metrics}
    yield Note("effects")
    assumed: dict[str, tuple[Pair, ...]] = {}
    for each in (
        each for name in effects.mains for each in [*effects.mains[name], *effects.interactions[name]]
    ):
        if each.assumes and not each.is_baseline:
            assumed[effect_name(each)] = tuple(each.assumes)
    for pairs, names in grouped(assumed).items():
        yield Note("assumed", {"effects": names, "pairs": [f" {TIMES} ".join(pair) for pair in pairs]})
    if freedoms := {each.power.freedom for mains in effects.mains.values() for each in mains if each.power}:
        yield Note("needed_seeds", {"freedom": (min(freedoms), max(freedoms))})
    for reason, names in grouped(effects.spread).items():
        yield Note("no_spread", {"metrics": [labels[name] for name in names], "reason": reason})
    for (first, second), cells in effects.empty.items():
        met = [f"{a} with {b}" for a, b in cells]
        yield Note("empty", {"pair": f"{first} {TIMES} {second}", "cells": met})
    for factor, levels in effects.without.items():
        yield Note("no_level", {"factor": factor, "levels": levels})
    for reason, rows in grouped(refused).items():
        yield Note("refused", {"rows": rows, "reason": reason})


EFFECT_COLUMNS = (
    "metric", "direction", "factor", "level", "against", "other_factor", "other_level", "other_against",
    "mean", "mean_low", "mean_high", "effect", "effect_low", "effect_high",
    "difference", "difference_low", "difference_high", "seeds", "assumed_zero",
    "clip_variance", "seed_variance", "seed_freedom", "half_width", "half_width_twice_the_seeds",
    "seeds_needed", "seeds_needed_low", "seeds_needed_high",
)  # fmt: skip


def effects_csv(comparison: Comparison, effects: FactorialEffects) -> str:
    """One line for a metric and a level, or a pair of levels; unknown figures are empty.

    `mean` is the least-squares mean, `effect` the one of effect coding, which adds up to zero over the
    levels, `difference` that to the baseline's levels.
    """
    records = []
    for score in (metric.score for metric in comparison.metrics):
        for each in [*effects.mains[score.name], *effects.interactions[score.name]]:
            record: dict[str, object] = {
                "metric": score.name,
                "direction": DIRECTIONS[score.higher_is_better],
            }
            for prefix, (factor, level) in zip(("", "other_"), each.levels.items(), strict=False):
                record |= {f"{prefix}factor": factor, f"{prefix}level": level}
                record[f"{prefix}against"] = each.against[factor]
            record |= _named("mean", each.mean) | _named("effect", each.coded)
            record |= _named("difference", each.difference)
            if shown := each.difference or each.mean:
                record["seeds"] = " ".join(map(str, shown.by_seed))
            record["assumed_zero"] = "; ".join(f" {TIMES} ".join(pair) for pair in each.assumes)
            if (power := each.power) and each.difference:
                low, high = power.range_for(each.difference.value)
                record |= {
                    "clip_variance": power.clips,
                    "seed_variance": power.seeds,
                    "seed_freedom": power.freedom,
                    "half_width": power.half_width(power.measured),
                    "half_width_twice_the_seeds": power.half_width(2 * power.measured),
                    "seeds_needed": power.seeds_for(each.difference.value),
                    "seeds_needed_low": low,
                    "seeds_needed_high": high,
                }
            records.append(record)
    return csv_of(records, EFFECT_COLUMNS)


def _named(name: str, found: Estimate | None) -> dict[str, object]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high} if found else {}
