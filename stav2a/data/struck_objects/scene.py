"""The script of a clip: the object, its events in picture and sound, the caption; and its motion."""

import functools
import itertools
import zlib
from dataclasses import dataclass

import numpy as np

from stav2a.data.clip import SPLITS
from stav2a.data.struck_objects.objects import OBJECTS
from stav2a.data.struck_objects.sounds import DURATION_S, SAMPLE_RATE

FIRST_S, LAST_S = 0.22, 2.25  # times of events, between the first swing and the last sound
CONTACT_PX_S, PUSH_PX_S2 = 320.0, 1600.0  # speed of the mallet at the contact, and its acceleration before
RISE_S = 0.45  # longest duration of the way back
HEIGHT_PX = (16.0, 31.0)  # of the swing, for the weakest and the strongest strike
MISS_ROOM_S = 0.85  # a pause long enough for a near miss
MISS_S = 0.2  # half the duration of a near miss
FASTER_S, JERK_S, SLOWER_S = 0.02, 0.06, 0.12  # in which a stroke or a stream sets in, settles, and ends
CLASSES = tuple(OBJECTS)


@dataclass(frozen=True)
class Level:
    """Difficulty of a world.

    Args:
        near_misses: Part of the long pauses in which a near miss happens.
        swinging: Part of the clips with a silent ball on a string.
        things: Largest number of silent things that lie about.
        shared_looks: Part of the clips with a named object in which paint hides what the object is made of.
        offscreen: Part of the clips in which a bell is heard that only the caption tells of.
        sensor_noise: Standard deviation of the picture's noise, in grey levels.
    """

    near_misses: float
    swinging: float
    things: int
    shared_looks: float
    offscreen: float
    sensor_noise: float


LEVELS = {
    "easy": Level(0.4, 0.3, 0, 0.0, 0.0, 1.2),
    "standard": Level(0.8, 0.7, 2, 0.5, 0.1, 1.2),
    "hard": Level(0.95, 0.9, 5, 0.8, 0.25, 4.0),
}


@dataclass(frozen=True)
class Events:
    """Strikes, strokes or pourings.

    Args:
        times_s: Times at which they begin.
        strengths: Strength of each, 0..1.
        lengths_s: Duration of each; 0 for a strike.
    """

    times_s: tuple[float, ...]
    strengths: tuple[float, ...]
    lengths_s: tuple[float, ...]

    def speed(self, t: np.ndarray) -> np.ndarray:
        """Speed of the continuous events at times t, 0..1: it jerks up, settles, and falls in the end."""
        total = np.zeros(len(t))
        for time, strength, length in zip(self.times_s, self.strengths, self.lengths_s, strict=True):
            if length:
                ends = np.clip((time + length - t) / SLOWER_S, 0, 1)
                since = np.maximum(0, t - time)
                settling = 0.5 + 0.5 * np.exp(-since / JERK_S)
                total += strength * np.minimum(1, since / FASTER_S) * settling * ends
        return total


@dataclass(frozen=True)
class Performance:
    """The script of one clip; picture and sound follow from it alone.

    Args:
        key: Seed, split and index, from which the details are drawn.
        level: Name of the level.
        label: Class of the object.
        seen: Events in the picture.
        heard: Events in the sound; other ones only if the clip is flawed.
        misses_s: Times at which the object is nearly, but not, struck or poured from.
        flaw: "static" (a still picture) or "shifted" (the sound has other events).
        look: "own", or "shared" where objects of several classes look alike.
        bell_s: Time of the bell that isn't seen.
        caption: The text.
        phrasing: Pattern of the text in the grammar.
        held_out: Whether no training or validation clip has this phrasing.
        vague: Whether the caption hides the label.
    """

    key: tuple[int, int, int]
    level: str
    label: str
    seen: Events
    heard: Events
    misses_s: tuple[float, ...]
    flaw: str | None
    look: str
    bell_s: float | None
    caption: str
    phrasing: str
    held_out: bool
    vague: bool

    @property
    def strikes_s(self) -> tuple[float, ...]:
        """Times of the events in the picture."""
        return self.seen.times_s

    @property
    def onsets_s(self) -> tuple[float, ...]:
        """Times at which the sounds begin, the bell's among them, ascending."""
        return tuple(sorted((*self.heard.times_s, *([] if self.bell_s is None else [self.bell_s]))))

    def details(self, stream: int) -> np.random.Generator:
        """Random generator of one part, so that parts can change independently of each other."""
        return np.random.default_rng([*self.key, stream])


