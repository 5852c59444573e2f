"""In which order a listener meets the videos."""

import hashlib
from collections.abc import Sequence

import numpy as np


def playlist(
    clips: Sequence[str], systems: Sequence[str], *, seed: int, annotator: str
) -> list[tuple[str, str]]:
    """All systems' versions of a clip one after another; clips, and the versions of each, in random order.

    The versions of a clip are next to each other so that they are rated against one another; which of them
    comes first is drawn anew for every clip, so that no system gains by its place.

    Args:
        clips: Their names.
        systems: Their names.
        seed: Of the test.
        annotator: Who listens: the same one always meets the same order.

    Returns:
        (clip, system) pairs.

    Example:
        >>> playlist(["dog", "bell"], ["a", "b"], seed=0, annotator="ada")
        [('bell', 'b'), ('bell', 'a'), ('dog', 'b'), ('dog', 'a')]
    """
    digest = hashlib.sha256(f"{seed}\n{annotator}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    return [
        (clips[clip], systems[system])
        for clip in rng.permutation(len(clips))
        for system in rng.permutation(len(systems))
    ]
