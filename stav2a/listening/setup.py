"""A listening test on disk: clips paired across systems, and videos copied under names that reveal nothing.

A test is begun once, and continued by the same command.
"""

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stav2a.data.media import mux, probe, read_audio
from stav2a.evaluation.folders.pairing import files_in
from stav2a.listening.database import Database, ListenError, Video
from stav2a.utils.contents import file_hash
from stav2a.utils.files import exclusive
from stav2a.utils.progress import progress

DATABASE, COPIES = "ratings.sqlite", "copies"
VIDEO, SOUND = ".mp4", ".wav"
BROWSER_CODECS = ("h264", "vp9", "av1")  # that every current browser plays in an mp4
RATE_HZ = 48_000  # of the sound that is put on a picture of --videos
_LENGTH_RATE_HZ = 8_000  # enough to measure the duration of a sound
_CUT_S = 0.25  # less is the padding of codecs
_EXAMPLES = 4  # named in a message


@dataclass(frozen=True)
class ListeningTest:
    """An open test.

    Args:
        folder: Folder that holds all of it.
        systems: Names of the systems, as they were given when the test began.
        options: Options that must stay the same; folders may move.
        videos: Every system's version of every clip.
    """

    folder: Path
    systems: list[str]
    options: Mapping[str, Any]
    videos: list[Video]

    @property
    def clips(self) -> list[str]:
        return sorted({video.clip for video in self.videos})

    @property
    def database(self) -> Database:
        return Database(self.folder / DATABASE)

    def path(self, video: Video) -> Path:
        """The file of a video."""
        return self.folder / COPIES / f"{video.token}.mp4"


def begin_or_resume(
    folder: Path, systems: Mapping[str, Path], *, clips: int, seed: int, videos: Path | None = None
) -> tuple[ListeningTest, list[str]]:
    """The test in a folder, new or continued.

    Args:
        folder: Folder of the test.
        systems: Folder of each system's mp4s, or with `videos` of its wavs or mp4s.
        clips: Number of clips to draw.
        seed: Seed of the draw of clips, and of the order.
        videos: Folder of the mp4s whose picture all systems get, or None.

    Returns:
        The test, and remarks on its clips.

    Raises:
        ListenError: Folders that can't be paired, too few clips, a file that browsers don't play, or a test
            of other settings in the folder.
        MediaError: A file that can't be read, or has no sound.
        StorageError: The database can't be used.
    """
    options = {
        "--systems": sorted(systems),
        "--clips": clips,
        "--seed": seed,
        "--videos": "given" if videos else "not given",
    }
    with exclusive(folder / ".lock", f"listening test in {folder}"):
        paired, skipped = pair_folders(systems, videos)
        if (folder / DATABASE).exists():
            test = load(folder)
            _check_unchanged(test, options, paired)
            return test, []
        drawn = draw_clips(list(paired), skipped, clips, seed)
        remarks = [f"left out: {clip}, not in {', '.join(names)}" for clip, names in skipped.items()]
        partial = folder / ".copies"
        for left_over in (partial, folder / COPIES):  # of a killed start
            shutil.rmtree(left_over, ignore_errors=True)
        partial.mkdir()
        made: list[Video] = []
        with progress(len(drawn), "videos", "clip", leave=False) as bar:
            for clip in bar.counted(drawn):
                versions, more = _copy_versions(clip, paired[clip], partial)
                made += versions
                remarks += more
        partial.rename(folder / COPIES)
        Database(folder / DATABASE).create({"systems": list(systems), "told": options}, made)
    return load(folder), remarks


def load(folder: Path) -> ListeningTest:
    """The test in a folder.

    Raises:
        ListenError: There is none.
        StorageError: Its database can't be used.
    """
    if not (folder / DATABASE).is_file():
        raise ListenError(
            f"{folder}: no listening test in it (no {DATABASE}). Give the --output of `stav2a listen`."
        )
    stored, videos = Database(folder / DATABASE).read()
    return ListeningTest(folder, stored["systems"], stored["told"], videos)


class ClipFiles(NamedTuple):
    """The files that one system's version of a clip is made from.

    Args:
        own: The system's file.
        picture: Video that its sound is put on; None where the system's file brings its own.
    """

    own: Path
    picture: Path | None

    def content_hash(self) -> str:
        """Hash of the contents of both."""
        hashes = [file_hash(path) for path in (self.own, self.picture) if path is not None]
        return hashlib.sha256(bytes.fromhex("".join(hashes))).hexdigest()


