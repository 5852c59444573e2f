"""Figures without pyplot, and the colours of all pictures."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
