"""Plots as PNG: training curves, forest plots, histograms and spectrograms. Equal input gives equal bytes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":", "-.")
GREY = "#5c6066"
BOTH_GREY = "#7f858c"  # read on light and dark ground

Curve = Sequence[tuple[float, float]]  # (step, value)
Panels = Mapping[str, Mapping[str, Curve]]
SMOOTH_FROM = 40  # points; shorter curves are drawn as they are
PANELS_IN_A_ROW = 3
ROW_INCHES = 0.34  # of a forest plot

Onsets = Sequence[float] | NDArray[np.floating]
TICKS_HZ, STRIP_TICKS_HZ = (500, 1000, 2000, 4000, 8000), (1000, 4000)
STRIP_TEXT = 8.0  # points; as wide as a phone's page these are 10 pixels
MAX_HZ = 8000.0  # upper end of the mel scale
DYNAMIC_RANGE = 9.2  # nepers of magnitude shown below the loudest, 80 dB


def curves_png(panels: Panels) -> bytes:
    """Training curves, one panel for each stage or loss, with one legend below all.

    A name has the same colour in every panel. Long curves are drawn thin, with a moving average over them. A
    panel whose values span more than a factor of 20 has a logarithmic axis.

    Args:
        panels: Panel -> name -> (step, value) pairs. Values that are not finite are left out.
    """
    panels = panels or {"": {}}
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = -(-len(panels) // columns)
    width = max(4.8, 3.4 * columns)
    in_legend_row = max(1, int(width / (0.6 + 0.08 * max(map(len, names), default=0))))
    margin = 0.1 + 0.2 * -(-len(names) // in_legend_row)
    height = 0.3 + 2.4 * rows + margin
    figure = _new_figure(width, height)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    looks = dict(zip(names, zip(cycle(COLOURS), cycle(STYLES), strict=False), strict=False))
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        _draw_curves(axes, curves, looks)
        axes.set_title(title, loc="left", fontsize=10)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    lines = {line.get_label(): line for axes in grid for line in axes.lines}
    if shown := [name for name in names if name in lines]:
        handles = [lines[name] for name in shown]
        figure.legend(handles, shown, loc="lower center", ncols=in_legend_row, fontsize=8, frameon=False)
    figure.subplots_adjust(  # tight_layout would cost more than the drawing
        left=0.75 / width,
        right=1 - 0.12 / width,
        top=1 - 0.52 / height,
        bottom=(0.45 + margin) / height,
        wspace=0.36,
        hspace=0.5,
    )
    return _png(figure)


def _draw_curves(axes: "Axes", curves: Mapping[str, Curve], looks: Mapping[str, tuple[str, str]]) -> None:
    spans = []
    for name, curve in curves.items():
        colour, style = looks[name]
        points = np.asarray(curve, dtype=float).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        steps, values = points.T
        if len(values) >= SMOOTH_FROM:
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
            window = np.ones(2 * (len(values) // 40) + 1)  # a centred average; at the ends over what is there
            values = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
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
    axes.ticklabel_format(axis="x", useOffset=False)
    if axes.get_yscale() == "linear":  # an offset such as 1e-5 above the axis would be cut off
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("loss", fontsize=9)


@dataclass(frozen=True)
class Mark:
    """One row of a forest plot.

    Args:
        value: The row's figure.
        low: Lower end of its interval, or None.
        high: Upper end of its interval.
        parts: Figures of single seeds, drawn as small upright lines.
        sure: True if it is known to differ from the baseline: drawn as a full dot instead of a ring.
        beside: Text at the right.
    """

    value: float
    low: float | None = None
    high: float | None = None
    parts: Sequence[float] = ()
    sure: bool = False
    beside: str = ""


def forest_png(
    rows: Mapping[str, Mark | None],
    *,
    title: str = "",
    label: str = "",
    baseline: str | None = None,
    beside: str = "",
    line: float | None = None,
    least: float = 0.0,
) -> bytes:
    """Forest plot: rows from top to bottom with their intervals, the baseline's as a band through all.

    Args:
        rows: Name -> its mark; None leaves its line empty.
        title: Title above the picture.
        label: Label of the axis, with its unit.
        baseline: The row that the others are compared with, a diamond.
        beside: Heading of the texts at the right.
        line: Position of an upright line, such as 0 for differences.
        least: Least span of the axis, so that it does not magnify what is too small to be of interest.
    """
    margin = 0.25 + 0.085 * max(map(len, rows), default=0)  # for the names
    width, height = 4.6 + margin, 0.95 + ROW_INCHES * len(rows)
    figure = _new_figure(width, height, dpi=150)
    axes = figure.subplots()
    for place, (name, mark) in enumerate(rows.items()):
        if mark is not None:
            _draw_row(axes, place, mark, is_baseline=name == baseline)
            _write(axes, place, mark.beside)
    if baseline is not None and (mark := rows.get(baseline)) is not None:
        axes.axvline(mark.value, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        if mark.low is not None and mark.high is not None:
            axes.axvspan(mark.low, mark.high, color=ORANGE, alpha=0.09, linewidth=0, zorder=0)
    if line is not None:
        axes.axvline(line, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _write(axes, -0.95, beside)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    for name, tick in zip(rows, axes.get_yticklabels(), strict=True):
        tick.set_fontweight("bold" if name == baseline else "normal")
    axes.set_ylim(len(rows) - 0.5, -0.6)  # the first row on top
    axes.set_xlim(_at_least(axes.get_xlim(), least))
    axes.set_title(title, loc="left", fontsize=10.5, pad=12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.set_xlabel(label, fontsize=8)
    figure.subplots_adjust(
        left=margin / width,
        right=1 - (1.0 if beside else 0.2) / width,
        top=1 - 0.42 / height,
        bottom=0.5 / height,
    )
    return _png(figure)


def _at_least(ends: tuple[float, float], least: float) -> tuple[float, float]:
    """The ends of an axis, moved apart equally if its span is too small."""
    low, high = ends
    more = max(0.0, least - (high - low)) / 2
    return low - more, high + more


def _draw_row(axes: "Axes", place: float, mark: Mark, *, is_baseline: bool) -> None:
    colour = ORANGE if is_baseline else BLUE
    if mark.low is not None and mark.high is not None:
        axes.hlines(place, mark.low, mark.high, color=colour, linewidth=2.2, zorder=3)
    below = [place + 0.27] * len(mark.parts)
    axes.plot(mark.parts, below, "|", color=GREY, markersize=5, markeredgewidth=1.1, zorder=3)
    full = is_baseline or mark.sure
    axes.plot(
        [mark.value], [place], "D" if is_baseline else "o", color=colour, markersize=7, zorder=4,
        markerfacecolor=colour if full else "white", markeredgewidth=1.6,
    )  # fmt: skip


def _write(axes: "Axes", place: float, text: str) -> None:
    """Write at the right of the frame, at a row's height."""
    beside = axes.get_yaxis_transform()  # x as a part of the axes' width, y in rows
    axes.text(1.03, place, text, transform=beside, fontsize=8, color=GREY, va="center", clip_on=False)


