"""A prepared folder as a dataset."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from stav2a.data.cache.layout import INDEX
from stav2a.data.cache.reader import Cache
from stav2a.data.clip import Clip
from stav2a.registry import register


@register("dataset", "prepared")
class PreparedClips:
    """Clips that `stav2a prepare` made, with their tensors, decisions and onsets (docs/data.md).

    Args:
        folder: The --output of `stav2a prepare`.
        videos: Where the clips' files are now; None is where they were when they were prepared.

    Raises:
        CacheError: The folder is not finished, not ours, or of another version.
    """

    def __init__(self, *, folder: str, videos: str | None = None) -> None:
        self.folder, self.videos = Path(folder), None if videos is None else Path(videos)

    @cached_property
    def cache(self) -> Cache:
        """What is in the folder."""
        return Cache(self.folder, self.videos)

    def identity(self) -> str:
        """Changes with what is in the folder; empty as long as it is not finished."""
        if not (self.folder / INDEX).is_file():
            return ""
        return hashlib.sha256((self.folder / INDEX).read_bytes()).hexdigest()

    def clips(self, folder: Path) -> Sequence[Clip]:
        """The clips that have tensors; `folder` is not needed, as nothing is made."""
        return self.cache.clips
