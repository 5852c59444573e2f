"""The embedded benchmark: a world of struck objects, rendered as real video files.

docs/benchmark.md is its data card.
"""

from stav2a.data.struck_objects.dataset import VERSION, StruckObjects, write_performance
from stav2a.data.struck_objects.scene import CLASSES

__all__ = ["CLASSES", "StruckObjects", "VERSION", "write_performance"]
