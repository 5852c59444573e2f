"""Sounds for an extractor of features: those of equal length together for judges on GPUs, else each alone."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

Keep = Callable[[np.ndarray], object]

HELD = 4  # batches of which sounds wait for others of their length, at most


class SoundBatches:
    """Sounds for one extractor, in a stream; a judge on a GPU gets those of equal length together.

    Sounds are never padded to a common length, which would change their features. Those that wait for others
    of their length have a bounded number of samples together.

    Args:
        extractor: Extractor of features. What has no `at_once` above 1 gets each sound at once.
    """

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor
        self._waiting: defaultdict[int, list[tuple[np.ndarray, Keep]]] = defaultdict(list)  # by length

    def add(self, audio: np.ndarray, sample_rate: int, keep: Keep) -> None:
        """Take a sound.

        Args:
            audio: The sound (S,).
            sample_rate: Its rate in Hz.
            keep: Function that gets its features: now, at a later `add`, or at `finish`.

        Raises:
            StaV2AError: The memory of the GPU is too small for a single sound.
        """
        if getattr(self.extractor, "at_once", 1) == 1:
            keep(np.asarray(self.extractor(audio, sample_rate)))
            return
        sound = np.array(self.extractor.resampled(audio, sample_rate))  # no view of a longer one
        waiting = self._waiting[len(sound)]
        waiting.append((sound, keep))
        if len(waiting) >= self.extractor.batch_size(len(sound)):
            self._judge(len(sound))
        while (
            sum(length * len(each) for length, each in self._waiting.items()) > HELD * self.extractor.samples
        ):
            self._judge(max(self._waiting, key=lambda length: len(self._waiting[length])))

    def finish(self) -> None:
        """Judge the sounds that still wait."""
        for length in list(self._waiting):
            self._judge(length)

    def _judge(self, length: int) -> None:
        sounds, keeps = zip(*self._waiting.pop(length), strict=True)
        for keep, found in zip(keeps, self.extractor.judge_together(sounds), strict=True):
            keep(np.asarray(found))


def extract_all(extractor: Any, sounds: Iterable[tuple[np.ndarray, int]]) -> list[np.ndarray]:
    """Features of each sound, in order.

    Args:
        extractor: See `SoundBatches`.
        sounds: Sounds (S_i,) with their rates in Hz.

    Raises:
        StaV2AError: The memory of the GPU is too small for a single sound.

    Example:
        >>> extract_all(lambda audio, sample_rate: audio.max(), [(np.array([0.5, 0.0]), 8000)])
        [array(0.5)]
    """
    found: dict[int, np.ndarray] = {}
    batches = SoundBatches(extractor)
    for place, sound in enumerate(sounds):
        batches.add(*sound, partial(found.__setitem__, place))
    batches.finish()
    return [found[place] for place in range(len(found))]
