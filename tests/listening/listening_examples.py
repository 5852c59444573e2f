"""Small listening tests: films of 0.6 s with a tone each."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stav2a.data.media import write_clip, write_wav
from stav2a.listening.database import NAMES
from stav2a.listening.server import PageServer
from stav2a.listening.setup import ListeningTest, begin_or_resume

RATE_HZ, FPS, SECONDS = 16_000, 25, 0.6
SYSTEMS = ("gt", "mine")
CLIPS = ("bell", "dog", "rain")


def tone(pitch_hz: float, seconds: float = SECONDS) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def film(path: Path, pitch_hz: float = 440, seconds: float = SECONDS, size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 255, (round(seconds * FPS), size, size, 3), dtype=np.uint8)
    write_clip(path, frames, FPS, tone(pitch_hz, seconds), RATE_HZ)


def sound(path: Path, pitch_hz: float = 440, seconds: float = SECONDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, tone(pitch_hz, seconds), RATE_HZ)


def folders(root: Path, systems: Sequence[str] = SYSTEMS, clips: Sequence[str] = CLIPS) -> dict[str, Path]:
    """A folder of films for each system."""
    for i, system in enumerate(systems):
        for j, clip in enumerate(clips):
            film(root / system / f"{clip}.mp4", 300 + 100 * i + 10 * j)
    return {system: root / system for system in systems}


def begun(root: Path, clips: int = 2, **more: object) -> ListeningTest:
    """A new test of `clips` clips through all systems, in root/test."""
    systems = folders(root, **more)  # type: ignore[arg-type]
    return begin_or_resume(root / "test", systems, clips=clips, seed=0)[0]


def rate_all(test: ListeningTest, annotator: str, value_of) -> None:
    """Rate every video on all scales: value_of(clip, system, scale)."""
    for video in test.videos:
        test.database.mark_played(annotator, video.token)
        for scale in NAMES:
            test.database.rate(annotator, video.token, scale, value_of(video.clip, video.system, scale))


@contextmanager
def serving(test: ListeningTest) -> Iterator[PageServer]:
    """A server of the test, in a thread."""
    server = PageServer(test, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()
