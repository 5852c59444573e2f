"""The registered metrics: an evaluation set in, one score out. Their formulas lie one level up."""

from stav2a.metrics.registered import aesthetics, audioset, audiovisual, judged, timing

__all__ = ["aesthetics", "audioset", "audiovisual", "judged", "timing"]
