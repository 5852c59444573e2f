"""Tables and notes of scores: of one run, and of rows compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple, TypeVar

from stav2a.evaluation.comparison import (
    DIRECTIONS,
    NO,
    NOISE,
    SMALL,
    SMALLEST_SHARE,
    YES,
    Comparison,
    Estimate,
    Key,
)
from stav2a.evaluation.hypotheses import LEVEL, TestedHypothesis
from stav2a.evaluation.variance import VarianceParts, parts_of_differences, parts_of_figures
from stav2a.metrics.score import Score
from stav2a.reports.tables import MINUS, NOTHING, PAPER, Cell, Document, NumberFormat, Table, csv_of

NAMED = 5  # clips named in a note; the scores have them all
FEW_SEEDS = 5
ENOUGH_CLIPS = {"fd": 2048, "fad": 100, "is": 500}  # with fewer a figure says little by itself
ENOUGH_FOR_OTHERS = 30
PAPER_SIGN = "paper, same sign?"
BEST = "Marked: the best of a column, where its paired difference to every other row excludes 0."

READING, MEASURED, FEW, SKIPPED, NOTICED, MISSING, REFUSED = HEADINGS = (
    "How to read them", "What was measured", "Too few clips", "Left out", "Noticed", "Missing", "Refused",
)  # fmt: skip
NOTES = {  # kind -> heading, text
    "nothing": (READING, "There is nothing to compare yet."),
    "clips": (READING, "In brackets: 95 % bootstrap intervals over clips. Draws: {draws}. Seed: {seed}."),
    "samplings": (READING, "A score is the mean over several sounds of each clip. Sounds: {samplings}."),
    "centred": (READING, "{metrics}: intervals are centred, and hold at this number of clips only."),
    "chance": (
        READING,
        "Chance: each sound with the references of other clips: {others}. Corrected: 0 is chance, 1 perfect.",
    ),
    "systems": (
        READING,
        "In brackets: 95 % bootstrap intervals over clips. They don't show how much other sounds of the same "
        "systems would differ.",
    ),
    "one_seed": (
        READING,
        "In brackets: 95 % bootstrap intervals, {draws} draws of clips. There is one seed, so that they "
        "don't show how much another training would differ.",
    ),
    "seeds": (
        READING,
        "In brackets: 95 % bootstrap intervals, {draws} draws of seeds and of clips ({seeds} seeds, all "
        "scored on the same clips).",
    ),
    "few_seeds": (
        READING,
        "Few seeds show only roughly how much trainings differ: in simulations with three, a 95 % interval "
        "misses the true value in 4 % of cases where only clips vary, and in up to 16 % where only seeds do.",
    ),
    "paired": (READING, "Differences are paired: the same {what} and the same draws of clips on both sides."),
    "sign": (
        READING,
        "Same sign as the paper's: yes or no where our interval excludes 0, else within noise. Each interval "
        "stands for itself: one in twenty excludes 0 where there is nothing but noise. Published differences "
        "of less than {share} % of the figure they are taken from are too small to have a sign: not counted.",
    ),
    "judges": (READING, "Judges disagree on the order of rows: {pairs}."),
    "published": (
        READING,
        "The paper's figures stand beside those of the same system, duration and form of a metric; its clips "
        "are others.",
    ),
    "effects": (
        READING,
        "Effects: least squares with effect coding of all main effects and pairwise interactions, for each "
        "seed and each draw of clips. Interactions of three factors and more are taken to be zero. All "
        "levels have equal weight, whether or not combinations are missing.",
    ),
    "assumed": (
        READING,
        "{effects}: the interactions of {pairs} are taken to be zero, because the rows can't tell them.",
    ),
    "needed_seeds": (
        READING,
        "Seeds that differences need: the variance of seeds is pooled over the rows, which are taken to vary "
        "alike ({freedom} degrees of freedom); that of clips is each difference's own. In brackets: the "
        "number at the ends of the 80 % interval of the variance of seeds. More clips: on these clips no "
        "number of seeds is enough.",
    ),
    "measured": (MEASURED, "{metric}: {definition}{beside}."),
    "judge": (MEASURED, "{metrics}: by {judge}."),
    "few_clips": (
        FEW,
        "{metrics}. With fewer clips a figure says little by itself: compare systems on the same clips "
        "alone, and look at the intervals.",
    ),
    "skipped": (SKIPPED, "{metric}: {count} of {total} clips, {reason}: {clips}."),
    "skipped_clip": (SKIPPED, "{clip}, {where}: {reason}."),
    "skipped_more": (SKIPPED, "and {count} more, see left_out.csv."),
    "noticed_clip": (NOTICED, "{clip}, {where}: {reason}."),
    "noticed_more": (NOTICED, "and {count} more, see left_out.csv."),
    "missing": (MISSING, "{row}, seed {seeds}: {reason}."),
    "no_scores": (MISSING, "{row}: no scores."),
    "absent": (MISSING, "{metric}: {reason}."),
    "unmeasured": (MISSING, "{metrics}: the paper gives figures, which were not measured here."),
    "lacking": (MISSING, "{row}, {metric}: {reason}."),
    "empty": (MISSING, "{pair}: no row with scores has {cells}."),
    "no_level": (MISSING, "{factor}: no row with scores has {levels}."),
    "no_spread": (
        MISSING,
        "{metrics}: the seeds that a difference needs can't be estimated, because {reason}. It takes two "
        "seeds to see how much trainings differ.",
    ),
    "refused": (REFUSED, "{rows}: {reason}."),
    "no_interval": (
        MISSING,
        "{metric}: no interval. There is one clip, or the scores were kept without their bootstrap "
        "replicates; evaluate again.",
    ),
}


class Note(NamedTuple):
    """A remark on a table, as data.

    Args:
        kind: Key of `NOTES`, which has its heading and its text.
        values: Values of the text's fields.
    """

    kind: str
    values: Mapping[str, Any] = {}


def listed(notes: Mapping[str, Sequence[Note]]) -> dict[str, list[str]]:
    """Heading -> sentences, of the notes on one table or on several.

    A note on all tables stands once; one on some of them begins with their names.

    Args:
        notes: Name of a table -> its notes.
    """
    found: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    known: list[Note] = []
    for note in (note for each in notes.values() for note in each):
        if note not in known:
            known.append(note)
            tables = [table for table, each in notes.items() if note in each]
            place = f"{', '.join(tables)}: " if len(tables) < len(notes) else ""
            heading, text = NOTES[note.kind]
            values = {name: _written(value) for name, value in note.values.items()}
            found[heading].append(place + text.format_map(values))
    return {heading: sentences for heading, sentences in found.items() if sentences}


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", MINUS)
    if isinstance(value, tuple):  # a range
        return " to ".join(dict.fromkeys(map(_written, value)))
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    return str(value).strip().rstrip(".")


def scores_document(scores: Sequence[Score]) -> Document:
    """One run's scores, with notes on what they are and what could not be measured."""
    measured = [score for score in scores if score.unavailable is None]
    columns = {
        ("value", "value"): [NumberFormat.of([s.value]).cell(s.value, s.low, s.high) for s in measured],
        ("chance", "chance"): [NumberFormat.of([s.value]).cell(s.chance) for s in measured],
        ("chance", "corrected"): [
            NumberFormat().cell(s.corrected, s.corrected_low, s.corrected_high) for s in measured
        ],
        ("n", "clips"): [Cell(str(s.n)) for s in measured],
    }
    rows = [titled(score) for score in measured]
    notes = [
        *_conditions(measured),
        *(_measured(score, score.beside) for score in measured),
        *_judges(measured),
        *_few_clips((score, score.n) for score in measured),
        *(note for score in measured for note in _skipped(score.label, score.n, score.skipped)),
        *_absent({score.label: score.unavailable for score in scores if score.unavailable}),
    ]
    return Document([Table.of("Metrics", "", rows, columns)] if rows else [], listed({"": notes}))


