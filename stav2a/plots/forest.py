"""A forest plot: rows with their intervals, against a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stav2a.plots.drawing import BLUE, ORANGE, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#5c6066"
ROW_INCHES = 0.34


@dataclass(frozen=True)
class Mark:
    """One row of a forest plot.

    Args:
        value: The row's figure.
        low: Lower end of its interval, or None.
        high: Upper end.
        parts: What the figure is the mean of, drawn as small upright lines: one a seed.
        sure: Whether it is known to differ from the baseline: drawn as a full dot instead of a ring.
        beside: Words at the right.
    """

    value: float
    low: float | None = None
    high: float | None = None
    parts: Sequence[float] = ()
    sure: bool = False
    beside: str = ""


def forest_png(
    rows: Mapping[str, Mark | None], *, title: str = "", baseline: str | None = None, beside: str = ""
) -> bytes:
    """Rows from top to bottom, each with its interval; a line and a band through all for the baseline's.

    Args:
        rows: Name -> what to draw; None leaves its line empty.
        title: Printed above the picture.
        baseline: The row that the others are compared with, a diamond.
        beside: Heading of the words at the right.
    """
    margin = 0.25 + 0.085 * max(map(len, rows), default=0)  # for the names
    width, height = 4.6 + margin, 0.75 + ROW_INCHES * len(rows)
    figure = new_figure(width, height, dpi=150)
    axes = figure.subplots()
    for place, (name, mark) in enumerate(rows.items()):
        if mark is not None:
            _draw_row(axes, place, mark, is_baseline=name == baseline)
            _write(axes, place, mark.beside)
    if baseline is not None and (centre := rows.get(baseline)) is not None:
        _draw_baseline(axes, centre)
    _write(axes, -0.95, beside)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    for name, label in zip(rows, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if name == baseline else "normal")
    axes.set_ylim(len(rows) - 0.5, -0.6)  # the first row on top
    axes.set_title(title, loc="left", fontsize=10.5, pad=12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    figure.subplots_adjust(
        left=margin / width,
        right=1 - (1.0 if beside else 0.2) / width,
        top=1 - 0.42 / height,
        bottom=0.3 / height,
    )
    return png(figure)


def _draw_row(axes: "Axes", place: float, mark: Mark, *, is_baseline: bool) -> None:
    colour = ORANGE if is_baseline else BLUE
    if mark.low is not None and mark.high is not None:
        axes.hlines(place, mark.low, mark.high, color=colour, linewidth=2.2, zorder=3)
    axes.plot(
        mark.parts,
        [place + 0.27] * len(mark.parts),
        "|",
        color=GREY,
        markersize=5,
        markeredgewidth=1.1,
        zorder=3,
    )
    full = is_baseline or mark.sure
    axes.plot(
        [mark.value], [place], "D" if is_baseline else "o", color=colour, markersize=7, zorder=4,
        markerfacecolor=colour if full else "white", markeredgewidth=1.6,
    )  # fmt: skip


def _draw_baseline(axes: "Axes", mark: Mark) -> None:
    axes.axvline(mark.value, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if mark.low is not None and mark.high is not None:
        axes.axvspan(mark.low, mark.high, color=ORANGE, alpha=0.09, linewidth=0, zorder=0)


def _write(axes: "Axes", place: float, words: str) -> None:
    """At the right of the frame, at a row's height."""
    beside = axes.get_yaxis_transform()  # x as a part of the axes' width, y in rows
    axes.text(1.03, place, words, transform=beside, fontsize=8, color=GREY, va="center", clip_on=False)
