"""Listening to all clips: files in worker processes, ears with a model of their own in this one."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stav2a.data.pool import parallel
from stav2a.evaluate.cache import Cache
from stav2a.evaluate.folders import REFERENCE, Paired
from stav2a.evaluate.listening import Crop, Listened, Request, kept_as, listener
from stav2a.metrics.sounds import Ear, Heard, describe


class Hearing:
    """What is heard of many clips, kept in memory as arrays and on disk by content; never the sounds.

    Args:
        clips: Files paired by name.
        crops: In seconds from the start; None is all that a clip's files have in common.
        flow: Finds the videos' motion; None where it is not needed.
        cache: Where it is kept.
        workers: Processes; by default one a core.
    """

    def __init__(
        self,
        clips: Sequence[Paired],
        *,
        crops: Sequence[Crop],
        flow: Any = None,
        cache: Cache,
        workers: int | None = None,
    ) -> None:
        self.clips, self.crops, self.flow, self.cache, self.workers = clips, crops, flow, cache, workers
        self.listened: dict[str, Listened] = {}
        self._known: set[str] = set()
        self._prepared = False

    def need(self, ears: Iterable[Ear]) -> None:
        """Let these ears hear all clips, in one pass; those that have heard them are left out."""
        new = {describe(ear): ear for ear in ears if describe(ear) not in self._known}
        if not new and self.listened:
            return
        models = {name: ear for name, ear in new.items() if getattr(ear, "uses_torch", False)}
        request = Request(
            ears=[ear for name, ear in new.items() if name not in models],
            torch_ears=list(models),
            crops=self.crops,
            flow=self.flow,
        )
        self._prepared = False
        work = parallel(
            listener(request, self.cache),
            self.clips,
            workers=self.workers,
            description="listening",
            fewest=2,
        )
        for clip, found in zip(self.clips, work, strict=True):
            self._finish(found, models)
            if clip.id in self.listened:
                self.listened[clip.id].heard |= found.heard
            else:
                self.listened[clip.id] = found
        self._known |= set(new)

    def _finish(self, found: Listened, models: dict[str, Ear]) -> None:
        """Let the models hear what is waiting for them; all of them are loaded at the first such sound."""
        if found.waiting and not self._prepared:
            for model in models.values():
                getattr(model, "prepare", lambda: None)()
            self._prepared = True
        for key, sound in found.waiting.items():
            crop, name, side = key
            duration_s = found.common_s if crop is None else min(crop, found.common_s)
            heard = np.asarray(models[name](*sound))
            self.cache.put(found.contents[side], kept_as(key, duration_s), heard)
            found.heard[key] = heard
        found.waiting.clear()

    def whole(self, crop: Crop) -> list[str]:
        """The clips without a fault that last as long as a crop."""
        return [
            clip.id
            for clip in self.clips
            if not set(self.listened[clip.id].faults) - {"video"} and self.listened[clip.id].lasts(crop)
        ]


class FileSounds:
    """One system's sounds beside the real ones, of one crop, as `metrics.sounds.Sounds`.

    Args:
        hearing: Of all clips.
        ids: The clips to take, in this order.
        side: The system; `reference` sets the real sounds beside themselves.
        crop: Seconds from the start, or None.
    """

    def __init__(self, hearing: Hearing, ids: Sequence[str], side: str, crop: Crop) -> None:
        self.hearing, self.ids, self.side, self.crop = hearing, ids, side, crop

    @property
    def definition(self) -> str:
        if self.crop is None:
            return "whole sounds, cut to the shortest of each clip"
        return f"the first {self.crop:g} s of sounds"

    def __len__(self) -> int:
        return len(self.ids)

    def duration_s(self, clip: int) -> float:
        common_s = self.hearing.listened[self.ids[clip]].common_s
        return common_s if self.crop is None else min(self.crop, common_s)

    def hear(self, ear: Ear) -> Heard:
        self.hearing.need([ear])
        return Heard(*(self._side(describe(ear), side) for side in (self.side, REFERENCE)))

    def _side(self, ear: str, side: str) -> list[np.ndarray]:
        return [self.hearing.listened[clip].heard[self.crop, ear, side] for clip in self.ids]
