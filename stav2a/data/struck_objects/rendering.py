"""Picture and sound of a clip: a mallet over an object on a table, something that swings behind it."""

import functools

import cv2
import numpy as np

from stav2a.data.struck_objects.objects import DURATION_S, OBJECTS, SAMPLE_RATE, Pen, Point, colour, shade
from stav2a.data.struck_objects.scene import Performance, distance, jolt

SIZE = 128
FRAME_RATE_HZ = 25
FRAMES = round(DURATION_S * FRAME_RATE_HZ)
SENSOR_NOISE = 1.2  # grey levels
HORIZON, FOOT = 97, 113  # rows where the table begins, and where objects stand
OBJECT_TOP = 58  # no object reaches above this row
NOISE_FLOOR = 1e-3  # -60 dB
FADE = 800  # samples at the end, as the end of a ringing bar would sound like an onset


def render_picture(performance: Performance) -> np.ndarray:
    """(FRAMES, SIZE, SIZE, 3) uint8 RGB."""
    rng = performance.details(1)
    t = np.arange(FRAMES) / FRAME_RATE_HZ
    if performance.flaw == "static":
        t = np.full_like(t, rng.uniform(0, DURATION_S))
    background = _background(rng)
    sprite, struck_at = _object(performance.label, rng)
    mallet, distractor = Mallet(rng, struck_at), Distractor(rng)
    frames = np.repeat(background[None], FRAMES, axis=0)
    motion = zip(frames, t, distance(performance, t), jolt(performance, t), strict=True)
    for frame, time, away, pushed in motion:
        distractor.draw(Pen(frame), time)
        _paste(frame, sprite, pushed)
        if performance.label == "water":
            _ripples(Pen(frame), struck_at, performance, time)
        mallet.draw(Pen(frame), away)
    # Each frame gets its own cut-out of one noise picture, which is far cheaper than new noise.
    brighter, darker = _noise_picture()
    for frame, (y, x) in zip(frames, rng.integers(0, SIZE, (len(frames), 2)), strict=True):
        cv2.add(frame, brighter[y : y + SIZE, x : x + SIZE], dst=frame)
        cv2.subtract(frame, darker[y : y + SIZE, x : x + SIZE], dst=frame)
    return frames


