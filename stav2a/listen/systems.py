"""What is to be heard: one folder a system, paired by file name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stav2a.listen.errors import ListenError

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
