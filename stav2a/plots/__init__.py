"""Pictures as PNG bytes: spectrograms with onset marks, training curves, rows with intervals, histograms.

Each figure is its own object, without pyplot's global state, so that threads may draw. Colours are the
Okabe-Ito set and Matplotlib's viridis, which people with any colour vision can tell apart; what matters is
told by shape as well.
"""

from stav2a.plots.curves import Curve, curves_png, panels_png
from stav2a.plots.forest import Mark, forest_png
from stav2a.plots.histogram import histogram_png
from stav2a.plots.spectrograms import Onsets, compare_png, spectrogram_png, strip_png

__all__ = [
    "Curve",
    "Mark",
    "Onsets",
    "compare_png",
    "curves_png",
    "forest_png",
    "histogram_png",
    "panels_png",
    "spectrogram_png",
    "strip_png",
]