def _few_clips(measured: Iterable[tuple[Score, int]]) -> Iterator[Note]:
    """Note on the scores of too few clips, each given with its number of clips."""
    needed = {
        score.label: (clips, ENOUGH_CLIPS.get(score.name, ENOUGH_FOR_OTHERS)) for score, clips in measured
    }
    few = {label: f"{clips} of {enough}" for label, (clips, enough) in needed.items() if clips < enough}
    if few:
        groups = [f"{', '.join(labels)}: {share}" for share, labels in grouped(few).items()]
        yield Note("few_clips", {"metrics": "; ".join(groups)})


def _conditions(scores: Sequence[Score]) -> Iterator[Note]:
    """Conditions of intervals and chance levels, once for all scores."""
    drawn = [score for score in scores if score.low is not None and score.draws]
    if drawn:
        draws = _by_label({score.label: score.draws for score in drawn})
        yield Note("clips", {"draws": draws, "seed": _by_label({score.label: score.seed for score in drawn})})
    yield from _samplings({s.label: (s.samplings, s.samplings) for s in scores if s.unavailable is None})
    if centred := [score.label for score in drawn if score.centred]:
        yield Note("centred", {"metrics": centred})
    if others := {score.label: score.others for score in scores if score.others}:
        yield Note("chance", {"others": _by_label(others)})


