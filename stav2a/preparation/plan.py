"""The plan: a manifest in the package's own form, a row per clip in its order, a row group per shard.

It is written once. While it is, memory grows with the number of clips, by 70 MB for 200,000: for the hashes
by which repeated ids and captions are found.
"""

import hashlib
import logging
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.data.manifest import Captions, Listed, Manifest, ManifestError

TEXTS = ("id", "file", "caption", "split", "label", "fault")
NUMBERS = ("line", "caption_row")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparationRequest:
    """The arguments of `stav2a prepare` that say which clips are prepared, and where.

    Args:
        manifest: Manifest file, or a folder of videos.
        videos: Folder of the clips' files.
        output: Folder to make.
        captions: File of captions by id, which replace the manifest's own.
        split: Split of the clips whose manifest names none.
        validation: Fraction of the training clips to hold out, where the manifest holds out none.
        test: Fraction of the training clips to measure on, where the manifest has none for it.
        shard_clips: Number of clips per shard.
    """

    manifest: Path
    videos: Path
    output: Path
    captions: Path | None = None
    split: str = "train"
    validation: float = 0.0
    test: float = 0.0
    shard_clips: int = 256


def write_plan(path: Path, manifest: Manifest, request: PreparationRequest) -> None:
    """Write the plan to a new file.

    Raises:
        ManifestError: The manifest lists no clip, or the file of captions can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    captions = Captions(request.captions) if request.captions else None
    ids, texts = array("Q"), array("Q", [_hash("")])  # caption row 0 is the null text
    parts = {"validation": request.validation, "test": request.test}
    for clip in _clips(manifest, captions, request.split):
        ids.append(_hash(clip.id))
        texts.append(_hash(clip.caption))
        if clip.split in parts:
            parts[clip.split] = 0.0
    if captions and (unused := captions.unused()):
        logger.warning(
            "note: %s: %d of %d ids are no clip of %s, such as %r.",
            request.captions,
            len(unused),
            len(captions.by_id),
            manifest.path,
            unused[0],
        )
    if not ids:
        raise ManifestError(f"{manifest.path}: lists no clip ({manifest.form}). Add a line for each.")
    repeated = np.ones(len(ids), bool)
    repeated[np.unique(np.asarray(ids), return_index=True)[1]] = False  # the first of each
    _, first, inverse = np.unique(np.asarray(texts), return_index=True, return_inverse=True)
    caption_rows = np.argsort(np.argsort(first))[inverse][1:]  # numbered in order of appearance

    def rows() -> Iterator[dict[str, Any]]:
        for position, clip in enumerate(_clips(manifest, captions, request.split)):
            if repeated[position]:
                clip = replace(clip, fault=clip.fault or f"the id {clip.id!r} occurs before. Give it another")
            if clip.split == "train":
                place = _hash(clip.id) / 2**64
                if place < parts["validation"]:
                    clip = replace(clip, split="validation")
                elif place >= 1 - parts["test"]:
                    clip = replace(clip, split="test")
            yield {**asdict(clip), "caption_row": int(caption_rows[position])}

    schema = pa.schema([(name, pa.string()) for name in TEXTS] + [(name, pa.int64()) for name in NUMBERS])
    with pq.ParquetWriter(path, schema) as file:
        entries = rows()
        while group := list(islice(entries, request.shard_clips)):
            file.write_table(pa.Table.from_pylist(group, schema))


def same_plans(path: Path, other: Path) -> bool:
    """True where two files hold the same plan, whichever version of Parquet's library wrote them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        groups = [pq.ParquetFile(each).metadata.num_row_groups for each in (path, other)]
        return groups[0] == groups[1] and pq.read_table(path).equals(pq.read_table(other))
    except (OSError, pa.ArrowException):
        return False


def _clips(manifest: Manifest, captions: Captions | None, split: str) -> Iterator[Listed]:
    """The clips of a manifest with their captions and splits, all text in UTF-8."""
    for clip in manifest.read():
        caption = captions.of(clip.id) if captions else None
        clip = replace(clip, split=clip.split or split, caption=_utf8(caption or clip.caption))
        if _utf8(clip.id) != clip.id or _utf8(clip.file) != clip.file:
            clip = replace(clip, id=_utf8(clip.id), file="", fault="its name is not in UTF-8. Rename it")
        yield clip


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class PreparationPlan:
    """A written plan, by the path of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:  # each worker opens the file itself
        return PreparationPlan, (self.path,)

    @cached_property
    def _file(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path)

    @property
    def clips(self) -> int:
        return self._file.metadata.num_rows

    @property
    def shards(self) -> int:
        return self._file.metadata.num_row_groups

    @cached_property
    def shard_clips(self) -> int:
        return self._file.metadata.row_group(0).num_rows

    def positions(self, shard: int) -> range:
        return range(shard * self.shard_clips, min((shard + 1) * self.shard_clips, self.clips))

    def entry(self, position: int) -> dict[str, Any]:
        shard = position // self.shard_clips
        if getattr(self, "_shard", None) != shard:
            self._shard, self._rows = shard, self._file.read_row_group(shard).to_pylist()
        return {"position": position, **self._rows[position - shard * self.shard_clips]}

    def captions(self) -> Iterator[str]:
        """Distinct captions in the order of their rows, the null text first."""
        yield ""
        known = 0
        for batch in self._file.iter_batches(columns=["caption", "caption_row"]):
            for caption, row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if row > known:  # rows are numbered in order of appearance
                    known = row
                    yield caption
