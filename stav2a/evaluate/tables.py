"""The figures of an evaluation, written down in four forms."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stav2a.comparison import Row, compare
from stav2a.comparison.results import Comparison
from stav2a.comparison.tables import latex_tables, markdown_tables, text_tables
from stav2a.comparison.tables.grids import Grid
from stav2a.evaluate import paper
from stav2a.evaluate.grids import chance, compared, crop_in_figures, table_one
from stav2a.evaluate.listening import Crop
from stav2a.evaluate.scoring import Evaluated
from stav2a.evaluate.words import crop_in_words, words
from stav2a.metrics.sets import Score

COLUMNS = (
    "crop_s", "row", "metric", "value", "low", "high", "n", "chance", "corrected", "corrected_low",
    "corrected_high", "baseline", "difference", "difference_low", "difference_high", "paper", "definition",
)  # fmt: skip
FIGURES = ("low", "high", "chance", "corrected", "corrected_low", "corrected_high")


@dataclass(frozen=True)
class Tables:
    """An evaluation, ready to be written down.

    Args:
        evaluated: The figures.
        comparisons: Crop -> its systems compared.
    """

    evaluated: Evaluated
    comparisons: Mapping[Crop, Comparison]

    def grids(self) -> list[Grid]:
        """Table I's layout if there are several crops, each crop's own tables, and the paper's figures."""
        if len(self.comparisons) == 1:
            ((crop, comparison),) = self.comparisons.items()
            figures, *differences = compared(comparison)
            return [figures, *chance(self.evaluated.scores[crop]), *differences, paper.table_one()]
        found = [table_one(self.comparisons)]
        for crop, comparison in self.comparisons.items():
            own = [*chance(self.evaluated.scores[crop]), *compared(comparison)[1:]]
            found += [replace(grid, title=f"{grid.title}, {crop_in_words(crop)}") for grid in own]
        return [*found, paper.table_one()]

    def words(self) -> dict[str, list[str]]:
        """What has to be said below them."""
        return words(self.evaluated, self.comparisons)

    def text(self, width: int = 110) -> str:
        """For a terminal."""
        return text_tables.document(self.grids(), [], self.words(), width)

    def markdown(self) -> str:
        """For GitHub."""
        return markdown_tables.document(self.grids(), [], self.words())

    def latex(self) -> str:
        """For a paper."""
        return latex_tables.document(self.grids())

    def csv(self) -> str:
        """One line for a crop, a row and a metric; what there is not is empty."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._lines())
        return text.getvalue()

    def _lines(self) -> Iterator[dict[str, Any]]:
        for crop, comparison in self.comparisons.items():
            for row, scores in self.evaluated.scores[crop].items():
                for score in scores:
                    place = {"crop_s": crop_in_figures(crop), "row": row, "metric": score.name}
                    yield place | _figures(score) | _compared(row, score.name, comparison)


def tabulate(evaluated: Evaluated, named: Mapping[str, str], *, baseline: str) -> Tables:
    """Compare the systems of each crop, on the same clips and the same draws of them.

    Args:
        evaluated: The figures.
        named: The name a metric was chosen by -> the name of its score.
        baseline: The system that others are compared with.
    """
    return Tables(
        evaluated,
        {
            crop: compare(
                [Row(name, {0: scores}) for name, scores in rows.items()],
                metrics=_directions(rows),
                baseline=baseline,
                published=paper.published(list(rows), named, crop or evaluated.common_s),
            )
            for crop, rows in evaluated.scores.items()
        },
    )


def _directions(rows: Mapping[str, Sequence[Score]]) -> dict[str, str]:
    return {
        score.name: "higher" if score.higher_is_better else "lower"
        for scores in rows.values()
        for score in scores
    }


def _figures(score: Score) -> dict[str, Any]:
    if score.unavailable is not None:
        return {"definition": f"not measured: {score.unavailable}"}
    own = {name: getattr(score, name) for name in FIGURES}
    return {"value": score.value, "n": score.n, "definition": score.definition, **own}


def _compared(row: str, name: str, comparison: Comparison) -> dict[str, Any]:
    metric = next((metric for metric in comparison.metrics if metric.name == name), None)
    found = comparison.difference(row, metric, "to_baseline") if metric else None
    beside = {"paper": comparison.published.get(row, {}).get(name), "baseline": comparison.baseline}
    if found is None:
        return beside
    own = found.estimate
    return {"difference": own.value, "difference_low": own.low, "difference_high": own.high, **beside}
