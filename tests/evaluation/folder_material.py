"""Folders of small clips to evaluate: clicks at known times, a film whose square jumps with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stav2a.data.media import write_clip, write_wav

RATE = 16_000
CLICKS_S = (0.3, 0.8, 1.4)


def clicks(*onsets_s: float, duration_s: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Short bursts of decaying noise over a quiet floor."""
    rng = np.random.default_rng(seed)
    audio = 1e-3 * rng.normal(size=round(duration_s * rate))
    for onset in onsets_s:
        start = round(onset * rate)
        burst = rng.normal(size=rate // 10) * np.exp(-np.arange(rate // 10) / (rate / 50))
        audio[start : start + len(burst)] += 0.3 * burst[: len(audio) - start]
    return audio.astype(np.float32)


def film(path: Path, onsets_s: Sequence[float], *, frames: int = 50, fps: int = 25) -> None:
    """A textured square that jumps at the onsets, with the clicks as its sound."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    pictures = np.full((frames, 48, 64, 3), 40, np.uint8)
    for i in range(frames):
        at = 6 * sum(onset <= i / fps for onset in onsets_s)
        pictures[i, 16:32, 4 + at : 20 + at] = texture
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, pictures, fps, clicks(*onsets_s, duration_s=frames / fps), RATE)


def folders(root: Path, clips: int = 4) -> dict[str, Path]:
    """`real` (films), `good` (late by 10 ms) and `bad` (elsewhere), with captions.csv beside them."""
    rng = np.random.default_rng(1)
    lines = ["id,caption"]
    for i in range(clips):
        onsets = np.sort(rng.choice(np.arange(2, 16), size=3, replace=False)) / 10
        film(root / "real" / f"clip{i}.mp4", onsets)
        for name, moved in (("good", onsets + 0.01), ("bad", (onsets + 0.75) % 1.7)):
            (root / name).mkdir(exist_ok=True)
            write_wav(root / name / f"clip{i}.wav", clicks(*moved, seed=i + 1), RATE)
        lines.append(f"clip{i},a stick hits a box")
    (root / "captions.csv").write_text("\n".join(lines) + "\n")
    return {name: root / name for name in ("real", "good", "bad")}
