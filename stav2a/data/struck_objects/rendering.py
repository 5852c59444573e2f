"""Picture and sound of a clip: an object on a table, what makes it sound, and silent things about it."""

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from stav2a.data.struck_objects import scene
from stav2a.data.struck_objects.objects import (
    OBJECTS,
    Colour,
    Drawing,
    Pen,
    Point,
    colour,
    draw_painted,
    shade,
)
from stav2a.data.struck_objects.scene import LEVELS, Performance
from stav2a.data.struck_objects.sounds import (
    DURATION_S,
    SAMPLE_RATE,
    SAMPLES,
    add,
    in_a_room,
    strike_bell,
)

SIZE = 128
FRAME_RATE_HZ = 25
FRAMES = round(DURATION_S * FRAME_RATE_HZ)
HORIZON, FOOT = 97, 113  # rows where the table begins, and where objects stand
OBJECT_TOP = 58  # no object reaches above this row
DUST_S = 0.3  # in which the brightness of fresh dust falls to a third
WAVE_S, WAVE_PX_S = 0.6, 95.0  # duration and speed of a wave in the tablecloth
HUM = 2e-3  # -54 dB
FADE = 800  # samples at the end, as the end of a ringing bar would sound like an onset
BELL = 0.18  # peak of the bell


def render_picture(performance: Performance) -> np.ndarray:
    """(FRAMES, SIZE, SIZE, 3) uint8 RGB."""
    rng, level = performance.details(1), LEVELS[performance.level]
    t = np.arange(FRAMES) / FRAME_RATE_HZ
    if performance.flaw == "static":
        t = np.full_like(t, rng.uniform(0, DURATION_S))
    background, cloth = _background(rng, level.things)
    draw = draw_painted if performance.look == "shared" else OBJECTS[performance.label].draw
    sprite, top = _object(draw, rng)
    whole = background.copy()
    _paste(whole, sprite, 0.0)
    frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    frames[:] = whole
    manner = OBJECTS[performance.label].manner
    if manner == "struck":
        mallet, pushes = Mallet(rng, top), scene.jolt(performance, t)
        motion = zip(frames, t, scene.distance(performance, t), pushes, strict=True)
        for frame, time, away, pushed in motion:
            if abs(pushed) > 0.05:
                frame[OBJECT_TOP:] = background[OBJECT_TOP:]
                _paste(frame, sprite, pushed)
            _waves(Pen(frame), top[0], cloth, performance, time)
            if performance.label == "water" and performance.look == "own":
                _ripples(Pen(frame), top, performance, time)
            mallet.draw(Pen(frame), away)
    elif manner == "rubbed":
        block, seen = SandingBlock(rng, top, whole), performance.seen
        begins_s, ends_s = np.array(seen.times_s), np.add(seen.times_s, seen.lengths_s)
        begins, places = scene.slid(performance, begins_s), scene.slid(performance, t)
        so_far = scene.slid(performance, np.minimum.outer(t, ends_s))  # (FRAMES, strokes)
        fresh = np.exp(-np.maximum(0, np.subtract.outer(t, ends_s)) / DUST_S)
        lifted = scene.lifted(performance, t)
        for k, frame in enumerate(frames):
            begun = int((begins_s < t[k]).sum())
            trails = list(zip(begins[:begun], so_far[k], fresh[k], strict=False))
            block.draw(Pen(frame), places[k], lifted[k], trails)
    else:
        jug, seen = Jug(rng, top), performance.seen
        motion = zip(
            frames,
            scene.tilt(performance, t),
            seen.speed(t),
            scene.filled(performance, t),
            strict=True,
        )
        for frame, tilted, flow, amount in motion:
            jug.draw(Pen(frame), tilted, flow, amount)
    ball = Ball(rng)
    if rng.random() < level.swinging:
        for frame, time in zip(frames, t, strict=True):
            ball.draw(Pen(frame), time)
    # Each frame gets its own cut-out of one noise picture, which is far cheaper than new noise.
    noise = _noise_picture(level.sensor_noise)
    for frame, (y, x) in zip(frames, rng.integers(0, SIZE, (FRAMES, 2)), strict=True):
        cv2.add(frame, noise[y : y + SIZE, x : x + SIZE], dst=frame)
    return frames


@functools.cache
def _noise_picture(deviation: float) -> np.ndarray:
    """Sensor noise (2 SIZE, 2 SIZE, 3) uint8: above 0, as it is added; its mean is three deviations."""
    noise = np.random.default_rng(0).normal(3 * deviation, deviation, (2 * SIZE, 2 * SIZE, 1))
    return np.clip(noise.round(), 0, 6 * deviation).astype(np.uint8).repeat(3, axis=2)