def _samplings(numbers: Mapping[str, tuple[int, int]]) -> Iterator[Note]:
    """Note on the sounds of a clip, given the least and the greatest number of them by the score's label."""
    if any(most > 1 for _, most in numbers.values()):
        written = {
            label: f"{least}" if least == most else f"{least} to {most}, by row"
            for label, (least, most) in numbers.items()
        }
        yield Note("samplings", {"samplings": _by_label(written)})


def _by_label(numbers: Mapping[str, int | str]) -> str:
    """The most frequent number, then each other one with its labels."""
    (most, _), *others = sorted(grouped(numbers).items(), key=lambda group: -len(group[1]))
    return "; ".join([str(most), *(f"{number} for {', '.join(labels)}" for number, labels in others)])


def _measured(score: Score, beside: Mapping[str, Any]) -> Note:
    figures = "".join(f"; {name} {_written(value)}" for name, value in beside.items())
    return Note("measured", {"metric": score.label, "definition": score.definition, "beside": figures})


def _judges(scores: Sequence[Score]) -> Iterator[Note]:
    for judge, labels in grouped({score.label: score.judge for score in scores}).items():
        if judge:
            yield Note("judge", {"metrics": labels, "judge": judge})


def _skipped(label: str, kept: int, skipped: Mapping[str, str]) -> Iterator[Note]:
    for reason, clips in grouped(skipped).items():
        values = {"metric": label, "count": len(clips), "total": kept + len(skipped), "reason": reason}
        more = [f"and {len(clips) - NAMED} more"] if len(clips) > NAMED else []
        yield Note("skipped", {**values, "clips": [*clips[:NAMED], *more]})


def _absent(reasons: Mapping[str, str]) -> Iterator[Note]:
    for reason, metrics in grouped(reasons).items():
        yield Note("absent", {"metric": metrics, "reason": reason})


K = TypeVar("K")
V = TypeVar("V")


def grouped(mapping: Mapping[K, V]) -> dict[V, list[K]]:
    """Value -> the keys that have it."""
    found: dict[V, list[K]] = {}
    for key, value in mapping.items():
        found.setdefault(value, []).append(key)
    return found


def comparison_document(
    comparison: Comparison,
    tables_above: Sequence[Table] = (),
    effect_notes: Iterable[Note] = (),
    costs: Mapping[str, Mapping[str, float]] | None = None,
) -> Document:
    """Rows by metrics, their differences to the baseline and step by step, and parts of the variance; notes.

    Args:
        comparison: The rows compared.
        tables_above: Tables above these, of hypotheses or of the effects of factors.
        effect_notes: Notes on effects.
        costs: Row -> its costs, by the names of `COSTS`.
    """
    tables = [*tables_above, figures_table(comparison), *difference_tables(comparison)]
    tables += [variance_table(comparison), cost_table(comparison.rows, costs or {})]
    return Document(
        [table for table in tables if not table.cells.empty],
        listed({"": [*_reading(comparison), *effect_notes, *comparison_notes(comparison)]}),
        counted(comparison),
    )


def number_formats(comparison: Comparison, metric: str) -> tuple[NumberFormat, NumberFormat]:
    """Formats of our figures of a metric, and of the published ones."""
    theirs = [figures[metric] for figures in comparison.published.values() if metric in figures]
    return NumberFormat.of(comparison.values(metric).values()), NumberFormat.as_given(theirs)


