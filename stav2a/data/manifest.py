"""Lists of a user's own clips: the csv of `dataset.manifest`, and the manifests of other projects."""

import csv
import hashlib
import json
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.data.clip import SPLITS, Clip
from stav2a.registry import register
from stav2a.utils.contents import Contents
from stav2a.utils.errors import StaV2AError
from stav2a.utils.shipped import doc

LONGEST = 1_000_000  # characters of a line
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
REQUIRED = ("id", "caption", "split", "file")


logger = logging.getLogger(__name__)


class ManifestError(StaV2AError):
    """A manifest that can't be read, or has a line that can't be a clip."""


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, one at a time.

    Raises:
        ManifestError: It can't be read, is no UTF-8, or has a line longer than any of a manifest.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            while line := file.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise ManifestError(
                        f"{path}: a line of more than {LONGEST} characters: this is no manifest. "
                        "Give a csv, tsv or jsonl with a line a clip."
                    )
                yield line
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not in UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise ManifestError(
            f"{path}: can't be read ({error.strerror}). Give a manifest, or a folder."
        ) from None


def rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv or tsv that are not empty, each with the number of its first line in the file.

    Raises:
        ManifestError: As `lines`, or where a quote opens a field and does not close it, or closes it after
            lines that look like rows.
    """
    csv.field_size_limit(LONGEST)
    table = csv.reader(lines(path), delimiter=delimiter, strict=True)
    width, begins_row = 0, re.compile(rf"[^\s{delimiter}]+{delimiter}[^ ]")
    while True:
        first = table.line_num + 1
        try:
            row = next(table, None)
        except csv.Error as error:
            raise ManifestError(
                f"{path}, line {first}: a quote opens a field that does not end with one ({error}). "
                'Write "a ""quoted"" word" for a field with quotes, and close each.'
            ) from None
        if row is None:
            return
        width = width or len(row)
        inner = [line for field in row for line in field.split("\n")[1:]]
        # As wide as the header, and an id first; a comma of a sentence has a space behind it.
        if any(line.count(delimiter) == width - 1 and begins_row.match(line) for line in inner):
            raise ManifestError(
                f"{path}, line {first}: a quote opens a field and closes after lines that look like rows, in "
                f'line {table.line_num}. Write "" for a quote inside a quoted field. If the lines are of the '
                "field, join them."
            )
        if any(field.strip() for field in row):
            yield first, row


def control_in(text: str) -> str:
    r"""The first control character of a text that is no white space; empty where there is none.

    Example:
        >>> control_in("a dog\0barks"), control_in("two\nlines")
        ('\x00', '')
    """
    found = CONTROL.search(text)
    return found[0] if found else ""


def _check_columns(path: Path, columns: list[str]) -> None:
    repeated = [name for name, count in Counter(columns).items() if name.strip() and count > 1]
    if repeated:
        raise ManifestError(f"{path}: the column {repeated[0]!r} occurs twice. Keep one.")


@register("dataset", "manifest")
class ManifestDataset:
    """Clips listed in a csv with the columns id, caption, split and file; label is for a classifier.

    Args:
        file: The csv, in UTF-8.
        videos: Folder that the column `file` is relative to; None is the csv's own folder.

    Raises:
        ManifestError: The csv is missing, lacks columns, or has a row that can't be a clip.
    """

    def __init__(self, *, file: str, videos: str | None = None) -> None:
        self.file = Path(file)
        self.videos = Path(videos) if videos is not None else self.file.parent

    def clips(self, folder: Path) -> list[Clip]:
        """The clips in the csv's order; `folder` is not needed, as nothing is made."""
        if not self.file.is_file():
            raise ManifestError(
                f"dataset.manifest.file = {str(self.file)!r}: there is no such file. Expected a csv with the "
                f"columns {', '.join(REQUIRED)}; {doc('data.md')} describes it."
            )
        (_, columns), *table = list(rows(self.file, ",")) or [(1, [])]
        _check_columns(self.file, columns)
        missing = [name for name in REQUIRED if name not in columns]
        if missing:
            raise ManifestError(
                f"{self.file}: has the columns {', '.join(columns) or 'none'}; "
                f"expected {', '.join(REQUIRED)}. Add {', '.join(missing)}."
            )
        if not table:
            raise ManifestError(f"{self.file}: lists no clip. Add a row for each.")
        for line, row in table:
            if len(row) != len(columns):
                fault = f"{len(row)} fields where the header has {len(columns)}"
                raise ManifestError(f"{self.file}, line {line}: {fault}. Quote a field that holds a comma.")
        named = [dict(zip(columns, row, strict=True)) for _, row in table]
        repeated = [name for name, count in Counter(row["id"] for row in named).items() if count > 1]
        if repeated:
            raise ManifestError(f"{self.file}: the id {repeated[0]!r} occurs twice. Give each clip its own.")
        return [self._clip(row, line) for row, (line, _) in zip(named, table, strict=True)]

    def identity(self, contents: Contents) -> list[list[str | None]]:
        """The rows, each with the hash of its file's content instead of its name."""
        clips = self.clips(self.file.parent)
        hashes = contents.of_files(clip.video for clip in clips)
        return [
            [clip.id, clip.caption, clip.split, clip.label, found]
            for clip, found in zip(clips, hashes, strict=True)
        ]

    def _clip(self, row: Mapping[str, str], line: int) -> Clip:
        if not row["id"].strip():
            raise ManifestError(f"{self.file}, line {line}: the id is empty. Give each clip its own.")
        if row["split"] not in SPLITS:
            raise ManifestError(
                f"{self.file}, line {line}: the split is {row['split']!r}; "
                f"expected one of {', '.join(SPLITS)}."
            )
        for column, text in row.items():
            if found := control_in(text):
                raise ManifestError(
                    f"{self.file}, line {line}: the {column} holds the control character {found!r}. "
                    "Take it out."
                )
        video = self.videos / row["file"]
        if not video.is_file():
            raise ManifestError(
                f"{self.file}, line {line}: there is no file {video}. Check dataset.manifest.videos."
            )
        return Clip(row["id"], video, row["caption"], row["split"], label=row.get("label") or None)


VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv")
SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation", "valid": "validation", "eval": "test"}

# Other projects' names of our columns.
IDS = ("id", "youtube_id", "video_id")
CAPTIONS = ("caption", "captions")
FILES = ("file", "location", "video", "path")
CLIP_OF_VIDEO = re.compile(r"(.{11})_(\d+)")  # a YouTube id and a start
STARTS = ("start", "start_time", "start_seconds")
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
    """One line of a manifest; fields that it lacks are empty.

    Args:
        line: Number of the line, from 1 on.
        id: Name of the clip.
        file: Video, relative to the folder of videos; empty for a file named after the id.
        caption: Input of the text encoder.
        split: "train", "validation" or "test".
        label: Class of the sound.
        fault: Reason why this line can't be a clip.
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
    """A recognised manifest.

    Args:
        path: The file or folder.
        form: Recognised form.
        read: Function that reads the clips, anew at every call.
    """

    path: Path
    form: str
    read: Callable[[], Iterator[Listed]]

    def signature(self) -> str:
        """Hash of the content."""
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
        ManifestError: It is missing, empty, or of no known form.
    """
    if path.is_dir():
        return Manifest(path, "folder", lambda: _folder(path))
    first = next((line for line in lines(path) if line.strip()), "")
    if first.lstrip().startswith("{"):
        return Manifest(path, "jsonl", lambda: _jsonl(path))
    delimiter = "\t" if "\t" in first else ","
    _, header = next(rows(path, delimiter), (0, []))
    if not header:
        raise ManifestError(f"{path}: empty. Expected one of\n{KNOWN}")
    if _is_vggsound(header):
        return Manifest(path, "vggsound", lambda: _vggsound(path))
    if {*header} & {*IDS} and {*header} & {*CAPTIONS, *FILES, "label"}:
        _check_columns(path, header)
        form = "tsv" if delimiter == "\t" else "csv"
        return Manifest(path, form, lambda: _table(path, delimiter, header))
    found = ", ".join(field.strip()[:40] for field in header[:8])
    raise ManifestError(f"{path}: begins with the columns {found}. Expected one of\n{KNOWN}")


def _is_vggsound(row: list[str]) -> bool:
    return len(row) == 4 and row[1].strip().isdecimal() and row[3].strip() in ("train", "test")


