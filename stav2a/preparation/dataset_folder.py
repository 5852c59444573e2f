"""The output folder: what is in it, what is finished, and what is kept of an unfinished shard."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from stav2a.data.prepared.shards import (
    FORMAT,
    INDEX,
    SETTINGS,
    SHARDS,
    TEXT,
    ClipRecord,
    PreparedFolderError,
    pack_shard,
    read_facts,
    read_shard,
)
from stav2a.preparation.plan import PreparationPlan
from stav2a.utils.errors import UsageError


@dataclass(frozen=True)
class Folder:
    """A folder that `stav2a prepare` fills. Its files appear whole; all else lies in `unfinished`.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def unfinished(self) -> Path:
        return self.path / "unfinished"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def plan(self) -> PreparationPlan:
        return PreparationPlan(self.path / "plan.parquet")

    @property
    def begun(self) -> bool:
        return (self.path / SETTINGS).is_file()

    @property
    def finished(self) -> bool:
        return (self.path / INDEX).is_file() and not self.unfinished.exists()

    def shard(self, number: int) -> Path:
        return self.path / SHARDS / f"{number:05d}.safetensors"

    def text(self, number: int) -> Path:
        return self.path / TEXT / f"{number:05d}.safetensors"

    def settings(self) -> dict[str, Any]:
        """What `begin` wrote.

        Raises:
            UsageError: Another version did.
        """
        found = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        if found.get("format") != FORMAT:
            raise UsageError(
                f"{self.path} was prepared in format {found.get('format')}, this version writes {FORMAT}. "
                "Choose another --output."
            )
        return found

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than the folder was begun with.

        Raises:
            UsageError: They differ; names what differs.
        """
        found = self.settings()
        differing = sorted(
            name for name in found.keys() | settings.keys() if found.get(name) != settings.get(name)
        )
        if differing:
            raise UsageError(
                f"{self.path} holds clips prepared with another {' and another '.join(differing)}. "
                "Choose another --output, or give the same command again."
            )

    def write(self, path: Path, content: bytes) -> None:
        """A file, whole or not at all; what a killed process leaves lies in `unfinished`."""
        self.unfinished.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.unfinished / f"{path.name}.new"
        temporary.write_bytes(content)
        os.replace(temporary, path)

    def write_json(self, path: Path, value: Any) -> None:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
        self.write(path, text.encode())

    def part(self, shard: int, position: int) -> Path:
        """Where a finished clip lies until its shard is whole."""
        return self.unfinished / f"{shard:05d}" / f"{position:08d}.safetensors"

    def missing(self, shard: int, positions: range) -> list[int]:
        """The clips of a shard that are still to do."""
        if self.shard(shard).exists():
            return []
        folder = self.unfinished / f"{shard:05d}"
        there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        return [position for position in positions if self.part(shard, position).name not in there]

    def close(self, shard: int, positions: range) -> None:
        """Make a shard of its clips, all of which are there."""
        rows = [ClipRecord.unpack(self.part(shard, position).read_bytes()) for position in positions]
        self.write(self.shard(shard), pack_shard(rows))
        shutil.rmtree(self.unfinished / f"{shard:05d}", ignore_errors=True)

    def reopen(self, shard: int, failed: str) -> int:
        """Take a shard apart again, without its failed clips; returns how many those are."""
        rows = list(read_shard(self.shard(shard)))
        again = [row for row in rows if row.facts["status"] == failed]
        if again:
            for row in rows:
                if row.facts["status"] != failed:
                    self.write(self.part(shard, row.position), row.pack())
            (self.path / INDEX).unlink(missing_ok=True)
            self.shard(shard).unlink()
        return len(again)

    def shards(self) -> Iterator[Path]:
        """All finished shards, in order."""
        yield from sorted((self.path / SHARDS).glob("*.safetensors"))


TEXTS = ("id", "file", "caption", "split", "label", "status", "rule", "reason")
WHOLE = ("position", "line", "caption_row", "shard", "row", "width", "height", "sample_rate")
REAL = ("frame_rate_hz", "duration_s")


def write_index(folder: Folder) -> Iterator[dict[str, Any]]:
    """Write it, and hand out the rows on the way.

    Raises:
        PreparedFolderError: Shards differ in the shapes of their tensors.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tensors = tensor_kinds(folder)
    schema = _schema(list(folder.settings()["filters"]), list(tensors))
    schema = schema.with_metadata({"tensors": json.dumps(tensors, sort_keys=True)})
    folder.unfinished.mkdir(exist_ok=True)
    temporary = folder.unfinished / INDEX
    with pq.ParquetWriter(temporary, schema) as file:
        for number, path in enumerate(folder.shards()):
            rows = [{**facts, "shard": number} for facts in read_facts(path)]
            file.write_table(pa.Table.from_pylist(rows, schema))
            yield from rows
    temporary.replace(folder.path / INDEX)


def tensor_kinds(folder: Folder) -> dict[str, dict[str, Any]]:
    """Shape and type of each tensor of a clip, which all shards must agree on."""
    found: dict[str, dict[str, Any]] = {}
    for path in folder.shards():
        with safe_open(path, framework="np") as file:
            for name in file.keys():
                part = file.get_slice(name)
                kind = {"shape": part.get_shape()[1:], "dtype": part.get_dtype()}
                if found.setdefault(name, kind) != kind:
                    raise PreparedFolderError(
                        f"{path}: {name} is {kind}, elsewhere {found[name]}. Prepare them anew."
                    )
    return found


def _schema(filters: Sequence[str], tensors: Sequence[str]) -> Any:
    import pyarrow as pa

    kinds = {"keep": pa.bool_(), "score": pa.float64(), "reason": pa.string(), "rule": pa.string()}
    decision = pa.struct(list(kinds.items()))
    return pa.schema(
        [
            *((name, pa.string()) for name in TEXTS),
            *((name, pa.int64()) for name in WHOLE),
            *((name, pa.float64()) for name in REAL),
            ("onsets_s", pa.list_(pa.float64())),
            ("notes", pa.list_(pa.string())),
            ("decisions", pa.struct([(key, decision) for key in filters])),
            ("hashes", pa.struct([(name, pa.string()) for name in tensors])),
            ("norms", pa.struct([(name, pa.float64()) for name in tensors])),
        ]
    )
