"""Figures of a paper, read from a CSV: a column `row`, and one column a metric."""

import csv
from collections.abc import Sequence
from pathlib import Path

from stav2a.recipe import shown
from stav2a.registry import did_you_mean
from stav2a.utils.errors import USAGE, StaV2AError

NOT_GIVEN = ("", "-", "–")


class PublishedError(StaV2AError):
    """A CSV that is no table of published figures."""

    exit_code = USAGE


def read_published(path: Path, *, rows: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of a CSV, by row and metric; it may have more rows and metrics than the study.

    Args:
        path: The file. An empty cell or a dash is no figure.
        rows: Rows of the study, of which at least one must be there.
        metrics: Metrics of the study, likewise.

    Raises:
        PublishedError: It lacks a column, holds a word where a figure is expected, has a row twice, or none
            of the rows or metrics.
    """
    figures: dict[str, dict[str, float]] = {}
    for number, (row, given) in enumerate(read_rows(path, metrics), start=2):
        if row in figures:
            raise PublishedError(f'"{shown(path)}", line {number}: the row {row!r} is there already.')
        figures[row] = given
    if not set(rows) & set(figures):
        raise PublishedError(
            f'"{shown(path)}" has no row of the study, such as {rows[0]!r}.',
            advice=did_you_mean(rows[0], figures),
        )
    return figures


def read_rows(path: Path, metrics: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
    """The lines of a CSV: each row's name, and its figures by column. A name may occur more than once."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns, lines = list(reader.fieldnames or ()), list(reader)
    name = shown(path)
    if "row" not in columns:
        raise PublishedError(f'"{name}" has no column row. Its first line is: {",".join(columns)}')
    columns.remove("row")
    if not set(metrics) & set(columns):
        raise PublishedError(
            f'"{name}" has no column of any metric of the study, such as {metrics[0]}.',
            advice=did_you_mean(metrics[0], columns),
        )
    found = []
    for number, line in enumerate(lines, start=2):
        where = f'"{name}", line {number}'
        if None in line or None in line.values():
            raise PublishedError(f"{where}: it has not as many cells as the first line.")
        figures = {}
        for column in columns:
            if line[column].strip() not in NOT_GIVEN:
                try:
                    figures[column] = float(line[column])
                except ValueError:
                    raise PublishedError(
                        f"{where}: {column} is {line[column]!r}. Expected a figure, or nothing."
                    ) from None
        found.append((line["row"], figures))
    return found


def plain(name: str) -> str:
    """A row's name without capitals and strokes, so that a user's spelling of a system finds it.

    Example:
        >>> plain("STA-V2A") == plain("sta_v2a")
        True
    """
    return "".join(filter(str.isalnum, name)).casefold()