def _check_unchanged(
    test: ListeningTest, options: Mapping[str, Any], paired: Mapping[str, Mapping[str, ClipFiles]]
) -> None:
    """A test continues as it began: its settings, and the contents of its files."""
    changed = [
        f"{name} was {_words(test.options[name])}, now {_words(value)}"
        for name, value in options.items()
        if value != test.options[name]
    ]
    for video in test.videos if not changed else ():
        if video.clip not in paired:
            changed.append(f"{video.clip} of {video.system} is not in the folders any more")
        elif paired[video.clip][video.system].content_hash() != video.source:
            changed.append(f"{video.clip} of {video.system} has other contents now")
    if changed:
        raise ListenError(
            f"{test.folder} holds a test of another set-up: {'; '.join(changed[:_EXAMPLES])}. "
            "Go on with the first settings, or choose another --output."
        )


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def unique_systems(pairs: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Folder of each system.

    Raises:
        ListenError: Two systems have one name; capitals make no difference.
    """
    for i, (name, _) in enumerate(pairs):
        for other, _ in pairs[:i]:
            if other.casefold() == name.casefold():
                raise ListenError(
                    f"--systems has {other!r} and {name!r}: each system needs a name of its own."
                )
    return dict(pairs)


def pair_folders(
    systems: Mapping[str, Path], videos: Path | None
) -> tuple[dict[str, dict[str, ClipFiles]], dict[str, list[str]]]:
    """Pair the files of all systems by name.

    Args:
        systems: Folder of each system's mp4s, or with `videos` of its wavs or mp4s.
        videos: Folder of the mp4s whose picture all systems get, or None.

    Returns:
        The files by clip and system, and for each clip that is not in all folders those that lack it; clips
        are sorted by name.

    Raises:
        ListenError: A folder is missing or empty, has a clip twice, or no clip is in all of them.
    """
    kinds = (VIDEO,) if videos is None else (SOUND, VIDEO)
    folders = {name: _files(f"--systems {name}", folder, kinds) for name, folder in systems.items()}
    if videos is not None:
        folders["--videos"] = _files("--videos", videos, (VIDEO,))
    clips = sorted(set().union(*folders.values()))
    lacking = {clip: [name for name, files in folders.items() if clip not in files] for clip in clips}
    if all(lacking.values()):
        examples = "; ".join(f"{name} has {min(files)!r}" for name, files in folders.items())
        raise ListenError(
            f"no clip is in all of the {len(folders)} folders ({examples}). Files are paired by their names "
            "without the ending: name them alike."
        )
    pictures = folders.get("--videos", {})
    paired = {
        clip: {name: ClipFiles(folders[name][clip], pictures.get(clip)) for name in systems}
        for clip in clips
        if not lacking[clip]
    }
    return paired, {clip: names for clip, names in lacking.items() if names}


def _files(option: str, folder: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """Files by clip, each of the first kind that there is."""
    found: dict[str, Path] = {}
    for kind in reversed(kinds):
        found |= files_in(folder, (kind,), option, ListenError)
    if not found and files_in(folder, (SOUND,), option, ListenError):
        raise ListenError(
            f"{option}: only sounds (wav) in {folder}. Add --videos DIR with the videos (mp4) that they "
            "belong to."
        )
    if not found:
        wanted = " or ".join(kind.removeprefix(".") for kind in kinds)
        raise ListenError(f"{option}: no {wanted} in {folder}. Give the folder of a system's clips.")
    return found


def draw_clips(
    clips: Sequence[str], skipped: Mapping[str, Sequence[str]], count: int, seed: int
) -> list[str]:
    """Draw clips without replacement; the same seed draws the same.

    Args:
        clips: Clips that all systems have, sorted.
        skipped: Folders that lack one of the others, for the message.
        count: Number of clips to draw.
        seed: Seed of the draw.

    Raises:
        ListenError: There are too few.
    """
    if count > len(clips):
        others = [f"{clip} is not in {', '.join(names)}" for clip, names in skipped.items()][:_EXAMPLES]
        raise ListenError(
            f"--clips {count}, but all systems have {len(clips)} in common"
            + (f" ({'; '.join(others)})" if others else "")
            + f". Write --clips {len(clips)}, or add clips."
        )
    drawn = np.random.default_rng(seed).choice(len(clips), size=count, replace=False)
    return sorted(clips[index] for index in drawn)


def _copy_versions(
    clip: str, versions: Mapping[str, ClipFiles], folder: Path
) -> tuple[list[Video], list[str]]:
    """Write all versions of a clip; returns them, and remarks on what systems could be recognised by."""
    tokens = {system: secrets.token_hex(16) for system in versions}
    lengths_s: dict[str, float] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for system, files in versions.items():
        target = folder / f"{tokens[system]}.mp4"
        info = probe(files.picture or files.own)
        if info.codec not in BROWSER_CODECS:
            raise ListenError(
                f"{files.picture or files.own}: its picture is {info.codec}, which browsers don't play. "
                f"Convert it to one of {', '.join(BROWSER_CODECS)}."
            )
        if files.picture:
            sound = read_audio(files.own, RATE_HZ)
            mux(files.picture, sound, RATE_HZ, target)
            sound_s = len(sound) / RATE_HZ
        else:
            sound_s = len(read_audio(files.own, _LENGTH_RATE_HZ)) / _LENGTH_RATE_HZ
            shutil.copyfile(files.own, target)
        lengths_s[system], sizes[system] = min(info.duration_s, sound_s), (info.width, info.height)

    shortest = min(lengths_s, key=lambda system: lengths_s[system])
    remarks = []
    if max(lengths_s.values()) - lengths_s[shortest] > _CUT_S:
        remarks.append(
            f"{clip}: all versions end after {lengths_s[shortest]:.2f} s, like that of {shortest}."
        )
    if len(set(sizes.values())) > 1:
        named = ", ".join(f"{system} {width}×{height}" for system, (width, height) in sizes.items())
        remarks.append(
            f"{clip}: the pictures differ in size ({named}), and systems may be recognised by it. "
            "--videos DIR puts all sounds on the same picture."
        )
    videos = [
        Video(tokens[system], clip, system, lengths_s[shortest], files.content_hash())
        for system, files in versions.items()
    ]
    return videos, remarks
