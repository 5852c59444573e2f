"""The videos that are served: copies under names that tell nothing, all of a clip heard for one duration."""

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stav2a.data.media import mux, probe, read_audio
from stav2a.utils.errors import StaV2AError
from stav2a.utils.files import atomic


class ListenError(StaV2AError):
    """A folder, a name or a rating that can't be used."""


class StorageError(ListenError):
    """The database of ratings can't be read or written."""


VIDEO, SOUND = ".mp4", ".wav"
_NAMED = 3  # clips named as examples


@dataclass(frozen=True)
class Material:
    """The clips that every system has.

    Args:
        files: System -> clip -> its file.
        pictures: Clip -> the video that all its sounds are put on; None where each file brings its own.
        left_out: Clip -> which folders lack it.
    """

    files: Mapping[str, Mapping[str, Path]]
    pictures: Mapping[str, Path] | None
    left_out: Mapping[str, str]

    @property
    def clips(self) -> list[str]:
        """Their names, sorted."""
        return sorted(next(iter(self.files.values())))


def named_once(pairs: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """System -> folder.

    Raises:
        ListenError: Two systems of one name; capitals make no difference.
    """
    known: dict[str, str] = {}
    for name, _ in pairs:
        if name.casefold() in known:
            raise ListenError(
                f"--systems has {known[name.casefold()]!r} and {name!r}: each system needs a name of its own."
            )
        known[name.casefold()] = name
    return dict(pairs)


def gather(systems: Mapping[str, Path], videos: Path | None) -> Material:
    """Pair the files of all systems by name.

    Args:
        systems: System -> folder of mp4s, or with `videos` of wavs or mp4s.
        videos: Folder of the mp4s whose picture all systems get, or None.

    Raises:
        ListenError: A folder is missing or empty, has a clip twice, or no clip is in all of them.
    """
    kinds = (VIDEO,) if videos is None else (SOUND, VIDEO)
    found = {name: _files(f"--systems {name}={folder}", folder, kinds) for name, folder in systems.items()}
    pictures = None if videos is None else _files(f"--videos {videos}", videos, (VIDEO,))
    folders = {**found, **({} if pictures is None else {"--videos": pictures})}
    every = sorted(set().union(*folders.values()))
    lacking = {clip: [name for name, files in folders.items() if clip not in files] for clip in every}
    shared = [clip for clip in every if not lacking[clip]]
    if not shared:
        examples = "; ".join(f"{name} has {min(files)!r}" for name, files in folders.items())
        raise ListenError(
            f"no clip is in all of the {len(folders)} folders ({examples}). Files are paired by their names "
            "without the ending: name them alike."
        )
    return Material(
        files={name: {clip: files[clip] for clip in shared} for name, files in found.items()},
        pictures=pictures and {clip: pictures[clip] for clip in shared},
        left_out={clip: f"not in {', '.join(names)}" for clip, names in lacking.items() if names},
    )


def choose(material: Material, count: int, seed: int) -> list[str]:
    """Draw clips that all systems have, without replacement; the same seed draws the same.

    Raises:
        ListenError: There are not as many.
    """
    clips = material.clips
    if count > len(clips):
        others = [f"{clip} is {reason}" for clip, reason in list(material.left_out.items())[:_NAMED]]
        raise ListenError(
            f"--clips {count}, but all systems have {len(clips)} in common"
            f"{' (' if others else ''}{'; '.join(others)}{')' if others else ''}. "
            f"Write --clips {len(clips)}, or add clips."
        )
    drawn = np.random.default_rng(seed).choice(len(clips), size=count, replace=False)
    return sorted(clips[index] for index in drawn)


def _files(option: str, folder: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """Clip -> file, of the first kind that there is."""
    if not folder.is_dir():
        what = "a file, where a folder was expected" if folder.exists() else "no such folder"
        raise ListenError(f"{option}: {what}. Give the folder of a system's clips.")
    listed = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    found: dict[str, Path] = {}
    for kind in kinds:
        own: dict[str, Path] = {}
        for path in listed:
            if path.suffix.lower() == kind and path.is_file():
                if path.stem in own:
                    raise ListenError(
                        f"{option}: {own[path.stem].name} and {path.name} are one clip. Remove one."
                    )
                own[path.stem] = path
        found = {**own, **found}
    if not found:
        raise ListenError(f"{option}: {_nothing(listed, kinds)}")
    return found


def _nothing(listed: Sequence[Path], kinds: Sequence[str]) -> str:
    wanted = " or ".join(kind.removeprefix(".") for kind in kinds)
    if VIDEO in kinds and any(path.suffix.lower() == SOUND for path in listed):
        return "only sounds (wav) in it. Add --videos DIR with the videos (mp4) that they belong to."
    return f"no {wanted} in it. Give the folder of a system's clips."


BROWSER_CODECS = ("h264", "vp9", "av1")  # that every current browser plays in an mp4
RATE_HZ = 48_000  # of the sound that is put on a picture of --videos
_LENGTH_RATE_HZ = 8_000  # enough to tell how long a sound is
_CUT_S = 0.25  # less is the padding of codecs


@dataclass(frozen=True)
class Video:
    """One system's version of a clip.

    Args:
        token: Its name in the folder and in the browser, random.
        clip: Its clip.
        system: Its system.
        seconds: How much of it is played: as long as the shortest version of the clip.
        source: Hash of what it was made of.
    """

    token: str
    clip: str
    system: str
    seconds: float
    source: str


def prepare(material: Material, clips: Sequence[str], folder: Path) -> tuple[list[Video], list[str]]:
    """Copy the chosen clips of all systems.

    Returns:
        The videos, and sentences on what a listener could tell systems apart by.

    Raises:
        ListenError: A file that browsers don't play.
        MediaError: A file that can't be read, or has no sound.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos: list[Video] = []
    remarks: list[str] = []
    for clip in tqdm(clips, desc="videos", unit="clip", leave=False):
        tokens = {system: secrets.token_hex(16) for system in material.files}
        made = {
            system: _make(material, clip, system, folder / f"{token}.mp4") for system, token in tokens.items()
        }
        lengths = {system: seconds for system, (seconds, _) in made.items()}
        seconds = min(lengths.values())
        videos += [
            Video(token, clip, system, seconds, source(material, clip, system))
            for system, token in tokens.items()
        ]
        remarks += _remarks(clip, lengths, {system: size for system, (_, size) in made.items()})
    return videos, remarks


def source(material: Material, clip: str, system: str) -> str:
    """Hash of the contents that a video is made of."""
    files = [material.files[system][clip], *([material.pictures[clip]] if material.pictures else [])]
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _make(material: Material, clip: str, system: str, target: Path) -> tuple[float, tuple[int, int]]:
    """Write one video, and return how long it is to be heard, and its size."""
    own = material.files[system][clip]
    picture = material.pictures[clip] if material.pictures else own
    info = probe(picture)
    if info.codec not in BROWSER_CODECS:
        raise ListenError(
            f"{picture}: its picture is {info.codec}, which browsers don't play. "
            f"Convert it to one of {', '.join(BROWSER_CODECS)}."
        )
    if material.pictures:
        sound = read_audio(own, RATE_HZ)
        mux(picture, sound, RATE_HZ, target)
        sound_s = len(sound) / RATE_HZ
    else:
        sound_s = len(read_audio(own, _LENGTH_RATE_HZ)) / _LENGTH_RATE_HZ
        with atomic(target) as temporary:
            shutil.copyfile(own, temporary)
    return min(info.duration_s, sound_s), (info.width, info.height)


def _remarks(clip: str, lengths: Mapping[str, float], sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    found = []
    shortest = min(lengths, key=lambda system: lengths[system])
    if max(lengths.values()) - lengths[shortest] > _CUT_S:
        found.append(f"{clip}: all versions end after {lengths[shortest]:.2f} s, like that of {shortest}.")
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{system} {width}×{height}" for system, (width, height) in sizes.items())
        found.append(
            f"{clip}: the pictures differ in size ({told}), and listeners may tell systems by it. "
            "--videos DIR puts all sounds on the same picture."
        )
    return found
