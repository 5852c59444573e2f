"""Figures of a paper, read from a CSV: a column `row`, and one column a metric."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from stav2a.recipe import shown
from stav2a.registry import did_you_mean
from stav2a.utils.errors import USAGE, StaV2AError

NOT_GIVEN = ("", "-", "–")


class PublishedError(StaV2AError):
    """A CSV that is no table of published figures."""

    exit_code = USAGE


def read_published(path: Path, *, rows: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of a CSV, by row and metric; more than the study asks for may stand there.

    Args:
        path: The file. An empty cell or a dash is no figure.
        rows: The study's rows, of which at least one must be there.
        metrics: The study's metrics, likewise.

    Raises:
        PublishedError: It lacks a column, holds a word where a figure is expected, or none of the rows or
            metrics.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns, lines = list(reader.fieldnames or ()), list(reader)
    name = shown(path)
    if "row" not in columns:
        raise PublishedError(f'"{name}" has no column row. Its first line is: {",".join(columns)}')
    if not set(metrics) & set(columns):
        told = did_you_mean(metrics[0], [column for column in columns if column != "row"])
        raise PublishedError(
            f'"{name}" has no column of any metric of the study, such as {metrics[0]}. {told}'
        )
    figures: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines, start=2):
        if line["row"] in figures:
            raise PublishedError(f'"{name}", line {number}: the row {line["row"]!r} is there already.')
        figures[line["row"]] = _figures(line, f'"{name}", line {number}')
    if not set(rows) & set(figures):
        told = did_you_mean(rows[0], figures)
        raise PublishedError(f'"{name}" has no row of the study, such as {rows[0]!r}. {told}')
    return figures


def plain(name: str) -> str:
    """A row's name without capitals and strokes, so that a user's spelling of a system finds it.

    Example:
        >>> plain("STA-V2A") == plain("sta_v2a")
        True
    """
    return "".join(filter(str.isalnum, name)).casefold()


def _figures(line: Mapping[str | None, str | None], where: str) -> dict[str, float]:
    if None in line or None in line.values():
        raise PublishedError(f"{where}: it has not as many cells as the first line.")
    found = {}
    for column, text in line.items():
        if column is None or text is None or column == "row" or text.strip() in NOT_GIVEN:
            continue
        try:
            found[column] = float(text)
        except ValueError:
            raise PublishedError(f"{where}: {column} is {text!r}. Expected a figure, or nothing.") from None
    return found
