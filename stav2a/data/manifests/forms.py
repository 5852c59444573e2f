"""The forms of manifests, how each is recognised, and how its lines are read."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.data.clip import SPLITS
from stav2a.data.manifest import ManifestError
from stav2a.data.manifests.lines import lines, rows

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv")
SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation", "valid": "validation", "eval": "test"}
# What other projects call our columns.
IDS = ("id", "youtube_id", "video_id")
CAPTIONS = ("caption", "captions")
FILES = ("file", "location", "video", "path")
KNOWN = "\n".join(
    (
        "  VGGSound:   a csv without a header: YouTube id, start in seconds, label, train or test",
        "  captions:   a csv with the columns id (or youtube_id) and caption; also split, label, file",
        "  MMAudio:    a tsv with the columns id and label, or id and caption",
        "  Tango:      a line of JSON a clip, with location (or video) and captions",
        "  a folder:   of videos",
    )
)


@dataclass(frozen=True)
class Listed:
    """What one line of a manifest says; empty where it says nothing.

    Args:
        line: Its number, from 1 on.
        id: The clip's name.
        file: Its video, relative to the folder of videos; empty: a file named after the id.
        caption: What the text encoder reads.
        split: "train", "validation" or "test".
        label: The class of its sound.
        fault: Why this line can't be a clip.
    """

    line: int
    id: str
    file: str = ""
    caption: str = ""
    split: str = ""
    label: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Manifest:
    """A recognised manifest, read anew at every call.

    Args:
        path: The file or folder.
        form: What it was recognised as.
        read: Its clips.
    """

    path: Path
    form: str
    read: Callable[[], Iterator[Listed]]

    def signature(self) -> str:
        """Changes with what it says."""
        digest = hashlib.sha256(self.form.encode())
        if self.path.is_dir():
            for each in self.read():
                digest.update(each.file.encode(errors="surrogateescape") + b"\0")
            return digest.hexdigest()
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def open_manifest(path: Path) -> Manifest:
    """Recognise a manifest.

    Raises:
        ManifestError: It is not there, empty, or of no known form; names what was found and what is known.
    """
    if path.is_dir():
        return Manifest(path, "folder", lambda: _folder(path))
    first = next((line for line in lines(path) if line.strip()), None)
    if first is None:
        raise ManifestError(f"{path}: empty. Expected one of\n{KNOWN}")
    if first.lstrip().startswith("{"):
        return Manifest(path, "jsonl", lambda: _jsonl(path))
    delimiter = "\t" if "\t" in first else ","
    header = next(rows(path, delimiter))
    if _is_vggsound(header):
        return Manifest(path, "vggsound", lambda: _vggsound(path))
    if _named(header, IDS) and (_named(header, CAPTIONS) or "label" in header or _named(header, FILES)):
        form = "tsv" if delimiter == "\t" else "csv"
        return Manifest(path, form, lambda: _table(path, delimiter, header))
    found = ", ".join(field.strip()[:40] for field in header[:8])
    raise ManifestError(f"{path}: begins with the columns {found}. Expected one of\n{KNOWN}")


def _named(header: list[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in header), None)


def _is_vggsound(row: list[str]) -> bool:
    return len(row) == 4 and row[1].strip().isdecimal() and row[3].strip() in ("train", "test")


def _vggsound(path: Path) -> Iterator[Listed]:
    for number, row in enumerate(rows(path, ","), start=1):
        if not _is_vggsound(row):
            yield Listed(number, row[0], fault="expected YouTube id, start in seconds, label, train or test")
            continue
        name, start, label, split = (field.strip() for field in row)
        yield _listed(number, {"id": f"{name}_{int(start):06d}", "label": label, "split": split})


def _table(path: Path, delimiter: str, header: list[str]) -> Iterator[Listed]:
    table = rows(path, delimiter)
    next(table)
    for number, row in enumerate(table, start=2):
        if len(row) != len(header):
            fault = f"{len(row)} fields where the header has {len(header)}"
            yield Listed(number, row[0], fault=fault)
            continue
        yield _listed(number, dict(zip(header, row, strict=True)))


def _jsonl(path: Path) -> Iterator[Listed]:
    for number, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as error:
            yield Listed(number, f"line {number}", fault=f"no JSON ({error})")
            continue
        if not isinstance(said, dict):
            yield Listed(number, f"line {number}", fault="JSON, but no object {…}")
            continue
        yield _listed(number, said)


def _folder(path: Path) -> Iterator[Listed]:
    for number, file in enumerate(sorted(_videos(path)), start=1):
        yield Listed(number, file.rpartition(".")[0], file)


def _videos(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in files:
            if Path(name).suffix.lower() in VIDEOS:
                yield (Path(root) / name).relative_to(folder).as_posix()


def _listed(line: int, said: Mapping[str, Any]) -> Listed:
    """A line with our names for what it says."""
    file = _text(said, FILES)
    name = _text(said, IDS) or Path(file).stem
    split = _text(said, ("split",))
    fault = "" if name else "neither an id nor a file"
    if split and split not in SPLIT_NAMES:
        fault = f"the split is {split!r}; expected one of {', '.join(SPLITS)}"
    return Listed(
        line,
        name or f"line {line}",
        file,
        _text(said, CAPTIONS),
        SPLIT_NAMES.get(split, ""),
        _text(said, ("label",)),
        fault,
    )


def _text(said: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these that is said; a list of captions gives its first."""
    for name in names:
        value = said.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if value is not None and str(value).strip():
            return str(value).strip()
    return ""
