"""One prepared clip, and a shard of them: tensors with what is known of each, in one file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from stav2a.utils.errors import StaV2AError

FORMAT = 2  # 1 had the notes on a clip as text; both are read
KEPT, DROPPED, FAILED = "kept", "dropped", "failed"
SETTINGS, INDEX, SHARDS, TEXT = "prepared.json", "index.parquet", "shards", "text"
FACTS = "rows"  # the one entry of a file's metadata: several would be written in any order


class PreparedFolderError(StaV2AError):
    """Prepared clips that are not there, damaged, or made for something else."""


@dataclass(frozen=True)
class ClipRecord:
    """One clip.

    Args:
        facts: What JSON can hold: `position` in the manifest, id, status, decisions, …
        tensors: By name; none where nobody will train on the clip.
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
        """What `pack` made."""
        length = int.from_bytes(content[:8], "little")
        (facts,) = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FACTS])
        return cls(facts, load(content))


def pack_shard(rows: Sequence[ClipRecord]) -> bytes:
    """Clips stacked into the content of one file. Those with tensors get their `row`, hashes and norms.

    Raises:
        PreparedFolderError: Tensors of one name differ in shape or type.
    """
    whole = [row for row in rows if row.tensors]
    tensors = {name: _stacked(name, whole) for name in (whole[0].tensors if whole else ())}
    places = {row.position: place for place, row in enumerate(whole)}
    facts = [{**row.facts, "row": places.get(row.position), **_sums(row)} for row in rows]
    return save(tensors, {FACTS: _json(facts)})


def read_facts(path: Path) -> list[dict[str, Any]]:
    """What a shard knows of its clips, without their tensors.

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


def _sums(row: ClipRecord) -> dict[str, Any]:
    return {
        "hashes": {name: digest(tensor) for name, tensor in row.tensors.items()},
        "norms": {name: norm(tensor) for name, tensor in row.tensors.items()},
    }


def _stacked(name: str, rows: Sequence[ClipRecord]) -> np.ndarray:
    kinds = {(row.tensors[name].shape, str(row.tensors[name].dtype)) for row in rows}
    if len(kinds) > 1:
        raise PreparedFolderError(
            f"{name} comes in different shapes: {sorted(kinds)}. Every clip must have the same."
        )
    return np.stack([row.tensors[name] for row in rows])


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


TEXTS_IN_A_FILE = 256


def pack_texts(captions: Sequence[str], embeddings: Sequence[np.ndarray]) -> bytes:
    """The content of a file: all tokens one after the other, and how many each caption has.

    Shapes:
        embeddings (K_i, D) each
    """
    lengths = np.array([len(each) for each in embeddings], np.int64)
    told = json.dumps(list(captions))
    return save({"e_text": np.concatenate(embeddings), "lengths": lengths}, {"captions": told})


class PackedTexts:
    """What `pack_texts` made; embeddings stay on disk until one is asked for, by its number.

    Args:
        path: The file.

    Shapes:
        a number -> (K_i, D) float16
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        file = safe_open(path, framework="np")
        self._ends = np.cumsum(file.get_tensor("lengths")).tolist()
        self._tokens = file.get_slice("e_text")

    def __getitem__(self, place: int) -> np.ndarray:
        return self._tokens[self._ends[place - 1] if place else 0 : self._ends[place]]
