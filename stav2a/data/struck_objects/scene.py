"""The script of a clip: the object, the times and strengths of strikes and their sounds, the caption."""

from dataclasses import dataclass

import numpy as np

from stav2a.data.clip import SPLITS
from stav2a.data.struck_objects.objects import DURATION_S, OBJECTS, SAMPLE_RATE

MIN_GAP_S = 0.28
FIRST_S, LAST_S = 0.22, 2.3  # times of strikes, between the first swing and the last sound
MISS_ROOM_S = 0.85  # a pause long enough for a near miss
SWING_S = 0.16  # duration of a downswing; shorter in quick series
RISE_S = 0.5  # longest duration of the way back
MISS_S = 0.2  # half the duration of a near miss
HEIGHT_PX = (14.0, 36.0)  # of the swing, for the weakest and the strongest strike
VAGUE = (
    "a mallet hits an object",
    "something is hit with a mallet",
    "somebody strikes an object on a table",
    "the sound of an object that is struck",
)
SPECIFIC = (
    "a mallet hits a {}",
    "a {} is hit with a mallet",
    "somebody strikes a {} on a table",
    "the sound of a {} that is struck",
)
CLASSES = tuple(OBJECTS)


@dataclass(frozen=True)
class Performance:
    """The script of one clip; picture and sound follow from it alone."""

    key: tuple[int, int, int]  # seed, split and index, from which the details are drawn
    label: str
    strikes_s: tuple[float, ...]  # times of the mallet's strikes in the picture
    onsets_s: tuple[float, ...]  # times of the strikes in the sound; other ones only if the clip is flawed
    strengths: tuple[float, ...]  # of the strikes in the picture, 0..1
    onset_strengths: tuple[float, ...]  # of the strikes in the sound, 0..1
    misses_s: tuple[float, ...]  # times at which the mallet comes down but stops short
    flaw: str | None  # "static" (a still picture) or "shifted" (the sound has other strikes)
    caption: str
    vague: bool  # True where the caption hides the label

    def details(self, stream: int) -> np.random.Generator:
        """Random generator of one part, so that parts can change independently of each other."""
        return np.random.default_rng([*self.key, stream])


def plan(seed: int, split: str, index: int, flawed_fraction: float, vague_fraction: float) -> Performance:
    """The script of one clip. It depends on nothing but these arguments."""
    key = (seed, SPLITS.index(split), index)
    rng = np.random.default_rng([*key, 0])
    label = CLASSES[index % len(CLASSES)]
    strikes, strengths = _strikes(rng)
    others = min((_strikes(rng) for _ in range(8)), key=lambda other: _coincidence(other[0], strikes))
    flawed, static, vague = rng.random() < flawed_fraction, rng.random() < 0.5, rng.random() < vague_fraction
    flaw = None if not flawed or split == "test" else "static" if static else "shifted"
    onsets, onset_strengths = others if flaw == "shifted" else (strikes, strengths)
    phrase = (VAGUE if vague else SPECIFIC)[rng.integers(len(VAGUE))]
    return Performance(
        key=key,
        label=label,
        strikes_s=strikes,
        onsets_s=onsets,
        strengths=strengths,
        onset_strengths=onset_strengths,
        misses_s=_misses(rng, strikes),
        flaw=flaw,
        caption=phrase.format(OBJECTS[label].name),
        vague=bool(vague),
    )


def _strikes(rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """One to five times on the grid of the audio samples, at least MIN_GAP_S apart; and their strengths."""
    count = int(rng.integers(1, 6))
    slack = LAST_S - FIRST_S - (count - 1) * MIN_GAP_S
    times = FIRST_S + np.sort(rng.uniform(0, slack, count)) + MIN_GAP_S * np.arange(count)
    times = np.round(times * SAMPLE_RATE) / SAMPLE_RATE
    return tuple(times.tolist()), tuple(rng.uniform(0.35, 1, count).tolist())


def _coincidence(times: tuple[float, ...], others: tuple[float, ...]) -> int:
    """Number of the times that have one of the others within 0.12 s."""
    return int(np.sum(np.abs(np.subtract.outer(times, others)).min(axis=1) < 0.12))


def _misses(rng: np.random.Generator, strikes: tuple[float, ...]) -> tuple[float, ...]:
    """A near miss in most long pauses, between the way back from a strike and the next swing."""
    edges = (0.0, *strikes, DURATION_S + 0.2)
    pauses = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b - a >= MISS_ROOM_S]
    return tuple((a + b) / 2 + 0.1 for a, b in pauses if rng.random() < 0.8)


def distance(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Distance of the mallet's head from the object at times t, in pixels; 0 at the strikes.

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
    """Displacement of the object downwards at times t, in pixels: a damped swing after every strike."""
    pushed = np.zeros_like(t)
    for time, strength in zip(performance.strikes_s, performance.strengths, strict=True):
        since = np.maximum(0, t - time)
        pushed += 2.0 * strength * np.exp(-since / 0.05) * np.sin(2 * np.pi * since / 0.2)
    return pushed
