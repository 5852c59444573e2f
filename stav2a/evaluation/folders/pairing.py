"""Clips of folders: files paired by name, with a reason for each file that has no partner."""

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stav2a.data.manifest import ManifestError, control_in, rows
from stav2a.utils.errors import StaV2AError, UsageError

logger = logging.getLogger(__name__)

REFERENCE = "reference"
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg")
FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class PairedClip:
    """One clip: its real sound, and each system's.

    Args:
        id: The files' common name.
        files: `reference` and every system -> its file.
        video: The film, for AV-Align and for the page; None where there is none.
        caption: Text that the sound was generated from; None where it is not known.
    """

    id: str
    files: Mapping[str, Path]
    video: Path | None
    caption: str | None


@dataclass(frozen=True)
class SkippedClip:
    """A clip that is not in a figure, or is in it with a remark.

    Args:
        clip: Name of the clip.
        where: The folder or system, or the figure that the clip is missing in.
        reason: The reason, or the remark.
    """

    clip: str
    where: str
    reason: str


def pair(
    references: Path,
    generated: Mapping[str, Path],
    *,
    videos: Path | None = None,
    captions: Path | None = None,
) -> tuple[list[PairedClip], list[SkippedClip]]:
    """The clips that the references and all systems have, in the order of their names, and all others.

    Where a folder holds both a sound and a film of one name, the sound is taken.

    Args:
        references: Folder of the real sounds.
        generated: System -> its folder.
        videos: Folder of films; None looks among the references.
        captions: A CSV with the columns id and caption.

    Raises:
        UsageError: A folder that is not there or holds no sound; no clip that all have; no readable CSV.
    """
    folders = {REFERENCE: references, **generated}
    found = {name: _sounds_in(folder, name) for name, folder in folders.items()}
    films = files_in(videos or references, FILMS, "--videos" if videos else REFERENCE)
    texts = _captions(captions) if captions else {}
    everywhere = set.intersection(*(set(files) for files in found.values()))
    known = sorted(set().union(*found.values()))
    if unused := [clip for clip in texts if clip not in known]:
        count = f"{len(unused)} of {len(texts)}"
        logger.warning("note: %s: %s ids are no clip here, such as %r.", captions, count, unused[0])
    if not everywhere:
        counts = ", ".join(f"{name} {len(files)}" for name, files in found.items())
        raise UsageError(
            f"no name is in all folders ({counts} files). Files are paired by name: give the same clip the "
            "same name everywhere, such as a.wav and a.mp4."
        )
    clips = [
        PairedClip(
            clip, {name: files[clip] for name, files in found.items()}, films.get(clip), texts.get(clip)
        )
        for clip in known
        if clip in everywhere
    ]
    return clips, [
        SkippedClip(clip, name, f"no such file in {folders[name]}")
        for clip in known
        for name, files in found.items()
        if clip not in files
    ]


def _sounds_in(folder: Path, what: str) -> dict[str, Path]:
    """Sounds and films by their names; of a sound and a film of one name, the sound."""
    found = files_in(folder, FILMS, what) | files_in(folder, SOUNDS, what)
    if not found:
        raise UsageError(f"{what}: {folder} holds no file of the kinds {', '.join(SOUNDS + FILMS)}.")
    return found


def files_in(
    folder: Path, kinds: Sequence[str], what: str, error: type[StaV2AError] = UsageError
) -> dict[str, Path]:
    """Files of these kinds by their names, each of which may occur once.

    Raises:
        StaV2AError: No such folder, or two files of one name; `error` is its type, `what` its beginning.
    """
    if not folder.is_dir():
        fault = "a file, where a folder was expected" if folder.exists() else "no such folder"
        raise error(f"{what}: {fault}: {folder}.", advice="Give a folder of sounds or films.")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in kinds or file.name.startswith(".") or not file.is_file():
            continue
        clip = unicodedata.normalize("NFC", file.stem)  # one name, whichever form its accents have
        if other := found.get(clip):
            raise error(f"{what}: {other.name} and {file.name} are one clip by their names. Remove one.")
        found[clip] = file
    return found


def _captions(file: Path) -> dict[str, str]:
    try:
        table = list(rows(file, ","))
    except ManifestError as error:
        raise UsageError(f"--captions {error.message}", error.place, error.advice) from None
    columns = table[0][1] if table else []
    if len(table) < 2 or not {"id", "caption"} <= set(columns):
        held = ", ".join(columns) if len(table) > 1 else "nothing"
        raise UsageError(f"--captions {file}: holds {held}; expected the columns id and caption.")
    captions: dict[str, str] = {}
    for line, row in table[1:]:
        if len(row) != len(columns):
            raise UsageError(
                f"--captions {file}, line {line}: {len(row)} fields where the header has {len(columns)}. "
                "Put a caption with commas into quotes."
            )
        fields = dict(zip(columns, row, strict=True))
        clip, caption = unicodedata.normalize("NFC", fields["id"]), fields["caption"]
        if found := control_in(caption):
            raise UsageError(f"--captions {file}, line {line}: the control character {found!r}. Take it out.")
        if captions.setdefault(clip, caption) != caption:
            raise UsageError(
                f"--captions {file}, line {line}: a second caption for {clip!r}. Keep one a clip."
            )
    return {clip: caption for clip, caption in captions.items() if caption}