def _vggsound(path: Path) -> Iterator[Listed]:
    for number, row in rows(path, ","):
        if not _is_vggsound(row):
            yield Listed(number, row[0], fault="expected YouTube id, start in seconds, label, train or test")
        else:
            name, start, label, split = (field.strip() for field in row)
            yield _listed(number, {"id": f"{name}_{int(start):06d}", "label": label, "split": split})


def _table(path: Path, delimiter: str, header: list[str]) -> Iterator[Listed]:
    table = rows(path, delimiter)
    next(table)
    for number, row in table:
        if len(row) != len(header):
            yield Listed(number, row[0], fault=f"{len(row)} fields where the header has {len(header)}")
        else:
            yield _listed(number, dict(zip(header, row, strict=True)))


def _jsonl(path: Path) -> Iterator[Listed]:
    for number, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            listed = _listed(number, fields) if isinstance(fields, dict) else None
        except ManifestError as error:
            listed = Listed(number, f"line {number}", fault=str(error))
        except ValueError as error:
            listed = Listed(number, f"line {number}", fault=f"no JSON ({error})")
        yield listed or Listed(number, f"line {number}", fault="JSON, but no object {…}")


def _folder(path: Path) -> Iterator[Listed]:
    files = [
        (Path(root) / name).relative_to(path).as_posix()
        for root, _, names in os.walk(path)
        for name in names
        if Path(name).suffix.lower() in VIDEOS
    ]
    for number, file in enumerate(sorted(files), start=1):
        yield Listed(number, file.rpartition(".")[0], file)


def _listed(line: int, fields: Mapping[str, Any]) -> Listed:
    """A line by our names of its columns."""
    file = _text(fields, FILES)
    name = _text(fields, IDS) or Path(file).stem
    start = _text(fields, STARTS)  # of the clip in its video, as AudioCaps and VGGSound have it
    if name and not file and not CLIP_OF_VIDEO.fullmatch(name) and start.replace(".", "", 1).isdecimal():
        name = f"{name}_{int(float(start)):06d}"
    split = _text(fields, ("split",))
    fault = "" if name else "neither an id nor a file"
    for what, text in (("id", name), ("file", file), ("caption", _text(fields, CAPTIONS))):
        if found := control_in(text):
            fault = f"its {what} holds the control character {found!r}"
    if split and split not in SPLIT_NAMES:
        fault = f"the split is {split!r}; expected one of {', '.join(SPLITS)}"
    return Listed(
        line,
        name or f"line {line}",
        file,
        _text(fields, CAPTIONS),
        SPLIT_NAMES.get(split, ""),
        _text(fields, ("label",)),
        fault,
    )


def _text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these columns that is not empty; a list of captions gives its first.

    Raises:
        ManifestError: Its value is neither text nor a number.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise ManifestError(f"{name} is {str(value)[:40]}; expected text or a number")
        if value is not None and str(value).strip():
            return str(value).strip()
    return ""


class Captions:
    """Captions by id, from a file of their own (such as Auto-ACD's for VGGSound).

    `abcdefghijk_000030` and `abcdefghijk_30` are the same clip; an id without a start stands for all clips of
    its video.

    Args:
        path: A manifest whose lines have an id and a caption.

    Raises:
        ManifestError: It holds no caption, or two for one id.
    """

    def __init__(self, path: Path) -> None:
        self.by_id: dict[str, str] = {}  # by canonical id
        self._used: set[str] = set()
        for each in open_manifest(path).read():
            if each.fault:
                logger.warning("%s, line %d is left out: %s.", path, each.line, each.fault)
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
        """The caption of a clip, if there is one."""
        parts = CLIP_OF_VIDEO.fullmatch(name)
        names = [_canonical(name), *([parts[1]] if parts else [])]
        found = next((each for each in names if each in self.by_id), None)
        if found is None:
            return None
        self._used.add(found)
        return self.by_id[found]

    def unused(self) -> list[str]:
        """Ids whose caption no clip has asked for."""
        return [name for name in self.by_id if name not in self._used]


def _canonical(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    parts = CLIP_OF_VIDEO.fullmatch(name)
    return f"{parts[1]}_{int(parts[2])}" if parts else name
