"""The registered metrics: an evaluation set in, one score out. What they compute lies one level up."""

from stav2a.metrics.components import classified, distances, language, timing

__all__ = ["classified", "distances", "language", "timing"]
