"""A clip as VGGSound has them, for the benchmarks of reading and filtering."""

from pathlib import Path

import cv2
import numpy as np

from stav2a.data.media import write_clip

SECONDS, RATE, SIZE, SAMPLE_RATE = 10, 30, (340, 256), 44_100


def write(path: Path) -> Path:
    """10 s of 340×256 at 30 frames a second: a texture that jolts twice a second, with a stroke each time."""
    generator = np.random.default_rng(0)
    width, height = SIZE
    coarse = generator.uniform(0, 255, (height // 8 + 8, width // 8 + 8, 3)).astype(np.uint8)
    texture = cv2.resize(coarse, (width + 64, height + 64), interpolation=cv2.INTER_CUBIC)
    time_s = np.arange(SECONDS * RATE) / RATE
    shift = np.round(24 * np.abs(np.sin(2 * np.pi * time_s))).astype(int)
    noise = generator.normal(0, 3, (len(shift), height, width, 1))
    frames = np.stack([texture[s : s + height, s : s + width] for s in shift])
    frames = np.clip(frames + noise, 0, 255).astype(np.uint8)
    audio = generator.normal(0, 1e-3, SECONDS * SAMPLE_RATE)
    ring = np.exp(-np.arange(8000) / 1000) * generator.normal(0, 0.3, 8000)
    for start in range(0, SECONDS * SAMPLE_RATE - 8000, SAMPLE_RATE // 2):
        audio[start : start + 8000] += ring
    write_clip(path, frames, RATE, audio.astype(np.float32), SAMPLE_RATE)
    return path
