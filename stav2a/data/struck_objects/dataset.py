"""The dataset of struck objects: its clips, their files and their manifest."""

import csv
import hashlib
import json
import logging
from functools import partial
from pathlib import Path

from stav2a.data.clip import SPLITS, Clip
from stav2a.data.media import write_clip
from stav2a.data.struck_objects.rendering import FRAME_RATE_HZ, render_picture, render_sound
from stav2a.data.struck_objects.scene import LEVELS, Performance, plan
from stav2a.data.struck_objects.sounds import SAMPLE_RATE
from stav2a.registry import register
from stav2a.utils.contents import file_hash
from stav2a.utils.errors import MAX_SEED, UsageError, check_bounds
from stav2a.utils.files import atomic, write_json
from stav2a.utils.parallel import parallel

VERSION = "3"  # raise it with every change of a clip's picture or sound
COLUMNS = ("id", "start_s", "caption", "split", "label", "vague", "flaw", "onsets_s", "strikes_s", "file")
FACTS = ("level", "look", "bell_s", "phrasing", "held_out")
HASHES = "content.json"

logger = logging.getLogger(__name__)


@register("dataset", "struck_objects")
class StruckObjects:
    """Objects that are struck, rubbed or poured from at exactly known times (docs/benchmark.md).

    Clips of 2.56 s, 128×128 pixels at 25 frames a second, sound at 16 kHz. A clip depends on the seed, its
    split and its number alone: other counts only add or leave out clips.

    Args:
        train_clips: Number of clips to train on.
        validation_clips: Number of clips to choose checkpoints by.
        test_clips: Number of clips to score on; never flawed.
        seed: Seed of all clips.
        flawed_fraction: Part of train and validation that is flawed: half of it still pictures, half with
            the sound of other strikes.
        vague_fraction: Part of captions that hide the object.
        level: `easy`, `standard` or `hard`: near misses, clutter, objects of one look, sounds of things that
            aren't seen, noise. The rate of the video's features is the encoder's: recipes/levels/.

    Example:
        >>> StruckObjects(train_clips=0, validation_clips=0, test_clips=2).performances()[0].label
        'wood'
    """

    version = VERSION  # part of every signature

    def __init__(
        self,
        *,
        train_clips: int = 1200,
        validation_clips: int = 96,
        test_clips: int = 192,
        seed: int = 0,
        flawed_fraction: float = 0.4,
        vague_fraction: float = 0.6,
        level: str = "standard",
    ) -> None:
        self.counts = dict(zip(SPLITS, (train_clips, validation_clips, test_clips), strict=True))
        if min(self.counts.values()) < 0:
            raise UsageError(f"struck_objects was given {self.counts} clips. Give 0 or more for each split.")
        check_bounds("struck_objects.seed", seed, 0, MAX_SEED)
        for name, fraction in (("flawed_fraction", flawed_fraction), ("vague_fraction", vague_fraction)):
            if not 0 <= fraction <= 1:
                raise UsageError(f"struck_objects.{name} was given {fraction}. Give a number from 0 to 1.")
        if level not in LEVELS:
            raise UsageError(f"struck_objects.level was given {level!r}. Write one of: {', '.join(LEVELS)}.")
        self.seed, self.flawed_fraction, self.vague_fraction = seed, flawed_fraction, vague_fraction
        self.level = level

    def performances(self) -> list[Performance]:
        """The scripts of all clips, by split and number."""
        keys = [(split, index) for split in SPLITS for index in range(self.counts[split])]
        return [plan(self.seed, *key, self.flawed_fraction, self.vague_fraction, self.level) for key in keys]

    def clips(self, folder: Path) -> list[Clip]:
        """All clips; renders those that are missing or damaged under `folder`, and writes the manifest.

        Raises:
            MediaError: If the folder can't be written to.
        """
        settings = f"{VERSION} {self.seed} {self.flawed_fraction} {self.vague_fraction} {self.level}"
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        root = Path(folder) / f"struck_objects-{VERSION}-{digest}"
        performances = self.performances()
        clips = [_clip(performance, root) for performance in performances]
        hashes = _hashes(root)
        there = [clip for clip in clips if clip.video.is_file()]
        damaged = {
            clip.id for clip in there if hashes is not None and hashes.get(clip.id) != file_hash(clip.video)
        }
        if damaged:
            told = "%s: damaged clips: %d, first %s. They are rendered again."
            logger.warning(told, root, len(damaged), min(damaged))
        whole = {clip.id for clip in there} - damaged
        missing = [made for made, clip in zip(performances, clips, strict=True) if clip.id not in whole]
        for _ in parallel(partial(_render, root=root), missing, description="rendering clips"):
            pass
        if missing or hashes is None:
            write_json(root / HASHES, (hashes or {}) | {clip.id: file_hash(clip.video) for clip in clips})
        _write_manifest(root, performances, clips)
        return clips


def _hashes(root: Path) -> dict[str, str] | None:
    """Hashes of the clips' files when they were written, by id; None where an older version kept none."""
    if not (root / HASHES).exists():
        return None
    try:
        found = json.loads((root / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _clip(performance: Performance, root: Path) -> Clip:
    _, split, index = performance.key
    name = f"{SPLITS[split]}_{index:05d}"
    return Clip(
        id=name,
        video=root / SPLITS[split] / f"{name}.mp4",
        caption=performance.caption,
        split=SPLITS[split],
        label=performance.label,
        onsets_s=performance.onsets_s,
        flaw=performance.flaw,
        vague=performance.vague,
    )


def _render(performance: Performance, root: Path) -> None:
    """Write one clip's file, in a worker process."""
    write_performance(performance, _clip(performance, root).video)


def write_performance(performance: Performance, path: Path) -> None:
    """Render a clip to an mp4 file.

    Raises:
        MediaError: If the file can't be written.
    """
    frames, audio = render_picture(performance), render_sound(performance)
    write_clip(path, frames, FRAME_RATE_HZ, audio, SAMPLE_RATE)


def _write_manifest(root: Path, performances: list[Performance], clips: list[Clip]) -> None:
    """VGGSound's columns (id, start, caption, split), then the truth; times are separated by blanks."""
    path = root / "manifest.csv"
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow((*COLUMNS, *FACTS, "version"))
        for performance, clip in zip(performances, clips, strict=True):
            both = (performance.onsets_s, performance.strikes_s)
            times = (" ".join(f"{time:.4f}" for time in each) for each in both)
            file_name = clip.video.relative_to(root).as_posix()
            facts = (
                clip.id,
                0,
                clip.caption,
                clip.split,
                clip.label,
                int(performance.vague),
                clip.flaw or "",
            )
            more = (performance.level, performance.look, performance.bell_s, performance.phrasing)
            table.writerow((*facts, *times, file_name, *more, int(performance.held_out), VERSION))
