"""The registered metrics: an evaluation set in, one score out. What they compute lies one level up."""

from stav2a.metrics.registered import distances, language, timing

__all__ = ["distances", "language", "timing"]
