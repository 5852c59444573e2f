"""Captions from a file of their own, joined to clips by id."""

import re
from pathlib import Path

from stav2a.data.manifest import ManifestError
from stav2a.data.manifests.forms import open_manifest

CLIP_OF_VIDEO = re.compile(r"(.{11})_(\d+)")  # a YouTube id and a start


class Captions:
    """What a captions file says of each id (Auto-ACD's, for VGGSound).

    `abcdefghijk_000030` and `abcdefghijk_30` are the same clip; an id without a start stands for all clips of
    its video.

    Args:
        path: A manifest whose lines have an id and a caption.

    Raises:
        ManifestError: It holds no caption, or two for one id.
    """

    def __init__(self, path: Path) -> None:
        self.by_id: dict[str, str] = {}
        for each in open_manifest(path).read():
            if each.fault or not each.caption:
                continue
            known = self.by_id.setdefault(_canonical(each.id), each.caption)
            if known != each.caption:
                raise ManifestError(
                    f"{path}, line {each.line}: a second caption for {each.id!r}. Keep one a clip."
                )
        if not self.by_id:
            raise ManifestError(f"{path}: no line with an id and a caption. Give a csv with these columns.")

    def of(self, name: str) -> str | None:
        """The caption of a clip; None where there is none."""
        found = self.by_id.get(_canonical(name))
        if found is None and (parts := CLIP_OF_VIDEO.fullmatch(name)):
            return self.by_id.get(parts[1])
        return found


def _canonical(name: str) -> str:
    parts = CLIP_OF_VIDEO.fullmatch(name)
    return f"{parts[1]}_{int(parts[2])}" if parts else name