def plan(
    seed: int, split: str, index: int, flawed_fraction: float, vague_fraction: float, level: str = "standard"
) -> Performance:
    """The script of one clip. It depends on nothing but these arguments."""
    key, hard = (seed, SPLITS.index(split), index), LEVELS[level]
    rng = np.random.default_rng([*key, 0])
    label = CLASSES[index % len(CLASSES)]
    thing = OBJECTS[label]
    seen = _events(rng, label)
    others = min((_events(rng, label) for _ in range(8)), key=lambda o: _coincidence(o.times_s, seen.times_s))
    flawed, static, vague = rng.random() < flawed_fraction, rng.random() < 0.5, rng.random() < vague_fraction
    flaw = None if not flawed or split == "test" else "static" if static else "shifted"
    painted = rng.random() < hard.shared_looks and thing.painted is not None and not vague
    place = WHEN[rng.integers(len(WHEN))] if rng.random() < hard.offscreen else None
    held_out = split == "test" and rng.random() < 0.5
    known = phrasings("vague" if vague else thing.manner, held_out)
    phrasing = known[rng.integers(len(known))]
    names = (thing.painted,) if painted and thing.painted else thing.names
    caption = phrasing.format(names[rng.integers(len(names))])
    return Performance(
        key=key,
        level=level,
        label=label,
        seen=seen,
        heard=others if flaw == "shifted" else seen,
        misses_s=_misses(rng, seen.times_s, hard.near_misses),
        flaw=flaw,
        look="shared" if painted else "own",
        bell_s=None if place is None else round(rng.uniform(*place[1]) * SAMPLE_RATE) / SAMPLE_RATE,
        caption=caption if place is None else f"{caption}, bell {place[0]}",
        phrasing=phrasing,
        held_out=held_out,
        vague=bool(vague),
    )


def _events(rng: np.random.Generator, label: str) -> Events:
    """Events on the grid of the audio samples, at least a gap apart."""
    thing = OBJECTS[label]
    count = int(rng.integers(*thing.counts, endpoint=True))
    slack = LAST_S - thing.length_s[0] - FIRST_S - (count - 1) * thing.gap_s
    times = FIRST_S + np.sort(rng.uniform(0, slack, count)) + thing.gap_s * np.arange(count)
    times = np.round(times * SAMPLE_RATE) / SAMPLE_RATE
    lengths = np.minimum(rng.uniform(*thing.length_s, count), np.diff(times, append=DURATION_S) - 0.1)
    lengths = np.where(thing.length_s[1] > 0, lengths, 0)  # one after the other, and within the clip
    return Events(tuple(times.tolist()), tuple(rng.uniform(0.35, 1, count).tolist()), tuple(lengths.tolist()))


def _coincidence(times: tuple[float, ...], others: tuple[float, ...]) -> int:
    """Number of the times that have one of the others within 0.12 s."""
    return int(np.sum(np.abs(np.subtract.outer(times, others)).min(axis=1) < 0.12))


def _misses(rng: np.random.Generator, times: tuple[float, ...], fraction: float) -> tuple[float, ...]:
    """A near miss in some long pauses, between the way back from a strike and the next swing."""
    edges = (0.0, *times, DURATION_S + 0.2)
    pauses = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b - a >= MISS_ROOM_S]
    return tuple((a + b) / 2 + 0.1 for a, b in pauses if rng.random() < fraction)


# The grammar of captions: alternatives are separated by bars, and {} is the object's name. Every way through
# a rule is a phrasing. No phrasing tells the number or the times of the events.
SOMEONE = "someone|somebody|a person|a hand|a man|a woman"
TAIL = "|indoors|nearby|on a table"
GRAMMAR: dict[str, tuple[tuple[str, ...], ...]] = {
    "struck": (
        (
            f"{SOMEONE}|a mallet|a stick|a beater",
            "hits|strikes|taps|beats|knocks|bangs",
            "{}",
            "|indoors|nearby",
        ),
        ("{} is", "hit|struck|tapped|beaten|knocked|banged", TAIL + "|with a mallet|with a stick|by hand"),
        ("the sound of|blows on|taps on|beats on|strikes on|knocks on", "{}", TAIL),
        ("hitting|striking|tapping|beating|knocking", "{}", TAIL + "|with a mallet|with a stick"),
    ),
    "rubbed": (
        (SOMEONE, "rubs|scrapes|drags|pulls|pushes|slides", "{}", "|indoors|nearby|over wood"),
        ("{} is", "rubbed|scraped|dragged|pulled|pushed", TAIL + "|on a board|over wood|by hand"),
        ("the sound of|strokes of|rubbing by|scraping by", "{}", TAIL),
        ("rubbing|scraping|dragging|sliding", "{}", TAIL + "|on a board|over wood"),
    ),
    "poured": (
        (SOMEONE, "pours from|empties|tips|tilts|pours out|serves from", "{}", "|indoors|nearby"),
        ("{} is", "poured out|emptied|tipped|tilted|poured from", TAIL + "|by hand|into a glass"),
        ("water|liquid|a drink", "runs from|pours from|flows from|comes from", "{}", "|indoors|nearby"),
        ("pouring from|emptying|tilting|the sound of", "{}", TAIL + "|into a glass"),
    ),
    "vague": (
        ("something|an object|a thing", "makes|gives|produces", "a sound|a noise|sounds", TAIL),
        ("the sound of|the noise of|sounds of", "something|an object|a thing|things", TAIL),
        (
            SOMEONE,
            "makes|produces",
            "sounds|a noise|some noise",
            "|indoors|nearby|with something|with an object",
        ),
        (SOMEONE, "uses|handles|works on|moves", "something|an object|a thing", "|indoors|nearby"),
    ),
}
HELD_OUT = 5  # every fifth phrasing, for test clips alone
WHEN = (("rings early", (0.1, 0.6)), ("rings midway", (1.0, 1.5)), ("rings late", (1.8, 2.2)))  # and seconds


