"""Spectrograms, with the onsets that there are and those that were heard."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stav2a.plots.drawing import BLUE, ORANGE, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
