"""The output folder: what is in it, what is finished, and what is kept of an unfinished shard."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.data.cache.layout import FORMAT, INDEX, SETTINGS, SHARDS, TEXT, Row, pack_shard, read_shard
from stav2a.errors import UsageError
from stav2a.prepare.plan import Plan


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
    def plan(self) -> Plan:
        return Plan(self.path / "plan.parquet")

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
        rows = [Row.unpack(self.part(shard, position).read_bytes()) for position in positions]
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
