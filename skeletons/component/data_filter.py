"""The data filter `my_name`: which clips are fit to train on."""

from stav2a.data.filters import Decision, at_least
from stav2a.data.media import Decoded
from stav2a.registry import register


@register("data_filter", "my_name")
class MyName:
    """Keep clips that are long enough.

    Args:
        shortest_s: Shortest duration of the picture, in seconds.

    Example:
        >>> import numpy as np
        >>> frames, times_s = np.zeros((5, 4, 4, 3), np.uint8), np.arange(5) / 25
        >>> MyName(shortest_s=1.0)(Decoded(frames, times_s, 25.0, 0.2, np.zeros(3200), 16_000)).reason
        'rejected: 0.20 < 1 s'
    """

    def __init__(self, *, shortest_s: float = 1.0) -> None:
        self.shortest_s = shortest_s

    def __call__(self, clip: Decoded) -> Decision:
        return at_least(self.shortest_s, clip.duration_s, "s", "my_name")
