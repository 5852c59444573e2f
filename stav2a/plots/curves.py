"""Training curves, in panels."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stav2a.plots.drawing import COLOURS, STYLES, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]  # (step, value)
Panels = Mapping[str, Mapping[str, Curve]]

SMOOTH_FROM = 40  # points; shorter curves are drawn as they are
PANELS_IN_A_ROW = 3


def curves_png(losses: Mapping[str, Curve], title: str = "") -> bytes:
    """Training curves, one panel for all names that agree up to their last "/".

    Long curves are drawn thin, with a moving average over them. A panel whose values span more than a factor
    of 20 has a logarithmic axis.

    Args:
        losses: Name, such as "joint/train", -> (step, value) pairs. Values that are not finite are left out.
        title: Printed above the panels.
    """
    names = dict.fromkeys(name.rpartition("/")[0] for name in losses)  # in the order given
    panels = {
        panel: {name.rpartition("/")[2]: losses[name] for name in losses if name.rpartition("/")[0] == panel}
        for panel in names
    }
    figure, all_axes = _draw(panels or {"": {}}, title, margin=0.0)
    for axes, curves in zip(all_axes, panels.values(), strict=False):
        if any(map(len, curves.values())):
            axes.legend(fontsize=8, frameon=False)
    return png(figure)


def panels_png(panels: Panels, title: str = "") -> bytes:
    """Training curves of several runs, a panel for each loss, under them one legend for all.

    A run has the same colour in every panel, whichever runs the panel has.

    Args:
        panels: Loss -> run -> (step, value) pairs. Values that are not finite are left out.
        title: Printed above the panels.
    """
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    columns = max(1, int(_width(panels) / (0.6 + 0.08 * max(map(len, names), default=0))))
    figure, all_axes = _draw(panels or {"": {}}, title, margin=0.1 + 0.2 * -(-len(names) // columns))
    lines = {line.get_label(): line for axes in all_axes for line in axes.lines}
    shown = [name for name in names if name in lines]
    if shown:
        handles = [lines[name] for name in shown]
        figure.legend(handles, shown, loc="lower center", ncols=columns, fontsize=8, frameon=False)
    return png(figure)


def _draw(panels: Panels, title: str, margin: float) -> tuple["Figure", list["Axes"]]:
    """The panels on a grid, with a margin below them, in inches."""
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = -(-len(panels) // columns)
    width, height = _width(panels), 0.3 + 2.4 * rows + margin
    figure = new_figure(width, height)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    looks = dict(zip(names, zip(cycle(COLOURS), cycle(STYLES), strict=False), strict=False))
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        _draw_curves(axes, curves, looks)
        axes.set_title(name, loc="left", fontsize=10)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.subplots_adjust(  # tight_layout would cost more than the drawing
        left=0.5 / width,
        right=1 - 0.12 / width,
        top=1 - 0.52 / height,
        bottom=(0.45 + margin) / height,
        wspace=0.22,
        hspace=0.5,
    )
    return figure, grid


def _width(panels: Panels) -> float:
    return max(4.8, 3.4 * min(len(panels), PANELS_IN_A_ROW))


def _draw_curves(axes: "Axes", curves: Mapping[str, Curve], looks: Mapping[str, tuple[str, str]]) -> None:
    spans = []
    for name, curve in curves.items():
        colour, style = looks[name]
        points = np.asarray(curve, dtype=float).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        steps, values = points.T
        if len(values) >= SMOOTH_FROM:
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
            values = _smooth(values, len(values) // 20)
        marker = "o" if len(values) < 12 else None
        axes.plot(
            steps, values, style, color=colour, linewidth=1.7, label=name, marker=marker, markersize=3.5
        )
        spans += [points[:, 1].min(), points[:, 1].max()] if len(points) else []
    if spans and min(spans) > 0 and max(spans) > 20 * min(spans):
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("step", fontsize=9)


def _smooth(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Centred moving average; at the ends over what is there."""
    window = np.ones(2 * (width // 2) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
