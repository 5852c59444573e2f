"""Format of prepared clips: shards of clips with their tensors and facts, and files of text embeddings."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from stav2a.utils.errors import USAGE, StaV2AError

FORMAT = 2  # 1 had the notes on a clip as text; both are read
KEPT, DROPPED, FAILED = "kept", "dropped", "failed"
SETTINGS, INDEX, SHARDS, TEXT = "prepared.json", "index.parquet", "shards", "text"
TEXTS_IN_A_FILE = 256
FACTS = "rows"  # the one entry of a file's metadata: several would be written in any order


class PreparedFolderError(StaV2AError):
    """Prepared clips that are missing, damaged, or made for something else."""

    exit_code = USAGE


@dataclass(frozen=True)
class ClipRecord:
    """One clip.

    Args:
        facts: Facts as JSON values: `position` in the manifest, id, status, decisions, …
        tensors: Tensors by name; none where no stage trains on the clip.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def position(self) -> int:
        return self.facts["position"]

    def pack(self) -> bytes:
        """The clip as the content of a safetensors file; the same bytes for the same clip."""
        return save(dict(self.tensors), {FACTS: _json([self.facts])})

    @classmethod
    def unpack(cls, content: bytes) -> "ClipRecord":
        """Read the content that `pack` made."""
        length = int.from_bytes(content[:8], "little")
        (facts,) = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FACTS])
        return cls(facts, load(content))


def pack_shard(rows: Sequence[ClipRecord]) -> bytes:
    """Stack clips into the content of one file. Those with tensors get their `row`, hashes and norms.

    Raises:
        PreparedFolderError: Tensors of one name differ in shape or type.
    """
    whole = [row for row in rows if row.tensors]
    tensors = {}
    for name in whole[0].tensors if whole else ():
        kinds = {(row.tensors[name].shape, str(row.tensors[name].dtype)) for row in whole}
        if len(kinds) > 1:
            raise PreparedFolderError(
                f"{name} comes in different shapes: {sorted(kinds)}. Every clip must have the same."
            )
        tensors[name] = np.stack([row.tensors[name] for row in whole])
    places = {row.position: place for place, row in enumerate(whole)}
    facts = [
        {
            **row.facts,
            "row": places.get(row.position),
            "hashes": {name: digest(tensor) for name, tensor in row.tensors.items()},
            "norms": {name: norm(tensor) for name, tensor in row.tensors.items()},
        }
        for row in rows
    ]
    return save(tensors, {FACTS: _json(facts)})


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a folder was prepared with.

    Raises:
        PreparedFolderError: The file is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise PreparedFolderError(
            f"{path}: damaged ({error}), so that it is not known how the clips were made. "
            "Prepare them in another folder."
        ) from None


def read_facts(path: Path) -> list[dict[str, Any]]:
    """The facts of a shard's clips, without their tensors.

    Raises:
        PreparedFolderError: It is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            return json.loads(file.metadata()[FACTS])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise PreparedFolderError(
            f"{path}: damaged ({error}). Delete it and give `stav2a prepare` again."
        ) from None


def shard_fault(path: Path, positions: Sequence[int]) -> str:
    """Fault of a shard that shall hold the clips of these positions; empty where there is none."""
    try:
        facts = read_facts(path)
        if [each["position"] for each in facts] != list(positions):
            return "it holds other clips"
        with safe_open(path, framework="np") as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                for each in facts:
                    if each["row"] is not None and digest(tensor[each["row"]]) != each["hashes"][name]:
                        return f"{name} of row {each['row']} is not what was written"
    except (PreparedFolderError, SafetensorError, OSError, KeyError, TypeError, IndexError) as error:
        return f"it can't be read ({error})"
    return ""


def read_shard(path: Path) -> Iterator[ClipRecord]:
    """The clips of a shard, one at a time."""
    facts = read_facts(path)
    with safe_open(path, framework="np") as file:
        for each in facts:
            place = each["row"]
            own = {name: value for name, value in each.items() if name not in ("row", "hashes", "norms")}
            names = file.keys() if place is not None else ()
            yield ClipRecord(own, {name: file.get_slice(name)[place] for name in names})


def digest(tensor: np.ndarray) -> str:
    """A short hash of a tensor's numbers."""
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()[:16]


def norm(tensor: np.ndarray) -> float:
    """Root of the mean square of a tensor's numbers."""
    return float(np.sqrt(np.mean(np.square(tensor, dtype=np.float64))))


def pack_texts(captions: Sequence[str], embeddings: Sequence[np.ndarray]) -> bytes:
    """The content of a file of text embeddings: all tokens in a row, and the number of each caption's tokens.

    Shapes:
        embeddings (K_i, D) each
    """
    lengths = np.array([len(each) for each in embeddings], np.int64)
    tensors = {"e_text": np.concatenate(embeddings), "lengths": lengths}
    return save(tensors, {"captions": json.dumps(list(captions))})