def _background(rng: np.random.Generator, things: int) -> tuple[np.ndarray, Colour]:
    """A wall with soft blotches, a table with a grain, things that lie about; and the table's colour."""
    wall, table = colour(rng, rng.random(), 0.18, 0.6), colour(rng, 0.08, 0.4, 0.42)
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = wall[:3]
    canvas *= np.linspace(0.75, 1.15, SIZE, dtype=np.float32)[:, None, None]
    blotches = rng.uniform(0.88, 1.12, (5, 5)).astype(np.float32)
    canvas *= cv2.resize(blotches, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)[..., None]
    rough = rng.uniform(0.9, 1.1, (12, 3)).astype(np.float32)
    grain = cv2.resize(rough, (SIZE, SIZE - HORIZON), interpolation=cv2.INTER_LINEAR)
    canvas[HORIZON:] = np.array(table[:3], np.float32) * grain[..., None]
    canvas[HORIZON : HORIZON + 2] *= 1.3
    picture = np.clip(canvas, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(things, endpoint=True)):
        x, size = rng.choice([rng.uniform(4, 26), rng.uniform(102, 124)]), rng.uniform(3, 7)
        paint, pen = colour(rng, rng.random(), 0.6, 0.7), Pen(picture, (x, rng.uniform(104, 110)))
        if rng.random() < 0.5:
            pen.disc((0, -size), size, size, paint)
            pen.disc((-0.3 * size, -1.3 * size), 0.3 * size, 0.3 * size, shade(paint, 1.4))
        else:
            pen.box(-size, -2 * size, size, 0, paint)
            pen.box(-size, -2 * size, size, -1.7 * size, shade(paint, 1.3))
    return picture, table


def _object(draw: Drawing, rng: np.random.Generator) -> tuple[np.ndarray, Point]:
    """The object and its shadow, (SIZE, SIZE, 4) uint8, colours premultiplied by alpha; its top."""
    x, scale = rng.uniform(50, 78), rng.uniform(0.9, 1.1)
    large = np.zeros((2 * SIZE, 2 * SIZE, 4), np.uint8)  # drawn at twice the size, for smooth edges
    height = draw(Pen(large, (2 * x, 2 * FOOT), 2 * scale), rng)
    sprite = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    shadow = np.zeros((SIZE, SIZE), np.float32)
    cv2.ellipse(shadow, (round(x), FOOT), (round(32 * scale), 6), 0, 0, 360, 0.5, -1)
    under = (255.0 - sprite[..., 3]) * cv2.GaussianBlur(shadow, (0, 0), 2.5)
    sprite[..., 3] += under.astype(np.uint8)
    return sprite, (x, FOOT - scale * height)


def _paste(frame: np.ndarray, sprite: np.ndarray, pushed: float) -> None:
    """Lay the object over the picture, `pushed` pixels further down."""
    sprite, frame = sprite[OBJECT_TOP:], frame[OBJECT_TOP:]
    if pushed:
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
        shine = (x - 0.3 * self.radius, y - 0.4 * self.radius)
        pen.disc(shine, 0.27 * self.radius, 0.2 * self.radius, shade(self.head, 1.5))


class SandingBlock:
    """A block with sandpaper that is rubbed to and fro on a board; fresh dust lies where it has been."""

    stroke_px = 45.0

    def __init__(self, rng: np.random.Generator, on: Point, whole: np.ndarray) -> None:
        self.paint, self.paper = colour(rng, rng.random(), 0.5, 0.6), colour(rng, 0.05, 0.5, 0.35)
        self.x, self.y = on[0] - 0.2 * self.stroke_px, on[1] + 3
        self.width, self.height = rng.uniform(10, 13), rng.uniform(10, 14)
        self.board = whole[round(self.y), round(on[0])].astype(float)
        self.dust = 0.35 * self.board + 0.65 * np.array([250.0, 240, 215])

    def draw(
        self, pen: Pen, place: float, lifted: float, trails: Sequence[tuple[float, float, float]]
    ) -> None:
        """Draw it at a place, in strokes, lifted by 0..1.

        Args:
            trails: Where each stroke so far began and where it is or ended, and how fresh its dust is, 0..1.
        """
        for begin, end, fresh in trails:
            dust = (*(self.board + fresh * (self.dust - self.board)).tolist(), 255.0)
            start, stop = (self.x + self.stroke_px * each for each in (begin, end))
            pen.line((start, self.y + 1), (stop, self.y + 1), dust, 5)
        x, y, width, height = self.x + self.stroke_px * place, self.y - 8 * lifted, self.width, self.height
        pen.box(x - width, y - height, x + width, y - 2, self.paint)
        pen.box(x - width, y - height, x + width, y - height + 3, shade(self.paint, 1.35))
        pen.box(x - width, y - 2, x + width, y + 1, self.paper)
        elbow = (x + 14, y - height - 22)
        pen.line((x, y - height), elbow, (205, 160, 130, 255), 9)
        pen.line(elbow, (x + 60, y - 83), shade(self.paint, 0.6), 14)