@functools.cache
def phrasings(manner: str, held_out: bool) -> tuple[str, ...]:
    """The phrasings of a manner ("struck", "rubbed", "poured", "vague"), of one of the two parts.

    Example:
        >>> len(phrasings("struck", False)), phrasings("vague", True)[0]
        (207, 'something makes a sound')
    """
    ways = (itertools.product(*(part.split("|") for part in rule)) for rule in GRAMMAR[manner])
    texts = [" ".join(filter(None, way)) for rule in ways for way in rule]
    return tuple(text for text in texts if (zlib.crc32(text.encode()) % HELD_OUT == 0) == held_out)


def distance(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Distance of the mallet's head from the object at times t, in pixels; 0 at the strikes.

    Near the contact the head's height depends on the time left alone, whatever the strength. It returns more
    slowly, so that its speed has one clear maximum a strike, at the contact. A near miss slows down and stops
    short.
    """
    times = np.array(performance.seen.times_s)
    gaps = np.diff(times, prepend=-1.0)
    low, high = HEIGHT_PX
    highest = low + (high - low) * np.array(performance.seen.strengths)
    swings = (CONTACT_PX_S - np.sqrt(CONTACT_PX_S**2 - 2 * PUSH_PX_S2 * highest)) / PUSH_PX_S2
    swings = np.minimum(swings, 0.35 * gaps)
    heights = CONTACT_PX_S * swings - PUSH_PX_S2 / 2 * swings**2
    moves = np.full_like(t, heights[0])
    for k, (time, swing) in enumerate(zip(times, swings, strict=True)):
        left = time - t
        moves = np.where(left < swing, CONTACT_PX_S * left - PUSH_PX_S2 / 2 * left**2, moves)
        last = k + 1 == len(times)
        next_height = heights[0] if last else heights[k + 1]
        room = RISE_S if last else min(RISE_S, times[k + 1] - swings[k + 1] - time)
        rising = np.clip((t - time) / room, 0, 1)
        moves = np.where(t > time, next_height * rising**2 * (3 - 2 * rising), moves)
    return moves * (1 - 0.8 * missing(performance, t))


def missing(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Nearness of the near misses at times t, 0..1."""
    total = np.zeros(len(t))
    for miss in performance.misses_s:
        total += 0.5 * (1 + np.cos(np.pi * np.clip(np.abs(t - miss) / MISS_S, 0, 1)))
    return total


def jolt(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Displacement of the object downwards at times t, in pixels: a damped swing after every strike."""
    pushed = np.zeros_like(t)
    for time, strength in zip(performance.seen.times_s, performance.seen.strengths, strict=True):
        since = np.maximum(0, t - time)
        pushed += 2.0 * strength * np.exp(-since / 0.05) * np.sin(2 * np.pi * since / 0.2)
    return pushed


STEP_S = 1 / 400  # of integrals of speed
LEAD_S = 0.04  # in which the block that is rubbed swings down on the board, before a stroke is heard


def slid(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Place of what is rubbed at times t, in full strokes of 0.3 s: to and fro by turns."""
    fine = np.arange(0, DURATION_S + STEP_S, STEP_S)
    seen, place = performance.seen, np.zeros(len(fine))
    for k in range(len(seen.times_s)):
        stroke = Events(seen.times_s[k : k + 1], seen.strengths[k : k + 1], seen.lengths_s[k : k + 1])
        direction = -1 if place[-1] > 0 else 1
        place = place + direction * np.cumsum(stroke.speed(fine + LEAD_S)) * STEP_S / 0.3
    return np.interp(t, fine, place)


def lifted(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Height of the block that is rubbed at times t, 0..1: in strokes it lies on the board."""
    seen, height = performance.seen, np.full(len(t), 0.5)
    for time, length in zip(seen.times_s, seen.lengths_s, strict=True):
        before, after = np.clip((time - t) / LEAD_S, 0, 1), np.clip((t - time - length) / 0.15, 0, 1)
        height = np.minimum(height, 0.5 * (before + after))
    return np.maximum(height, missing(performance, t))


def filled(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Amount poured until times t, in what full flow gives in a second."""
    fine = np.arange(0, DURATION_S + STEP_S, STEP_S)
    return np.interp(t, fine, np.cumsum(performance.seen.speed(fine)) * STEP_S)


def tilt(performance: Performance, t: np.ndarray) -> np.ndarray:
    """Tilt of a jug at times t, 0..1. It begins shortly before the flow; a near miss has no flow."""
    total = 0.45 * missing(performance, t)
    seen = performance.seen
    for time, strength, length in zip(seen.times_s, seen.strengths, seen.lengths_s, strict=True):
        ends = np.clip((time + length + 0.3 - t) / 0.4, 0, 1)
        total = np.maximum(total, (0.6 + 0.4 * strength) * np.clip((t - time + 0.06) / 0.08, 0, 1) * ends)
    return total
