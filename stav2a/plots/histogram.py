"""A histogram of scores, with the threshold that parts them."""

from collections.abc import Sequence

from stav2a.plots.drawing import BLUE, ORANGE, new_figure, png


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
