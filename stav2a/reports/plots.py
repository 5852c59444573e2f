"""Training curves, in panels."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":", "-.")


def new_figure(width: float, height: float, dpi: int = 100) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure  # takes half a second, and not every command draws

    return Figure(figsize=(width, height), dpi=dpi)


def png(figure: "Figure") -> bytes:
    """The figure drawn; the same bytes for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None}, pil_kwargs={"compress_level": 6})
    return picture.getvalue()


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


def histogram_png(counts: Sequence[int], *, title: str, label: str, threshold: float | None = None) -> bytes:
    """Bars over 0 to 1.

    Args:
        counts: Of each bin; the bins are equally wide.
        title: Printed above.
        label: Of the axis of scores.
        threshold: A line; bars below it are hatched.
    """
    figure = new_figure(6.4, 2.9)
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
    return png(figure)


Onsets = Sequence[float] | NDArray[np.floating]
TRUE_COLOUR, DETECTED_COLOUR = ORANGE, BLUE
TICKS_HZ = (500, 1000, 2000, 4000, 8000)
STRIP_TICKS_HZ = (1000, 4000)
DYNAMIC_RANGE = 9.2  # nepers of magnitude shown below the loudest, 80 dB


def spectrogram_png(
    mel: NDArray[np.floating],
    seconds: float,
    onsets_s: Onsets | None = None,
    detected_s: Onsets | None = None,
    title: str = "",
    max_hz: float = 8000.0,
) -> bytes:
    """One spectrogram, the true onsets as triangles above it, the detected ones as triangles below.

    Args:
        mel: Log-mel magnitudes (T, M).
        seconds: How long the T frames last.
        onsets_s: Times of the events that happened.
        detected_s: Times that an onset detector heard.
        title: Printed above the picture.
        max_hz: Upper end of the mel scale.
    """
    return compare_png({title: mel}, seconds, onsets_s, {title: detected_s}, max_hz)


def compare_png(
    mels: Mapping[str, NDArray[np.floating]],
    seconds: float,
    onsets_s: Onsets | None = None,
    detected_s: Mapping[str, Onsets | None] | None = None,
    max_hz: float = 8000.0,
) -> bytes:
    """Spectrograms of the same moment one above the other, on one colour scale, with the same true onsets.

    Args:
        mels: Title -> log-mel magnitudes (T, M), from top to bottom.
        seconds: How long each of them lasts.
        onsets_s: Times of the events that happened.
        detected_s: Title -> times that an onset detector heard.
        max_hz: Upper end of the mel scale.
    """
    height = 0.75 + 1.85 * len(mels)
    figure = new_figure(7.2, height)
    loudest = max(float(np.max(mel)) for mel in mels.values())
    all_axes = figure.subplots(len(mels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (title, mel) in zip(all_axes, mels.items(), strict=True):
        _show(axes, mel, seconds, loudest)
        axes.set_title(title, loc="left", fontsize=10, pad=13)
        _mark(axes, onsets_s, top=True)
        _mark(axes, (detected_s or {}).get(title), top=False)
        _frequency_ticks(axes, mel.shape[1], max_hz, TICKS_HZ, fontsize=8)
        axes.set_xlim(0, seconds)
    all_axes[-1].set_xlabel("time / s")
    _legend(figure, onsets_s is not None, any(d is not None for d in (detected_s or {}).values()))
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.4 / height, bottom=0.47 / height, hspace=0.38)
    return png(figure)


def strip_png(
    mel: NDArray[np.floating],
    seconds: float,
    onsets_s: Onsets | None = None,
    loudest: float | None = None,
    max_hz: float = 8000.0,
) -> bytes:
    """A small spectrogram without words, to stand beside others of the same moment; finely drawn.

    Args:
        mel: Log-mel magnitudes (T, M).
        seconds: How long the T frames last.
        onsets_s: Times of the events that happened.
        loudest: Upper end of the colour scale, shared with the others; this one's own by default.
        max_hz: Upper end of the mel scale.
    """
    figure = new_figure(3.3, 1.25, dpi=160)
    axes = figure.subplots()
    _show(axes, mel, seconds, float(np.max(mel)) if loudest is None else loudest)
    _mark(axes, onsets_s, top=True, size=4)
    _frequency_ticks(axes, mel.shape[1], max_hz, STRIP_TICKS_HZ, fontsize=6.5)
    axes.set_ylabel("")
    axes.tick_params(axis="x", labelsize=6.5, pad=2, length=2)
    axes.tick_params(axis="y", pad=1.5, length=2)
    axes.set_xlim(0, seconds)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.9, bottom=0.16)
    return png(figure)


def _show(axes: "Axes", mel: NDArray[np.floating], seconds: float, loudest: float) -> None:
    axes.imshow(
        mel.T, origin="lower", aspect="auto", interpolation="nearest", cmap="viridis",
        extent=(0, seconds, 0, mel.shape[1]), vmin=loudest - DYNAMIC_RANGE, vmax=loudest,
    )  # fmt: skip


def _mark(axes: "Axes", times_s: Onsets | None, *, top: bool, size: float = 6) -> None:
    """Triangles outside the frame, so that they hide no sound, and for the truth a thin line through it."""
    if times_s is None or len(times_s) == 0:
        return
    times = np.asarray(times_s, dtype=float)
    shape, colour = ("v", TRUE_COLOUR) if top else ("^", DETECTED_COLOUR)
    edge = np.full(len(times), 1.045 if top else -0.045)
    across = axes.get_xaxis_transform()  # x in seconds, y as a part of the axes' height
    axes.plot(times, edge, shape, color=colour, markersize=size, transform=across, clip_on=False, zorder=5)
    if top:
        axes.vlines(times, 0, 1, colors="white", linewidth=0.9, linestyles=(0, (2, 2)), transform=across)


def _legend(figure: "Figure", true: bool, detected: bool) -> None:
    from matplotlib.lines import Line2D

    marks = [(true, "v", TRUE_COLOUR, "true onset"), (detected, "^", DETECTED_COLOUR, "detected onset")]
    handles = [
        Line2D([], [], linestyle="none", marker=shape, color=colour, label=label)
        for shown, shape, colour, label in marks
        if shown
    ]
    if handles:
        figure.legend(
            handles=handles, loc="lower right", ncols=2, fontsize=8, frameon=False, handletextpad=0.1,
            columnspacing=1.2, borderaxespad=0.1,
        )  # fmt: skip


def _frequency_ticks(
    axes: "Axes", bins: int, max_hz: float, ticks_hz: Sequence[float], *, fontsize: float
) -> None:
    ticks = [hz for hz in ticks_hz if hz <= max_hz]
    axes.set_yticks([bins * _slaney(hz) / _slaney(max_hz) for hz in ticks])
    axes.set_yticklabels([f"{hz / 1000:g}" for hz in ticks], fontsize=fontsize)
    axes.set_ylabel("kHz", fontsize=9)
    axes.tick_params(axis="x", labelsize=8, pad=7)


def _slaney(hz: float) -> float:
    """The mel scale of librosa's default: linear up to 1 kHz, logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else float(15 + np.log(hz / 1000) * 27 / np.log(6.4))
