"""What happens in a clip: who is struck when and how hard, what is heard, what the caption says."""

from dataclasses import dataclass

import numpy as np

from stav2a.data.clip import SPLITS

DURATION_S = 2.56
SAMPLE_RATE = 16_000
MIN_GAP_S = 0.28
FIRST_S, LAST_S = 0.22, 2.3  # room for the first swing, and for the last sound
MISS_ROOM_S = 0.85  # a pause long enough for a near miss

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
NAMES = {
    "wood": "wood block",
    "metal": "metal bar",
    "glass": "glass bottle",
    "drum": "drum",
    "tambourine": "tambourine",
    "water": "water basin",
}
CLASSES = tuple(NAMES)


@dataclass(frozen=True)
class Performance:
    """The script of one clip; picture and sound follow from it alone.

    Args:
        key: Seed, split and index: seeds the details of picture and sound.
        label: What is struck.
        strikes_s: When the mallet is seen to strike.
        heard_s: When it is heard; other times only if the clip is flawed.
        strengths: How hard, 0..1, a seen strike.
        heard_strengths: The same of the heard ones.
        misses_s: When the mallet comes down but stops short.
        flaw: None, "static" (a still picture) or "shifted" (the sound has other strikes).
        caption: What the text encoder reads.
        vague: Whether the caption hides the label.
    """

    key: tuple[int, int, int]
    label: str
    strikes_s: tuple[float, ...]
    heard_s: tuple[float, ...]
    strengths: tuple[float, ...]
    heard_strengths: tuple[float, ...]
    misses_s: tuple[float, ...]
    flaw: str | None
    caption: str
    vague: bool

    def details(self, stream: int) -> np.random.Generator:
        """A source of chance of its own for each part, so that parts can change apart from each other."""
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
    heard, heard_strengths = others if flaw == "shifted" else (strikes, strengths)
    phrase = (VAGUE if vague else SPECIFIC)[rng.integers(len(VAGUE))]
    return Performance(
        key=key,
        label=label,
        strikes_s=strikes,
        heard_s=heard,
        strengths=strengths,
        heard_strengths=heard_strengths,
        misses_s=_misses(rng, strikes),
        flaw=flaw,
        caption=phrase.format(NAMES[label]),
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
    """How many of the times have one of the others within 0.12 s."""
    return int(np.sum(np.abs(np.subtract.outer(times, others)).min(axis=1) < 0.12))


def _misses(rng: np.random.Generator, strikes: tuple[float, ...]) -> tuple[float, ...]:
    """In every long pause, half of the time: after the way back from a strike, before the next swing."""
    edges = (0.0, *strikes, DURATION_S + 0.2)
    pauses = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b - a >= MISS_ROOM_S]
    return tuple((a + b) / 2 + 0.1 for a, b in pauses if rng.random() < 0.8)