@dataclass(frozen=True)
class PlanePoint:
    """A row in the plane of two metrics.

    Args:
        across: Its mark on the axis across.
        up: Its mark on the axis upwards.
        cost: Its cost, by which the area of its dot grows; None for a dot of the usual size.
    """

    across: Mark
    up: Mark
    cost: float | None = None


def plane_png(points: Mapping[str, PlanePoint], *, across: str, up: str, baseline: str = "") -> bytes:
    """Rows as dots in the plane of two metrics, with their intervals as a cross.

    Args:
        points: Row -> its point.
        across: Label of the axis across.
        up: Label of the axis upwards.
        baseline: The row that the others are compared with, in another colour.
    """
    figure = _new_figure(6.4, 4.6, dpi=150)
    axes = figure.subplots()
    most = max((point.cost or 0.0 for point in points.values()), default=0.0)
    dots: list[tuple[str, float, float, float]] = []
    for name, point in points.items():
        colour = ORANGE if name == baseline else BLUE
        x, y = point.across.value, point.up.value
        for mark, line in ((point.across, axes.hlines), (point.up, axes.vlines)):
            if mark.low is not None and mark.high is not None:
                line(
                    y if mark is point.across else x,
                    mark.low,
                    mark.high,
                    color=colour,
                    linewidth=1,
                    alpha=0.6,
                )
        size = 40.0 if point.cost is None or not most else 30 + 270 * point.cost / most
        axes.scatter([x], [y], s=size, color=colour, alpha=0.75, linewidths=0, zorder=3)
        dots.append((name, x, y, 5 + size**0.5 / 2))
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.margins(0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.97, bottom=0.11)
    _name_dots(axes, dots)
    return _png(figure)


