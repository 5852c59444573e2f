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

FORMAT = 3  # 2 had no hashes of facts and texts, 1 the notes on a clip as text; the reader reads all
KEPT, DROPPED, FAILED = "kept", "dropped", "failed"
SETTINGS, INDEX, SHARDS, TEXT = "prepared.json", "index.parquet", "shards", "text"
TEXTS_IN_A_FILE = 256
FACTS = "rows"  # the one entry of a file's metadata: several would be written in any order
HASH = "hash"  # of all other facts of a row; of a caption's embedding
AGAIN = "Delete the file and give `stav2a prepare` again: it makes what is missing."
UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError)


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
        """The clip as the content of a shard of one clip; the same bytes for the same clip."""
        return pack_shard([self])

    @classmethod
    def unpack(cls, content: bytes) -> "ClipRecord":
        """Read the content that `pack` made."""
        length = int.from_bytes(content[:8], "little")
        (row,) = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FACTS])
        return cls(_own(row), {name: stacked[0] for name, stacked in load(content).items()})


def pack_shard(rows: Sequence[ClipRecord]) -> bytes:
    """Stack clips into the content of one file.

    Those with tensors get their `row`, hashes and norms, all a hash of their facts.

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
    written = [
        {
            **row.facts,
            "row": places.get(row.position),
            "hashes": {name: digest(tensor) for name, tensor in row.tensors.items()},
            "norms": {name: norm(tensor) for name, tensor in row.tensors.items()},
        }
        for row in rows
    ]
    return save(tensors, {FACTS: _json([{**row, HASH: _facts_hash(row)} for row in written])})


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a clip without those that `pack_shard` adds."""
    return {name: value for name, value in row.items() if name not in ("row", "hashes", "norms", HASH)}


def _facts_hash(row: Mapping[str, Any]) -> str:
    return _hash(_json({name: value for name, value in row.items() if name != HASH}).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


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
        rows = _rows(path)
        fault = _facts_fault(rows)
    except UNREADABLE as error:
        raise PreparedFolderError(f"{path}: damaged ({error}). {AGAIN}") from None
    if fault:
        raise PreparedFolderError(f"{path}: {fault}. {AGAIN}")
    return [{name: value for name, value in row.items() if name != HASH} for row in rows]


def _rows(path: Path) -> list[dict[str, Any]]:
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()[FACTS])


def _facts_fault(rows: Sequence[Mapping[str, Any]]) -> str:
    changed = (number for number, row in enumerate(rows) if row[HASH] != _facts_hash(row))
    return next((f"the facts of clip {number} are not what was written" for number in changed), "")


def shard_fault(path: Path, positions: Sequence[int]) -> str:
    """Fault of a shard that shall hold the clips of these positions; empty where there is none."""
    try:
        rows = _rows(path)
        if fault := _facts_fault(rows):
            return fault
        if [row["position"] for row in rows] != list(positions):
            return "it holds other clips"
        with safe_open(path, framework="np") as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                for row in rows:
                    if row["row"] is not None and digest(tensor[row["row"]]) != row["hashes"][name]:
                        return f"{name} of row {row['row']} is not what was written"
    except UNREADABLE as error:
        return f"it can't be read ({error})"
    return ""


def read_shard(path: Path) -> Iterator[ClipRecord]:
    """The clips of a shard, one at a time."""
    rows = read_facts(path)
    with safe_open(path, framework="np") as file:
        for row in rows:
            place = row["row"]
            names = file.keys() if place is not None else ()
            yield ClipRecord(_own(row), {name: file.get_slice(name)[place] for name in names})


def digest(tensor: np.ndarray) -> str:
    """A short hash of a tensor's numbers."""
    return _hash(np.ascontiguousarray(tensor).tobytes())


def norm(tensor: np.ndarray) -> float:
    """Root of the mean square of a tensor's numbers."""
    return float(np.sqrt(np.mean(np.square(tensor, dtype=np.float64))))


def pack_texts(captions: Sequence[str], embeddings: Sequence[np.ndarray]) -> bytes:
    """The content of a file of text embeddings: all tokens in a row, and the number of each caption's tokens.

    Its metadata has each caption with a hash.

    Shapes:
        embeddings (K_i, D) each
    """
    lengths = np.array([len(each) for each in embeddings], np.int64)
    tensors = {"e_text": np.concatenate(embeddings), "lengths": lengths}
    named = zip(captions, embeddings, strict=True)
    return save(tensors, {FACTS: _json([_text_row(caption, tokens) for caption, tokens in named])})


def _text_row(caption: str, tokens: np.ndarray) -> dict[str, str]:
    return {"caption": caption, HASH: digest(tokens)}


@dataclass(frozen=True)
class TextFile:
    """A file that `pack_texts` made.

    Args:
        ends: Where each caption's tokens begin in `tokens`, and where the last one's end.
        tokens: All tokens, which stay on disk.
        rows: Each caption, with a hash of its embedding; none in a file of format 1 or 2.
    """

    ends: Sequence[int]
    tokens: Any
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def open(cls, path: Path) -> "TextFile":
        """Open a file.

        Raises:
            PreparedFolderError: It is damaged.
        """
        try:
            file = safe_open(path, framework="np")
            rows = json.loads(file.metadata().get(FACTS, "[]"))
            ends = [0, *np.cumsum(file.get_tensor("lengths")).tolist()]
            return cls(ends, file.get_slice("e_text"), rows)
        except UNREADABLE as error:
            raise PreparedFolderError(f"{path}: damaged ({error}). {AGAIN}") from None

    def embedding(self, place: int) -> np.ndarray:
        """Embedding (K, D) of a caption by its place in the file."""
        return self.tokens[self.ends[place] : self.ends[place + 1]]

    def holds(self, place: int, caption: str) -> bool:
        """True where this caption and its embedding are at a place in the file, as they were written."""
        try:
            return self.rows[place] == _text_row(caption, self.embedding(place))
        except UNREADABLE:
            return False


def text_fault(path: Path, captions: Sequence[str]) -> str:
    """Fault of a file of text embeddings that shall hold these captions; empty where there is none."""
    try:
        file = TextFile.open(path)
    except PreparedFolderError:
        return "it can't be read"
    if len(file.rows) != len(captions):
        return "it holds other captions"
    changed = (place for place, caption in enumerate(captions) if not file.holds(place, caption))
    return next((f"e_text of its caption {place} is not what was written" for place in changed), "")