def figures_table(comparison: Comparison) -> Table:
    """Rows by metrics; the published figures beside ours."""
    columns: dict[tuple[str, str], list[Cell]] = {}
    for score in (metric.score for metric in comparison.metrics):
        ours, theirs = number_formats(comparison, score.name)
        best = comparison.best.get(score.name)
        columns[score.name, titled(score)] = [
            ours.estimate(comparison.estimates.get((row, score.name)), best=row == best)
            for row in comparison.rows
        ]
        published = [comparison.published.get(row, {}).get(score.name) for row in comparison.rows]
        if any(value is not None for value in published):
            columns[score.name, PAPER] = [theirs.cell(value) for value in published]
    means = "Means over seeds, with" if comparison.several_seeds else "Figures with their"
    beside = " Beside them the paper's figures." if any(title == PAPER for _, title in columns) else ""
    caption = f"{means} 95 % intervals. {BEST}{beside}"
    return Table.of("Metrics", caption, comparison.rows, columns)


TRAINING = "seconds_of_training"
COSTS = {  # name -> title and divisor
    "parameters": ("parameters, M", 1e6),
    "parameters.trained": ("trained last, M", 1e6),
    TRAINING: ("training, s", 1.0),
    "flops_per_step": ("GFLOP a step", 1e9),
    "seconds_per_sound": ("s a sound", 1.0),
}


def cost_table(rows: Sequence[str], costs: Mapping[str, Mapping[str, float]]) -> Table:
    """Rows by their costs; empty where none is known."""
    columns = {}
    for name, (title, divisor) in COSTS.items():
        values = [costs[row][name] / divisor if name in costs.get(row, {}) else None for row in rows]
        if any(value is not None for value in values):
            columns[name, title] = [NumberFormat.of(values).cell(value) for value in values]
    caption = (
        "Parameters of all blocks, and those that the last stage trains; seconds of all stages, on the "
        "machine and beside the work of their time; operations of one denoising step of a clip with all "
        "branches of guidance; seconds of sampling, decoder and vocoder. Means over seeds."
    )
    return Table.of("Cost", caption, rows, columns)


SMALLEST_P = 0.001


def hypothesis_table(comparison: Comparison, tested: Sequence[TestedHypothesis]) -> Table:
    """Hypotheses by metric, difference, the published difference, corrected p-value and verdict."""
    labels = {each.score.name: titled(each.score) for each in comparison.metrics}
    columns: dict[tuple[str, str], list[Cell]] = {
        ("compared", "compared"): [
            Cell(f"{each.hypothesis.better} {MINUS} {each.hypothesis.other}") for each in tested
        ],
        ("metric", "metric"): [
            Cell(labels.get(each.hypothesis.metric, each.hypothesis.metric)) for each in tested
        ],
        ("difference", "difference"): [
            number_formats(comparison, each.hypothesis.metric)[0].estimate(each.difference, signed=True)
            for each in tested
        ],
        ("difference", PAPER): [_published(comparison, each) for each in tested],
        ("p", "p (Holm)"): [Cell(_p_value(each.adjusted)) for each in tested],
        ("verdict", "verdict"): [Cell(each.verdict) for each in tested],
    }
    if any(each.hypothesis.finished_runs for each in tested):
        columns["stated", "stated"] = [Cell(_stated(each.hypothesis.finished_runs)) for each in tested]
    several = sum(each.adjusted is not None for each in tested)
    corrected = f", corrected by Holm's method for the {several} that were tested," if several > 1 else ""
    caption = (
        "Each says that the first row is better than the second. Paired differences with 95 % intervals; "
        f"confirmed or contradicted where the p-value of a t test{corrected} is at most {LEVEL}, else "
        "undecided. One seed decides nothing."
    )
    return Table.of("Hypotheses", caption, [each.hypothesis.name for each in tested], columns)


def _published(comparison: Comparison, tested: TestedHypothesis) -> Cell:
    if tested.difference is None or tested.difference.published is None:
        return Cell()
    _, theirs = number_formats(comparison, tested.hypothesis.metric)
    return theirs.cell(tested.difference.published, signed=True)


def _stated(finished_runs: int) -> str:
    return f"after {finished_runs} runs" if finished_runs else "before the runs"


def _p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return f"< {SMALLEST_P}" if p < SMALLEST_P else NumberFormat().figure(p)


PARTS = ("trainings", "clips", "both")