def _name_dots(axes: "Axes", dots: Sequence[tuple[str, float, float, float]]) -> None:
    """Write names beside dots: right or left of them, above or below, wherever no other name stands yet.

    Args:
        axes: Axes whose limits are final.
        dots: Name, place and distance of the name in points, of each dot.
    """
    axes.autoscale_view()
    taken: list[Any] = []
    for name, x, y, apart in dots:
        for dx, dy, side in (
            (apart, 4, "left"),
            (apart, -11, "left"),
            (-apart, 4, "right"),
            (-apart, -11, "right"),
        ):
            text = axes.annotate(
                name,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                fontsize=8,
                color=BOTH_GREY,
                ha=side,
                zorder=4,
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
            text.set_visible(False)
        text.set_visible(True)
        taken.append(box)


@dataclass(frozen=True)
class InteractionPanel:
    """Means of one factor's levels, a line for each level of another.

    Args:
        title: Title of the panel.
        ticks: Levels on the axis.
        lines: Level of the other factor -> mean at each tick, None where there is none.
    """

    title: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[float | None]]


def interactions_png(
    panels: Sequence[InteractionPanel], *, title: str = "", label: str = "", least: float = 0.0
) -> bytes:
    """Interaction plots on one scale: where the lines of a panel are parallel, its factors don't interact.

    Args:
        panels: One panel a pair of factors.
        title: Title above the picture.
        label: Label of the axis of means, with its unit.
        least: Least span of the axis of means.
    """
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = -(-len(panels) // columns)
    width, height = 0.75 + 2.3 * columns, 0.45 + 2.65 * rows
    figure = _new_figure(width, height, dpi=150)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        places = np.arange(len(panel.ticks))
        for (name, means), colour, style in zip(
            panel.lines.items(), cycle(COLOURS), cycle(STYLES), strict=False
        ):
            values = np.array([np.nan if mean is None else mean for mean in means])
            axes.plot(
                places, values, style, color=colour, linewidth=1.6, marker="o", markersize=5, label=name
            )
        axes.set_title(panel.title, loc="left", fontsize=9.5, pad=8 + 11 * len(panel.lines))
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=8, frameon=False, borderaxespad=0.2,
            labelspacing=0.2, handlelength=2.4,
        )  # fmt: skip
        axes.set_xticks(places, panel.ticks, fontsize=8)
        axes.set_xlim(-0.35, len(places) - 0.65)
        axes.tick_params(axis="y", labelsize=8, labelleft=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    grid[0].set_ylim(_at_least(grid[0].get_ylim(), least))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[::columns]:
        axes.set_ylabel(label, fontsize=8)
    figure.text(0.1 / width, 1 - 0.08 / height, title, fontsize=10.5, va="top")
    most = max(len(panel.lines) for panel in panels)
    figure.subplots_adjust(
        left=0.7 / width,
        right=1 - 0.1 / width,
        top=1 - (0.7 + 0.155 * most) / height,
        bottom=0.3 / height,
        wspace=0.32,
        hspace=0.5 + 0.12 * most,
    )
    return _png(figure)


def histogram_png(counts: Sequence[int], *, title: str, label: str, threshold: float | None = None) -> bytes:
    """Histogram over 0 to 1.

    Args:
        counts: Number of clips in each bin; the bins are equally wide.
        title: Title above the picture.
        label: Label of the axis of scores.
        threshold: Position of a line; bars below it are hatched.
    """
    figure = _new_figure(6.4, 2.9)
    axes = figure.subplots()
    width = 1 / len(counts)
    bars = axes.bar(
        [i * width for i in range(len(counts))], counts, width, align="edge", color=BLUE, edgecolor="white"
    )
    if threshold is not None:
        for i, bar in enumerate(bars):
            if (i + 0.5) * width < threshold:
                bar.set(facecolor="white", edgecolor=BLUE, hatch="////")
        axes.axvline(threshold, color=ORANGE, linewidth=1.6, label=f"kept from {threshold:g}")
        axes.legend(fontsize=8, frameon=False)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("clips", fontsize=9)
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.9, bottom=0.17)
    return _png(figure)


