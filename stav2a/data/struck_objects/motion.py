"""The mallet's motion: picture motion peaks where the sound begins."""

import numpy as np

from stav2a.data.struck_objects.performance import Performance

SWING_S = 0.16  # of a downswing; shorter in quick series
RISE_S = 0.5  # of the way back, at most
MISS_S = 0.2  # half the time of a near miss
HEIGHT_PX = (14.0, 36.0)  # of the swing, for the weakest and the strongest strike


def distance(performance: Performance, t: np.ndarray) -> np.ndarray:
    """How far the mallet's head is from what it strikes at times t, in pixels; 0 at the strikes.

    The head falls faster and faster into the contact and returns slowly, so its speed has one clear
    maximum a strike, at the contact. A near miss slows down smoothly and stops short.
    """
    times = np.array(performance.strikes_s)
    gaps = np.diff(times, prepend=-1.0)
    swings = np.minimum(SWING_S, 0.4 * gaps)
    low, high = HEIGHT_PX
    heights = (low + (high - low) * np.array(performance.strengths)) * np.minimum(1, gaps / 0.4)
    moves = np.full_like(t, heights[0])
    for k, (time, swing, height) in enumerate(zip(times, swings, heights, strict=True)):
        falling = np.clip((t - (time - swing)) / swing, 0, 1)
        moves = np.where(t > time - swing, height * (1 - falling**2), moves)
        last = k + 1 == len(times)
        next_height = heights[0] if last else heights[k + 1]
        room = RISE_S if last else min(RISE_S, times[k + 1] - swings[k + 1] - time)
        rising = np.clip((t - time) / room, 0, 1)
        moves = np.where(t > time, next_height * rising**2 * (3 - 2 * rising), moves)
    for miss in performance.misses_s:
        near = np.clip(np.abs(t - miss) / MISS_S, 0, 1)
        moves = moves * (1 - 0.8 * 0.5 * (1 + np.cos(np.pi * near)))
    return moves


def jolt(performance: Performance, t: np.ndarray) -> np.ndarray:
    """How far the struck object is pushed down, in pixels: a quick damped swing after every strike."""
    pushed = np.zeros_like(t)
    for time, strength in zip(performance.strikes_s, performance.strengths, strict=True):
        since = np.maximum(0, t - time)
        pushed += 2.0 * strength * np.exp(-since / 0.05) * np.sin(2 * np.pi * since / 0.2)
    return pushed
