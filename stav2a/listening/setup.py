"""A listening test on the disk: begun once, and gone on with by the same command."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.listening.database import Database
from stav2a.listening.material import ListenError, Material, Video, choose, gather, prepare, source
from stav2a.utils.files import exclusive


@dataclass(frozen=True)
class ListeningSettings:
    """What is asked of a test.

    Args:
        systems: System -> folder of its clips.
        clips: How many are drawn.
        seed: Of the draw of clips, and of the order.
        videos: Folder of the videos that all sounds are put on, or None.
    """

    systems: Mapping[str, Path]
    clips: int
    seed: int
    videos: Path | None = None

    def told(self) -> dict[str, Any]:
        """What must stay the same; folders may move."""
        return {
            "--systems": sorted(self.systems),
            "--clips": self.clips,
            "--seed": self.seed,
            "--videos": "given" if self.videos else "not given",
        }


@dataclass(frozen=True)
class ListeningTest:
    """An open test.

    Args:
        folder: Holds all of it.
        systems: Their names, as they were given when the test began.
        clips: The clips drawn.
        seed: Of the order.
        videos: Every system's version of every clip.
    """

    folder: Path
    systems: list[str]
    clips: list[str]
    seed: int
    videos: list[Video]

    @property
    def database(self) -> Database:
        return database_of(self.folder)

    def path(self, video: Video) -> Path:
        """The file of a video."""
        return videos_of(self.folder) / f"{video.token}.mp4"


def database_of(folder: Path) -> Database:
    """The ratings of the test in a folder."""
    return Database(folder / "ratings.sqlite")


def videos_of(folder: Path) -> Path:
    """The copies that are served."""
    return folder / "copies"


def begin_or_resume(folder: Path, settings: ListeningSettings) -> tuple[ListeningTest, list[str]]:
    """The test in a folder, new or gone on with.

    Returns:
        The test, and what is to be said of its clips.

    Raises:
        ListenError: Folders that can't be paired, too few clips, or a test of other settings in the folder.
        StorageError: Its database can't be used.
    """
    with exclusive(folder / ".lock", f"listening test in {folder}"):
        material = gather(settings.systems, settings.videos)
        if database_of(folder).path.exists():
            database_of(folder).check()
            _refuse_other(folder, settings, material)
            return load(folder), []
        clips = choose(material, settings.clips, settings.seed)
        videos, remarks = _prepare(material, clips, folder)
        kept = {"systems": list(settings.systems), "told": settings.told()}
        database_of(folder).create(kept, videos)
    left_out = [f"left out: {clip}, {reason}" for clip, reason in material.left_out.items()]
    return load(folder), [*left_out, *remarks]


def _prepare(material: Material, clips: list[str], folder: Path) -> tuple[list[Video], list[str]]:
    """Make all copies, or none; what a killed start has left is made anew."""
    partial = folder / ".copies"
    for left_over in (partial, videos_of(folder)):
        shutil.rmtree(left_over, ignore_errors=True)
    made = prepare(material, clips, partial)
    partial.rename(videos_of(folder))
    return made


def load(folder: Path) -> ListeningTest:
    """The test in a folder, for a report.

    Raises:
        ListenError: There is none.
        StorageError: Its database can't be used.
    """
    database = database_of(folder)
    if not database.path.is_file():
        raise ListenError(
            f"{folder}: no listening test in it (no {database.path.name}). "
            "Give the --output of `stav2a listen`."
        )
    database.check()
    settings, videos = database.settings(), database.videos()
    return ListeningTest(
        folder=folder,
        systems=settings["systems"],
        clips=sorted({video.clip for video in videos}),
        seed=settings["told"]["--seed"],
        videos=videos,
    )


def _refuse_other(folder: Path, settings: ListeningSettings, material: Material) -> None:
    """A test goes on as it began: its settings, and the contents of its files."""
    before, now = database_of(folder).settings()["told"], settings.told()
    changed = [
        f"{name} was {_words(before[name])}, now {_words(now[name])}"
        for name in now
        if now[name] != before[name]
    ]
    if not changed:
        changed = [
            f"{video.clip} of {video.system} {what}"
            for video in database_of(folder).videos()
            if (what := _changed(video, material))
        ][:3]
    if changed:
        raise ListenError(
            f"{folder} holds a test of another set-up: {'; '.join(changed)}. "
            "Go on with the first settings, or choose another --output."
        )


def _changed(video: Video, material: Material) -> str:
    if video.clip not in material.clips:
        return "is not in the folders any more"
    return "" if source(material, video.clip, video.system) == video.source else "has other contents now"


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
