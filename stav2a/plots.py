"""Pictures as PNG bytes: spectrograms with onset marks, and training curves.

Each figure is its own object, without pyplot's global state, so that threads may draw. Colours are the
Okabe-Ito set and Matplotlib's viridis, which people with any colour vision can tell apart; what matters is
told by shape as well.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]  # (step, value)
Onsets = Sequence[float] | NDArray[np.floating]

TRUE_COLOUR, DETECTED_COLOUR = "#D55E00", "#0072B2"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":", "-.")
TICKS_HZ = (500, 1000, 2000, 4000, 8000)
DYNAMIC_RANGE = 9.2  # nepers of magnitude shown below the loudest, 80 dB
SMOOTH_FROM = 40  # points; shorter curves are drawn as they are
PANELS_IN_A_ROW = 3


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
    figure = _figure(7.2, height)
    loudest = max(float(np.max(mel)) for mel in mels.values())
    all_axes = figure.subplots(len(mels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (title, mel) in zip(all_axes, mels.items(), strict=True):
        axes.imshow(
            mel.T, origin="lower", aspect="auto", interpolation="nearest", cmap="viridis",
            extent=(0, seconds, 0, mel.shape[1]), vmin=loudest - DYNAMIC_RANGE, vmax=loudest,
        )  # fmt: skip
        axes.set_title(title, loc="left", fontsize=10, pad=13)
        _mark(axes, onsets_s, top=True)
        _mark(axes, (detected_s or {}).get(title), top=False)
        _frequency_ticks(axes, mel.shape[1], max_hz)
        axes.set_xlim(0, seconds)
    all_axes[-1].set_xlabel("time / s")
    _legend(figure, onsets_s is not None, any(d is not None for d in (detected_s or {}).values()))
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.4 / height, bottom=0.47 / height, hspace=0.38)
    return _png(figure)


def curves_png(losses: Mapping[str, Curve], title: str = "") -> bytes:
    """Training curves, one panel for all names that agree up to their last "/".

    Long curves are drawn thin, with a moving average over them. A panel whose values span more than a factor
    of 20 has a logarithmic axis.

    Args:
        losses: Name, such as "joint/train", -> (step, value) pairs. Values that are not finite are left out.
        title: Printed above the panels.
    """
    names = dict.fromkeys(name.rpartition("/")[0] for name in losses)  # in the order given
    panels = {panel: [name for name in losses if name.rpartition("/")[0] == panel] for panel in names} or {
        "": []
    }
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = -(-len(panels) // columns)
    width, height = max(4.8, 3.4 * columns), 0.3 + 2.4 * rows
    figure = _figure(width, height)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        _draw_curves(axes, {curve.rpartition("/")[2]: losses[curve] for curve in curves})
        axes.set_title(name, loc="left", fontsize=10)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.subplots_adjust(  # tight_layout would cost more than the drawing
        left=0.5 / width,
        right=1 - 0.12 / width,
        top=1 - 0.52 / height,
        bottom=0.45 / height,
        wspace=0.22,
        hspace=0.5,
    )
    return _png(figure)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # takes half a second, and not every command draws

    return Figure(figsize=(width, height), dpi=100)


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None}, pil_kwargs={"compress_level": 6})
    return picture.getvalue()


def _mark(axes: "Axes", times_s: Onsets | None, *, top: bool) -> None:
    """Triangles outside the frame, so that they hide no sound, and for the truth a thin line through it."""
    if times_s is None or len(times_s) == 0:
        return
    times = np.asarray(times_s, dtype=float)
    shape, colour = ("v", TRUE_COLOUR) if top else ("^", DETECTED_COLOUR)
    edge = np.full(len(times), 1.045 if top else -0.045)
    across = axes.get_xaxis_transform()  # x in seconds, y as a part of the axes' height
    axes.plot(times, edge, shape, color=colour, markersize=6, transform=across, clip_on=False, zorder=5)
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


def _frequency_ticks(axes: "Axes", bins: int, max_hz: float) -> None:
    ticks = [hz for hz in TICKS_HZ if hz <= max_hz]
    axes.set_yticks([bins * _slaney(hz) / _slaney(max_hz) for hz in ticks])
    axes.set_yticklabels([f"{hz / 1000:g}" for hz in ticks], fontsize=8)
    axes.set_ylabel("kHz", fontsize=9)
    axes.tick_params(axis="x", labelsize=8, pad=7)


def _slaney(hz: float) -> float:
    """The mel scale of librosa's default: linear up to 1 kHz, logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else float(15 + np.log(hz / 1000) * 27 / np.log(6.4))


def _draw_curves(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    spans = []
    for (name, curve), colour, style in zip(curves.items(), cycle(COLOURS), cycle(STYLES), strict=False):
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
    if curves and any(curves):
        axes.legend(fontsize=8, frameon=False)


def _smooth(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Centred moving average; at the ends over what is there."""
    window = np.ones(2 * (width // 2) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
