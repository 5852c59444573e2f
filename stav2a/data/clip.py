"""One clip of a dataset: a video file with sound, its caption and, where known, its onsets and class."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "test")
LONGEST_NAME = 240  # bytes: a file's name may have 255, endings included


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


def file_stem(clip_id: str) -> str:
    """Name of a clip's files, without endings: its id, or a name made from one that can't be a file's.

    Example:
        >>> file_stem("dog 1"), file_stem("../dog")
        ('dog 1', '.._dog-4a79e6c2')
    """
    encoded = os.fsencode(clip_id)
    # a.reference.wav is the real sound of a.
    if len(encoded) <= LONGEST_NAME and not re.search(r"[/\\\0]|\.reference$", clip_id):
        return clip_id
    return f"{re.sub(r'[^A-Za-z0-9.-]', '_', clip_id[:80])}-{hashlib.sha256(encoded).hexdigest()[:8]}"