def compare_png(
    mels: Mapping[str, NDArray[np.floating]], seconds: float, onsets_s: Onsets | None = None
) -> bytes:
    """Spectrograms of the same moment one above the other, on one colour scale, with the same true onsets.

    Args:
        mels: Title -> log-mel magnitudes (T, M), from top to bottom.
        seconds: Duration of each of them.
        onsets_s: Times of the true events.
    """
    from matplotlib.lines import Line2D

    height = 0.75 + 1.85 * len(mels)
    figure = _new_figure(7.2, height)
    figure.set_facecolor("white")  # a file of its own, in any viewer
    loudest = max(float(np.max(mel)) for mel in mels.values())
    all_axes = figure.subplots(len(mels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (title, mel) in zip(all_axes, mels.items(), strict=True):
        _draw_spectrogram(axes, mel, seconds, onsets_s, loudest, TICKS_HZ, fontsize=8, size=6)
        axes.set_title(title, loc="left", fontsize=10, pad=13)
    all_axes[-1].set_xlabel("time / s")
    if onsets_s is not None:
        mark = Line2D([], [], linestyle="none", marker="v", color=ORANGE, label="true onset")
        figure.legend(
            handles=[mark], loc="lower right", fontsize=8, frameon=False, handletextpad=0.1,
            borderaxespad=0.1,
        )  # fmt: skip
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.4 / height, bottom=0.47 / height, hspace=0.38)
    return _png(figure)


def strip_png(
    mel: NDArray[np.floating],
    seconds: float,
    onsets_s: Onsets | None = None,
    loudest: float | None = None,
    detected_s: Onsets | None = None,
) -> bytes:
    """Small spectrogram without text, to stand beside others of the same moment; finely drawn.

    Its axes are grey, to be read on light and dark ground.

    Args:
        mel: Log-mel magnitudes (T, M).
        seconds: Duration of the T frames.
        onsets_s: Times of the true events.
        loudest: Upper end of the colour scale, shared with the others; this one's own by default.
        detected_s: Times of onsets that were detected in the sound.
    """
    figure = _new_figure(3.3, 1.4, dpi=160)
    axes = figure.subplots()
    loudest = float(np.max(mel)) if loudest is None else loudest
    _draw_spectrogram(axes, mel, seconds, onsets_s, loudest, STRIP_TICKS_HZ, fontsize=STRIP_TEXT, size=4)
    axes.set_ylabel("kHz", fontsize=STRIP_TEXT, labelpad=1, color=BOTH_GREY)
    axes.set_xlabel("s", fontsize=STRIP_TEXT, labelpad=0, loc="right", color=BOTH_GREY)
    axes.tick_params(axis="x", labelsize=STRIP_TEXT, pad=5, length=2, colors=BOTH_GREY)
    axes.tick_params(axis="y", pad=1.5, length=2, colors=BOTH_GREY)
    axes.spines[:].set_color(BOTH_GREY)
    if detected_s is not None and len(detected_s):
        below = np.full(len(detected_s), -0.055)
        across = axes.get_xaxis_transform()
        axes.plot(
            detected_s, below, "^", color=GREEN, markersize=4, transform=across, clip_on=False, zorder=5
        )
    figure.subplots_adjust(left=0.12, right=0.96, top=0.92, bottom=0.27)
    return _png(figure)


def _draw_spectrogram(
    axes: "Axes",
    mel: NDArray[np.floating],
    seconds: float,
    onsets_s: Onsets | None,
    loudest: float,
    ticks_hz: Sequence[float],
    *,
    fontsize: float,
    size: float,
) -> None:
    """Draw one spectrogram: true onsets as triangles above the frame, and as thin lines through it."""
    axes.imshow(
        mel.T, origin="lower", aspect="auto", interpolation="nearest", cmap="viridis",
        extent=(0, seconds, 0, mel.shape[1]), vmin=loudest - DYNAMIC_RANGE, vmax=loudest,
    )  # fmt: skip
    if onsets_s is not None and len(onsets_s):
        times = np.asarray(onsets_s, dtype=float)
        across = axes.get_xaxis_transform()  # x in seconds, y as a part of the axes' height
        axes.plot(
            times, np.full(len(times), 1.045), "v", color=ORANGE, markersize=size, transform=across,
            clip_on=False, zorder=5,
        )  # fmt: skip
        axes.vlines(times, 0, 1, colors="white", linewidth=0.9, linestyles=(0, (2, 2)), transform=across)
    axes.set_yticks([mel.shape[1] * _slaney(hz) / _slaney(MAX_HZ) for hz in ticks_hz])
    axes.set_yticklabels([f"{hz / 1000:g}" for hz in ticks_hz], fontsize=fontsize)
    axes.set_ylabel("kHz", fontsize=9)
    axes.tick_params(axis="x", labelsize=8, pad=7)
    axes.set_xlim(0, seconds)


def _slaney(hz: float) -> float:
    """The mel scale of librosa's default: linear up to 1 kHz, logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else float(15 + np.log(hz / 1000) * 27 / np.log(6.4))


def _new_figure(width: float, height: float, dpi: int = 100) -> "Figure":
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure  # takes half a second, and not every command draws

    return Figure(figsize=(width, height), dpi=dpi, facecolor="none")  # the ground is the page's


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    for axes in figure.axes:
        axes.set_facecolor("none")
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None}, pil_kwargs={"compress_level": 6})
    return picture.getvalue()
