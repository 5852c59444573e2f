"""The plan: a manifest in our own form, a row a clip in the manifest's order, a row group a shard.

It is written once. While it is, memory grows with the number of clips, by 70 MB for 200,000: for the hashes
by which repeated ids and captions are found.
"""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.data.manifest import Captions, Listed, Manifest, ManifestError

TEXTS = ("id", "file", "caption", "split", "label", "fault")
NUMBERS = ("line", "caption_row")


@dataclass(frozen=True)
class SplitOptions:
    """What a manifest does not say.

    Args:
        captions: Captions by id, which replace the manifest's own.
        split: Of the lines that name none.
        validation: Part of the training clips that becomes the validation split, where there is none.
    """

    captions: Captions | None = None
    split: str = "train"
    validation: float = 0.0


def listed(manifest: Manifest, choices: SplitOptions) -> Iterator[Listed]:
    """The clips of a manifest, with what the choices add."""
    for each in manifest.read():
        caption = choices.captions.of(each.id) if choices.captions else None
        each = replace(each, split=each.split or choices.split, caption=_utf8(caption or each.caption))
        if _utf8(each.id) != each.id or _utf8(each.file) != each.file:
            each = replace(each, id=_utf8(each.id), file="", fault="its name is not in UTF-8. Rename it")
        yield each


def write_plan(path: Path, manifest: Manifest, choices: SplitOptions, shard_clips: int) -> None:
    """Write the plan to a new file.

    Raises:
        ManifestError: The manifest lists no clip.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, captions = array("Q"), array("Q", [_hash("")])  # distinct caption 0 is the null text
    validated = False
    for each in listed(manifest, choices):
        ids.append(_hash(each.id))
        captions.append(_hash(each.caption))
        validated = validated or each.split == "validation"
    if not ids:
        raise ManifestError(f"{manifest.path}: lists no clip ({manifest.form}). Add a line for each.")
    repeated, caption_rows = _repeated(np.asarray(ids)), _order_of_appearance(np.asarray(captions))[1:]
    held_out = 0.0 if validated else choices.validation
    schema = pa.schema([(name, pa.string()) for name in TEXTS] + [(name, pa.int64()) for name in NUMBERS])
    with pq.ParquetWriter(path, schema) as file:
        group: list[dict[str, Any]] = []
        for position, each in enumerate(listed(manifest, choices)):
            if repeated[position]:
                each = replace(each, fault=each.fault or f"the id {each.id!r} occurs before. Give it another")
            if each.split == "train" and _hash(each.id) < held_out * 2**64:
                each = replace(each, split="validation")
            group.append({**asdict(each), "caption_row": caption_rows[position]})
            if len(group) == shard_clips:
                file.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            file.write_table(pa.Table.from_pylist(group, schema))


class PreparationPlan:
    """A written plan.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:  # a worker opens the file itself
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
        """The positions of a shard's clips."""
        return range(shard * self.shard_clips, min((shard + 1) * self.shard_clips, self.clips))

    def entry(self, position: int) -> dict[str, Any]:
        """What is known of a clip."""
        shard = position // self.shard_clips
        if getattr(self, "_group", None) != shard:
            self._group, self._rows = shard, self._file.read_row_group(shard).to_pylist()
        return {"position": position, **self._rows[position - shard * self.shard_clips]}

    def captions(self) -> Iterator[str]:
        """The distinct captions in the order of their rows; first the null text."""
        yield ""
        known = 0
        for batch in self._file.iter_batches(columns=["caption", "caption_row"]):
            for caption, row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if row > known:  # rows are given in the order of appearance
                    known = row
                    yield caption


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Which values occur before: (N,) bool."""
    order = np.argsort(hashes, kind="stable")
    again = np.zeros(len(hashes), bool)
    again[order[1:]] = hashes[order[1:]] == hashes[order[:-1]]
    return again


def _order_of_appearance(hashes: np.ndarray) -> np.ndarray:
    """Equal numbers for equal values, given from 0 on as they appear: (N,)."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