@functools.cache
def _noise_picture() -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative part of sensor noise, (2 SIZE, 2 SIZE, 3) uint8 each."""
    noise = np.random.default_rng(0).normal(0, SENSOR_NOISE, (2 * SIZE, 2 * SIZE, 1)).round()
    noise = noise.repeat(3, axis=2)
    return np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)


def _background(rng: np.random.Generator) -> np.ndarray:
    """A wall with soft blotches, darker above; a table with a grain."""
    wall, table = colour(rng, rng.random(), 0.18, 0.6), colour(rng, 0.08, 0.4, 0.42)
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = wall[:3]
    canvas *= np.linspace(0.75, 1.15, SIZE, dtype=np.float32)[:, None, None]
    blotches = rng.uniform(0.88, 1.12, (5, 5)).astype(np.float32)
    canvas *= cv2.resize(blotches, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)[..., None]
    rough = rng.uniform(0.85, 1.15, (12, 3)).astype(np.float32)
    grain = cv2.resize(rough, (SIZE, SIZE - HORIZON), interpolation=cv2.INTER_LINEAR)
    canvas[HORIZON:] = np.array(table[:3], np.float32) * grain[..., None]
    canvas[HORIZON : HORIZON + 2] *= 1.3
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _object(label: str, rng: np.random.Generator) -> tuple[np.ndarray, Point]:
    """The object and its shadow, (SIZE, SIZE, 4) uint8, colours premultiplied by alpha; its top."""
    x, scale = rng.uniform(50, 78), rng.uniform(0.9, 1.1)
    large = np.zeros((2 * SIZE, 2 * SIZE, 4), np.uint8)  # drawn at twice the size, for smooth edges
    height = OBJECTS[label].draw(Pen(large, (2 * x, 2 * FOOT), 2 * scale), rng)
    sprite = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    shadow = np.zeros((SIZE, SIZE), np.float32)
    cv2.ellipse(shadow, (round(x), FOOT), (round(32 * scale), 6), 0, 0, 360, 0.5, -1)
    under = (255.0 - sprite[..., 3]) * cv2.GaussianBlur(shadow, (0, 0), 2.5)
    sprite[..., 3] += under.astype(np.uint8)
    return sprite, (x, FOOT - scale * height)


def _paste(frame: np.ndarray, sprite: np.ndarray, pushed: float) -> None:
    """Lay the object over the picture, `pushed` pixels further down."""
    sprite, frame = sprite[OBJECT_TOP:], frame[OBJECT_TOP:]
    if abs(pushed) > 0.02:
        move = np.array([[1, 0, 0], [0, 1, pushed]], np.float32)
        sprite = cv2.warpAffine(sprite, move, sprite.shape[1::-1], flags=cv2.INTER_LINEAR)
    through = cv2.merge([255 - sprite[..., 3]] * 3)
    cv2.add(cv2.multiply(frame, through, scale=1 / 255), sprite[..., :3], dst=frame)


class Mallet:
    """A padded head on a stick that comes in from one side."""

    def __init__(self, rng: np.random.Generator, struck_at: Point) -> None:
        self.head = colour(rng, rng.random(), rng.choice([0.05, 0.3]), rng.choice([0.2, 0.35, 0.95]))
        self.stick = colour(rng, 0.09, 0.5, 0.75)
        self.radius = rng.uniform(5, 8)
        side = rng.choice([-1, 1])
        self.lean = side * rng.uniform(0.05, 0.3)  # how far the swing leans to the side, a pixel of height
        self.contact = (struck_at[0] + rng.uniform(-6, 6), struck_at[1] - self.radius)
        self.hand = (side * rng.uniform(75, 95), rng.uniform(-45, -20))

    def draw(self, pen: Pen, away: float) -> None:
        """Draw it `away` pixels from what it strikes."""
        x, y = self.contact[0] + self.lean * away, self.contact[1] - away
        hand = (self.contact[0] + self.hand[0], self.contact[1] + self.hand[1] - 0.4 * away)
        pen.line((x, y), hand, shade(self.stick, 0.6), 6)
        pen.line((x, y - 0.7), (hand[0], hand[1] - 0.7), self.stick, 4)
        pen.disc((x, y), self.radius, self.radius, shade(self.head, 0.7))
        pen.disc((x - 1, y - 1), self.radius - 2, self.radius - 2, self.head)
        pen.disc(
            (x - 0.3 * self.radius, y - 0.4 * self.radius),
            0.27 * self.radius,
            0.2 * self.radius,
            shade(self.head, 1.5),
        )


class Distractor:
    """A ball on a string that swings silently; sometimes absent."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.present = rng.random() < 0.7
        self.ball, self.radius = colour(rng, rng.random(), 0.6, 0.8), rng.uniform(5, 8)
        self.x, self.length = rng.choice([rng.uniform(12, 32), rng.uniform(96, 116)]), rng.uniform(28, 48)
        self.swing, self.period_s = rng.uniform(0.1, 0.3), rng.uniform(1.8, 3.0)
        self.phase = rng.uniform(0, 2 * np.pi)

    def draw(self, pen: Pen, time: float) -> None:
        if not self.present:
            return
        angle = self.swing * np.sin(2 * np.pi * time / self.period_s + self.phase)
        x, y = self.x + self.length * np.sin(angle), self.length * np.cos(angle)
        pen.line((self.x, -2), (x, y), (60, 60, 60, 255), 1)
        pen.disc((x, y), self.radius, self.radius, self.ball)
        pen.disc((x - 2, y - 2), 0.4 * self.radius, 0.3 * self.radius, shade(self.ball, 1.4))


def _ripples(pen: Pen, centre: Point, performance: Performance, time: float) -> None:
    """Rings that widen and fade on the water, and drops thrown up."""
    for strike, strength in zip(performance.strikes_s, performance.strengths, strict=True):
        age = time - strike
        if 0 <= age < 0.4:
            grey = 170 + 80 * (1 - age / 0.4)
            pen.disc((centre[0], centre[1] + 1), 6 + 55 * age, 1.5 + 13 * age, (grey, grey, 255, 255), 1)
        for angle in (-0.9, -0.4, 0.4, 0.9) if 0 <= age < 0.25 else ():
            speed = 150 * strength
            x = centre[0] + 14 * angle + speed * np.sin(angle) * age
            y = centre[1] - speed * np.cos(angle) * age + 450 * age**2
            pen.disc((x, y), 1.5, 1.5, (190, 225, 255, 255))


def render_sound(performance: Performance) -> np.ndarray:
    """(S,) float32 in [-1, 1]; every strike begins exactly at its time."""
    rng = performance.details(2)
    audio = rng.normal(0, NOISE_FLOOR, round(DURATION_S * SAMPLE_RATE))
    ringing, attack = OBJECTS[performance.label].strike(rng)
    loudest = np.abs(ringing + attack).max()
    for time_s, strength in zip(performance.onsets_s, performance.onset_strengths, strict=True):
        start = round(time_s * SAMPLE_RATE)
        burst = 0.7 * strength * (ringing + strength * attack) / loudest
        audio[start : start + len(burst)] += burst[: len(audio) - start]
    audio[-FADE:] *= np.linspace(1, 0, FADE)
    return np.tanh(audio).astype(np.float32)