class Jug:
    """A jug that is tilted over a glass, and the glass, which fills."""

    def __init__(self, rng: np.random.Generator, top: Point) -> None:
        self.side = rng.choice([-1, 1])
        self.x, self.width, self.height = top[0], rng.uniform(13, 17), FOOT - top[1]
        self.lip = (self.x - self.side * 3, top[1] - rng.uniform(20, 28))
        self.clay, self.water = colour(rng, rng.random(), 0.45, 0.7), colour(rng, 0.55, 0.5, 0.9)
        self.full_px = rng.uniform(14, 17)  # rise of the water in a second of full flow

    def draw(self, pen: Pen, tilted: float, flow: float, amount: float) -> None:
        """Draw both, with a tilt and a flow of 0..1, after an amount in seconds of full flow."""
        width, surface = self.width, FOOT - 5 - self.full_px * amount
        pen.box(self.x - width - 2, FOOT - self.height, self.x + width + 2, FOOT, (226, 234, 240, 255))
        pen.box(self.x - width, FOOT - self.height, self.x + width, FOOT - 2, (188, 202, 214, 255))
        pen.box(self.x - width, surface, self.x + width, FOOT - 2, self.water)
        pen.disc((self.x, surface), width, 2.5, shade(self.water, 1.2))
        if flow > 0:
            pen.line(
                (self.lip[0], self.lip[1] + 1), (self.lip[0], surface), shade(self.water, 1.15), 1 + 5 * flow
            )
            pen.disc((self.lip[0], surface), 3 + 6 * flow, 2 + flow, (245, 250, 255, 255))
        angle = -self.side * (0.15 + 1.0 * tilted)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.array([(0, 0), (5, 9), (5, 36), (33, 36), (33, 9), (30, 0)], float) * (self.side, 1)
        outline = [(self.lip[0] + x, self.lip[1] + y) for x, y in corners @ turn.T]
        handle = [
            (self.lip[0] + x, self.lip[1] + y)
            for x, y in (np.array([(33, 8), (43, 12), (42, 26), (33, 30)]) * (self.side, 1)) @ turn.T
        ]
        for start, end in zip(handle, handle[1:], strict=False):
            pen.line(start, end, shade(self.clay, 0.7), 4)
        pen.polygon(outline, self.clay)
        pen.line(outline[0], outline[-1], shade(self.clay, 1.3), 3)


class Ball:
    """A ball on a string that swings silently."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.ball, self.radius = colour(rng, rng.random(), 0.6, 0.8), rng.uniform(5, 8)
        self.x, self.length = rng.choice([rng.uniform(12, 32), rng.uniform(96, 116)]), rng.uniform(28, 48)
        self.swing, self.period_s = rng.uniform(0.1, 0.3), rng.uniform(1.8, 3.0)
        self.phase = rng.uniform(0, 2 * np.pi)

    def draw(self, pen: Pen, time: float) -> None:
        angle = self.swing * np.sin(2 * np.pi * time / self.period_s + self.phase)
        x, y = self.x + self.length * np.sin(angle), self.length * np.cos(angle)
        pen.line((self.x, -2), (x, y), (60, 60, 60, 255), 1)
        pen.disc((x, y), self.radius, self.radius, self.ball)
        pen.disc((x - 2, y - 2), 0.4 * self.radius, 0.3 * self.radius, shade(self.ball, 1.4))


def _waves(pen: Pen, x: float, cloth: Colour, performance: Performance, time: float) -> None:
    """Waves that blows send through the tablecloth at a constant speed: a radius is the age of a blow."""
    for strike, strength in zip(performance.seen.times_s, performance.seen.strengths, strict=True):
        age = time - strike
        if 0 <= age < WAVE_S:
            radius, fresh = 16 + WAVE_PX_S * age, 1 - age / WAVE_S
            light = shade(cloth, 1 + (0.8 + 0.5 * strength) * fresh)
            pen.arc((x, FOOT + 1), radius, 0.22 * radius, light, 2 + 2 * fresh)


def _ripples(pen: Pen, centre: Point, performance: Performance, time: float) -> None:
    """Rings that widen and fade on the water, and drops thrown up."""
    for strike, strength in zip(performance.seen.times_s, performance.seen.strengths, strict=True):
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
    """(SAMPLES,) float32 in [-1, 1]; every sound begins exactly at its time."""
    rng, heard = performance.details(2), performance.heard
    thing, audio = OBJECTS[performance.label], np.zeros(SAMPLES)
    if thing.manner == "struck":
        strike = thing.sound(rng)
        for time_s, strength in zip(heard.times_s, heard.strengths, strict=True):
            burst = strike(strength)
            add(audio, thing.peak * strength / np.abs(burst).max() * burst, round(time_s * SAMPLE_RATE))
    else:
        audio = thing.sound(rng, heard.speed(np.arange(SAMPLES) / SAMPLE_RATE))
        audio *= thing.peak * max(heard.strengths) / np.abs(audio).max()
    if performance.bell_s is not None:
        bell = strike_bell(performance.details(3))(1.0)
        add(audio, BELL / np.abs(bell).max() * bell, round(performance.bell_s * SAMPLE_RATE))
    audio = in_a_room(rng, audio, HUM)
    audio[-FADE:] *= np.linspace(1, 0, FADE)
    return np.tanh(audio).astype(np.float32)