def variance_table(comparison: Comparison) -> Table:
    """Metrics by the standard deviations of the parts; empty where no row has two seeds."""
    columns: dict[tuple[str, str], list[Cell]] = {}
    labels, found = [], []
    for score in (metric.score for metric in comparison.metrics):
        parts = parts_of_figures(comparison, score.name), parts_of_differences(comparison, score.name)
        if any(parts):
            labels.append(titled(score))
            found.append((number_formats(comparison, score.name)[0], parts))
    for place, of in enumerate(("figure", "difference")):
        if any(parts[place] for _, parts in found):
            for number, name in enumerate(PARTS):
                columns[f"{of} {name}", f"{of}: {name}"] = [
                    _cell(form, parts[place], number) for form, parts in found
                ]
    caption = (
        "Standard deviations of the figure of one training and of its difference to "
        f"{comparison.baseline}: the roots of variances averaged over rows, 0 where that average was "
        "estimated below 0. Trainings: what another seed changes on all clips alike. "
        "Clips: what other clips would change for all trainings alike. Both: how trainings differ from clip "
        "to clip, the noise of sampling included. More seeds lessen the first and the last, more clips the "
        "second and the last."
    )
    return Table.of("Parts of the variance", caption, labels, columns)


def _cell(form: NumberFormat, parts: VarianceParts | None, number: int) -> Cell:
    return form.cell(parts.deviations[number]) if parts else Cell()


def difference_tables(comparison: Comparison) -> list[Table]:
    """Differences to the baseline; step by step too, where rows build on others than the baseline."""
    others = {row: row for row in comparison.rows if row != comparison.baseline}
    tables = [
        _difference_table(
            comparison, f"Differences to {comparison.baseline}", "", others, comparison.to_baseline
        )
    ]
    if comparison.other_steps:
        steps = {
            row: f"{row} {MINUS} {comparison.builds_on[row]}"
            for row in comparison.rows
            if row in comparison.builds_on
        }
        caption = "Each row less the row it builds on. "
        tables.append(_difference_table(comparison, "Step by step", caption, steps, comparison.to_step))
    return tables


def _difference_table(
    comparison: Comparison,
    title: str,
    caption: str,
    rows: Mapping[str, str],
    differences: Mapping[Key, Estimate],
) -> Table:
    """Differences of rows, which stand under other names."""
    columns = {}
    for score in (metric.score for metric in comparison.metrics):
        ours, theirs = number_formats(comparison, score.name)
        found = [differences.get((row, score.name)) for row in rows]
        if any(found):
            columns[score.name, titled(score)] = [ours.estimate(each, signed=True) for each in found]
        if any(each and each.published is not None for each in found):
            columns[score.name, PAPER_SIGN] = [
                Cell(theirs.figure(each.published, signed=True), verdict=each.verdict) if each else Cell()
                for each in found
            ]
    caption += "Paired differences with 95 % intervals."
    if any(title == PAPER_SIGN for _, title in columns):
        caption += " Beside them the paper's, and whether ours has the same sign."
    return Table.of(title, caption, list(rows.values()), columns)


def titled(score: Score) -> str:
    """The label with its arrow."""
    return f"{score.label} {score.arrow}"


def counted(comparison: Comparison) -> list[str]:
    """Counts of signs that agree with the paper's: a sentence on the baseline, and one on the steps."""
    kinds = {f"differences to {comparison.baseline}": comparison.to_baseline}
    if comparison.other_steps:
        kinds["steps"] = comparison.to_step
    sentences = []
    for what, differences in kinds.items():
        verdicts = [difference.verdict for difference in differences.values()]
        yes, no, noise, small = (verdicts.count(each) for each in (YES, NO, NOISE, SMALL))
        if yes + no + noise + small:
            more = f"; {small} more are too small in the paper to have one" if small else ""
            sentences.append(
                f"Of {yes + no + noise} {what}: {yes} with the paper's sign, {no} with the other one, "
                f"{noise} within noise{more}."
            )
    return sentences


