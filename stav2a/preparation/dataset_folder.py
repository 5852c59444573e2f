"""The output folder: its files, what of it is finished, its index, and its export."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from stav2a.data.prepared.shards import (
    FORMAT,
    INDEX,
    KEPT,
    SETTINGS,
    SHARDS,
    TEXT,
    PreparedFolderError,
    pack_shard,
    read_facts,
    read_settings,
    read_shard,
    shard_fault,
)
from stav2a.preparation.plan import PreparationPlan
from stav2a.utils.errors import UsageError
from stav2a.utils.files import new_folder


@dataclass(frozen=True)
class DatasetFolder:
    """A folder that `stav2a prepare` fills. Its files appear whole; all else lies in `unfinished`."""

    path: Path

    @property
    def unfinished(self) -> Path:
        return self.path / "unfinished"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @cached_property
    def plan(self) -> PreparationPlan:
        return PreparationPlan(self.path / "plan.parquet")

    @property
    def finished(self) -> bool:
        whole = all(shard.is_file() for shard in self.shards())
        return whole and (self.path / INDEX).is_file() and not self.unfinished.exists()

    def shard(self, number: int) -> Path:
        return self.path / SHARDS / f"{number:05d}.safetensors"

    def shards(self) -> list[Path]:
        """The files of all shards, there or not."""
        return [self.shard(number) for number in range(self.plan.shards)]

    def text(self, number: int) -> Path:
        return self.path / TEXT / f"{number:05d}.safetensors"

    def settings(self) -> dict[str, Any]:
        """The settings that the folder was begun with.

        Raises:
            UsageError: The folder has another format.
            PreparedFolderError: The file is damaged.
        """
        found = read_settings(self.path / SETTINGS)
        if found.get("format") != FORMAT:
            raise UsageError(
                f"{self.path} was prepared in format {found.get('format')}, this version writes {FORMAT}. "
                "Choose another --output."
            )
        return found

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, whole or not at all; what a killed process leaves lies in `unfinished`."""
        self.unfinished.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.unfinished / f"{path.name}.new"
        temporary.write_bytes(content)
        os.replace(temporary, path)

    def write_json(self, path: Path, value: Any) -> None:
        self.write(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())

    def part(self, shard: int, position: int) -> Path:
        """The file of a finished clip until its shard is whole."""
        return self.unfinished / f"{shard:05d}" / f"{position:08d}.safetensors"

    def missing(self, shard: int) -> list[int]:
        """Positions of a shard's clips that are still to prepare."""
        if self.shard(shard).exists():
            return []
        folder = self.unfinished / f"{shard:05d}"
        there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        positions = self.plan.positions(shard)
        return [position for position in positions if self.part(shard, position).name not in there]

    def close(self, shard: int) -> None:
        """Make a shard of its clips, all of which are finished."""
        parts = (self.part(shard, position) for position in self.plan.positions(shard))
        self.write(self.shard(shard), pack_shard([row for part in parts for row in read_shard(part)]))
        shutil.rmtree(self.unfinished / f"{shard:05d}", ignore_errors=True)

    def remove_damaged(self, number: int) -> list[str]:
        """Remove a shard, or finished clips of an unfinished one, with a fault; the faults."""
        shard, positions = self.shard(number), self.plan.positions(number)
        expected: dict[Path, Sequence[int]] = {self.part(number, each): [each] for each in positions}
        if shard.is_file():
            expected = {shard: positions}
        faults = {path: shard_fault(path, held) for path, held in expected.items() if path.is_file()}
        for path in (path for path, fault in faults.items() if fault):
            path.unlink()
        return [f"{path}: {fault}" for path, fault in faults.items() if fault]

    def reopen(self, again: Callable[[Mapping[str, Any]], bool]) -> int:
        """Take shards apart, without those clips whose facts say so; returns the number of these."""
        total = 0
        for number in range(self.plan.shards):
            if not self.shard(number).exists():
                for part in self.part(number, 0).parent.glob("*.safetensors"):
                    if any(map(again, read_facts(part))):
                        part.unlink()
                        total += 1
            elif left_out := sum(map(again, read_facts(self.shard(number)))):
                for row in read_shard(self.shard(number)):
                    if not again(row.facts):
                        self.write(self.part(number, row.position), row.pack())
                (self.path / INDEX).unlink(missing_ok=True)
                self.shard(number).unlink()
                total += left_out
        return total


TEXTS = ("id", "file", "caption", "split", "label", "status", "rule", "reason")
WHOLE = ("position", "line", "caption_row", "shard", "row", "width", "height", "sample_rate")
REAL = ("frame_rate_hz", "duration_s")


def write_index(folder: DatasetFolder) -> Iterator[dict[str, Any]]:
    """Write the index, and yield its rows on the way.

    Raises:
        PreparedFolderError: Shards differ in the shapes of their tensors.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tensors = _tensor_kinds(folder)
    decision = pa.struct(
        [("keep", pa.bool_()), ("score", pa.float64()), ("reason", pa.string()), ("rule", pa.string())]
    )
    note = pa.struct([("kind", pa.string()), ("values", pa.list_(pa.float64()))])
    columns = [
        *((name, pa.string()) for name in TEXTS),
        *((name, pa.int64()) for name in WHOLE),
        *((name, pa.float64()) for name in REAL),
        ("onsets_s", pa.list_(pa.float64())),
        ("notes", pa.list_(note)),
        ("decisions", pa.struct([(key, decision) for key in folder.settings()["filters"]])),
    ]
    if tensors:  # Parquet has no empty struct
        columns.append(("hashes", pa.struct([(name, pa.string()) for name in tensors])))
        columns.append(("norms", pa.struct([(name, pa.float64()) for name in tensors])))
    schema = pa.schema(columns, metadata={"tensors": json.dumps(tensors, sort_keys=True)})
    folder.unfinished.mkdir(exist_ok=True)
    temporary = folder.unfinished / INDEX
    with pq.ParquetWriter(temporary, schema, write_page_checksum=True) as file:
        for number, path in enumerate(folder.shards()):
            rows = [{**facts, "shard": number} for facts in read_facts(path)]
            file.write_table(pa.Table.from_pylist(rows, schema))
            yield from rows
    temporary.replace(folder.path / INDEX)


def _tensor_kinds(folder: DatasetFolder) -> dict[str, dict[str, Any]]:
    """Shape and type of each tensor of a clip, on which all shards must agree."""
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


def export_webdataset(prepared: DatasetFolder, target: Path) -> None:
    """Write the kept clips as tar files of the webdataset library, one per shard, into a new folder.

    Clip 12 becomes `00000012.json` and a `00000012.NAME.npy` for each of its tensors.

    Raises:
        UsageError: The target exists already.
    """
    with new_folder(target) as folder:
        for shard in prepared.shards():
            with tarfile.open(folder / f"{shard.stem}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
                for row in read_shard(shard):
                    if row.facts["status"] != KEPT:
                        continue
                    files = {"json": json.dumps(dict(row.facts), sort_keys=True).encode()}
                    for name, tensor in sorted(row.tensors.items()):
                        content = io.BytesIO()
                        np.save(content, tensor)
                        files[f"{name}.npy"] = content.getvalue()
                    for name, packed in files.items():
                        entry = tarfile.TarInfo(f"{row.position:08d}.{name}")
                        entry.size = len(packed)
                        tar.addfile(entry, io.BytesIO(packed))
