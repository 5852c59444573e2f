"""One clip of a dataset: a video file with sound, its caption and, where known, its onsets and class."""

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Clip:
    """A video file and the facts about it; None where they are unknown.

    Args:
        id: Unique name in the dataset.
        video: The file, with sound.
        caption: Input of the text encoder.
        split: "train", "validation" or "test".
        label: Class of the sound.
        onsets_s: Exact times of the sound's onsets, ascending.
        flaw: Reason to filter the clip out; None for a good clip.
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
