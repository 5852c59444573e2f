"""A square that jumps four times, and a click with each jump, at a constant or a variable frame rate."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

JUMPS_S = (0.8, 1.6, 2.4, 3.2)
DURATION_S, FAST_HZ, RATE_HZ = 4.0, 25, 16_000


def clicks() -> np.ndarray:
    """(S,) a decaying burst at each jump."""
    t = np.arange(round(DURATION_S * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.3, len(t))
    return sum(noise * (t >= at) * np.exp(-30 * np.maximum(t - at, 0)) for at in JUMPS_S).clip(-1, 1)


def jumping(path: Path, *, variable: bool) -> Path:
    """The film; where nothing moves, the variable rate keeps every fourth frame of its first half."""
    frames = range(round(DURATION_S * FAST_HZ))
    moving = {round(at * FAST_HZ) + near for at in JUMPS_S for near in (-2, -1, 0, 1, 2)}
    kept = [i for i in frames if not variable or i in moving or i % 4 == 0 or i > 50]
    with av.open(str(path), "w") as file:
        picture = file.add_stream("libx264", rate=FAST_HZ, options={"crf": "10"})
        picture.width = picture.height = 96
        picture.pix_fmt, picture.codec_context.time_base = "yuv420p", Fraction(1, FAST_HZ)
        sound = file.add_stream("aac", rate=RATE_HZ, layout="mono")
        texture = np.random.default_rng(1).integers(0, 255, (24, 24), np.uint8)
        for index in kept:
            x = 8 + 12 * sum(index >= round(at * FAST_HZ) for at in JUMPS_S)
            pixels = np.full((96, 96, 3), 60, np.uint8)
            pixels[36:60, x : x + 24] = texture[..., None]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FAST_HZ)
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
        for first in range(0, len(clicks()), 1024):
            piece = clicks()[None, first : first + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, first, Fraction(1, RATE_HZ)
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return path