def _reading(comparison: Comparison) -> Iterator[Note]:
    if not comparison.metrics:
        yield Note("nothing")
        return
    counts = sorted({len(seeds) for seeds in comparison.seeds.values() if seeds})
    if counts == [1]:
        yield Note("one_seed", {"draws": comparison.resamples})
    else:
        yield Note("seeds", {"draws": comparison.resamples, "seeds": (counts[0], counts[-1])})
        if counts[-1] < FEW_SEEDS:
            yield Note("few_seeds")
    yield from _samplings({metric.score.label: metric.samplings for metric in comparison.metrics})
    if comparison.to_baseline:
        yield Note("paired", {"what": "seeds"})
    if counted(comparison):
        yield Note("sign", {"share": 100 * SMALLEST_SHARE})


def _disagreements(comparison: Comparison) -> Iterator[Note]:
    """Pairs of rows that two judges put in another order, of all metrics that two judges measure."""
    scores = {metric.score.name: metric.score for metric in comparison.metrics}
    found = []
    for score in scores.values():
        if score.counterpart not in scores:
            continue
        first, second = (comparison.values(name) for name in (score.counterpart, score.name))
        pairs = list(combinations((row for row in first if row in second), 2))
        apart = [(a, b) for a, b in pairs if (first[a] - first[b]) * (second[a] - second[b]) < 0]
        if apart:
            named = [f"{a} and {b}" for a, b in apart[:NAMED]] + ["…"] * (len(apart) > NAMED)
            labels = f"{scores[score.counterpart].label} and {score.label}"
            found.append(f"{labels} on {len(apart)} of {len(pairs)} pairs ({'; '.join(named)})")
    if found:
        yield Note("judges", {"pairs": found})


def comparison_notes(comparison: Comparison) -> Iterator[Note]:
    """Notes on what was measured, left out and missing."""
    yield from _disagreements(comparison)
    for metric in comparison.metrics:
        beside: dict[str, Any] = {"n =": metric.clips}
        if metric.chance:
            beside["by chance"] = metric.chance
        yield _measured(metric.score, {**beside, **metric.beside})
        yield from _skipped(metric.score.label, metric.clips, metric.skipped)
        if not metric.drawn:
            yield Note("no_interval", {"metric": metric.score.label})
    yield from _judges([metric.score for metric in comparison.metrics])
    yield from _few_clips((metric.score, metric.clips) for metric in comparison.metrics)
    for row in comparison.rows:
        for reason, seeds in grouped(dict(sorted(comparison.missing.get(row, {}).items()))).items():
            yield Note("missing", {"row": row, "seeds": seeds, "reason": reason})
        if not comparison.seeds[row] and row not in comparison.missing:
            yield Note("no_scores", {"row": row})
    if comparison.unmeasured:
        yield Note("unmeasured", {"metrics": [name.upper() for name in comparison.unmeasured]})
    yield from _absent(comparison.absent)
    for (row, name), reason in comparison.lacking.items():
        yield Note("lacking", {"row": row, "metric": name, "reason": reason})


COLUMNS = (
    "row", "metric", "direction", "value", "low", "high", "seeds", "clips",
    "baseline", "difference", "difference_low", "difference_high",
    "builds_on", "step", "step_low", "step_high",
    "published", "published_difference", "sign_as_published", "published_step", "step_sign_as_published",
)  # fmt: skip


def comparison_csv(comparison: Comparison) -> str:
    """One line for a row and a metric; missing figures are empty. Seeds are separated by spaces."""
    records = []
    for row, metric in product(comparison.rows, comparison.metrics):
        name = metric.score.name
        record: dict[str, object] = {
            "row": row,
            "metric": name,
            "direction": DIRECTIONS[metric.score.higher_is_better],
            "baseline": comparison.baseline,
            "builds_on": comparison.builds_on.get(row),
            "published": comparison.published.get(row, {}).get(name),
        }
        if own := comparison.estimates.get((row, name)):
            seeds = " ".join(map(str, own.by_seed))
            record |= {"value": own.value, "low": own.low, "high": own.high}
            record |= {"seeds": seeds, "clips": metric.clips}
        for kind, sign, differences in (
            ("difference", "sign_as_published", comparison.to_baseline),
            ("step", "step_sign_as_published", comparison.to_step),
        ):
            if own := differences.get((row, name)):
                record |= {kind: own.value, f"{kind}_low": own.low, f"{kind}_high": own.high}
                record |= {f"published_{kind}": own.published, sign: own.verdict}
        records.append(record)
    return csv_of(records, COLUMNS)
