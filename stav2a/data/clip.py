"""One clip of a data set: a video file with sound, its caption and, where known, the truth about it."""

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Clip:
    """A video file and what is known about it; None where nothing is known.

    Args:
        id: Unique name in the data set.
        video: The file, with sound.
        caption: What the text encoder reads.
        split: "train", "validation" or "test".
        label: The class of the sound.
        onsets_s: Exact times of the sound's onsets, ascending.
        flaw: Why the clip should be filtered out; None when it is good or nothing is known.
        vague: Whether the caption hides the class.
    """

    id: str
    video: Path
    caption: str
    split: str
    label: str | None = None
    onsets_s: tuple[float, ...] | None = None
    flaw: str | None = None
    vague: bool | None = None
