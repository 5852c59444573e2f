"""The picture: a mallet over an object on a table, and something that swings in the background."""

import colorsys
import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from stav2a.data.struck_objects.scene import DURATION_S, Performance, distance, jolt

FRACTION_BITS = 4
Colour = tuple[float, float, float, float]  # red, green, blue, alpha: 0..255
Point = tuple[float, float]


class Pen:
    """Draws on a uint8 RGB or RGBA canvas; on an empty RGBA one, colours come out premultiplied.

    Args:
        canvas: (H, W, 3 or 4), drawn on in place.
        origin: Where (0, 0) lies on the canvas, in pixels.
        scale: Pixels a unit.
    """

    def __init__(self, canvas: np.ndarray, origin: Point = (0.0, 0.0), scale: float = 1.0) -> None:
        self.canvas, self.origin, self.scale = canvas, origin, scale

    def _at(self, point: Point) -> tuple[int, int]:
        x, y = (o + self.scale * value for o, value in zip(self.origin, point, strict=True))
        return round(x * 2**FRACTION_BITS), round(y * 2**FRACTION_BITS)

    def _width(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def disc(self, centre: Point, radius_x: float, radius_y: float, colour: Colour, width: float = 0) -> None:
        """A filled ellipse, or with a width its outline."""
        axes = (
            round(radius_x * self.scale * 2**FRACTION_BITS),
            round(radius_y * self.scale * 2**FRACTION_BITS),
        )
        thickness = self._width(width) if width else -1
        cv2.ellipse(
            self.canvas, self._at(centre), axes, 0, 0, 360, colour, thickness, cv2.LINE_AA, FRACTION_BITS
        )

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        corners = np.array([self._at(point) for point in points], np.int32)
        cv2.fillPoly(self.canvas, [corners], colour, cv2.LINE_AA, FRACTION_BITS)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        """A line with round ends."""
        thickness = self._width(width)
        cv2.line(self.canvas, self._at(start), self._at(end), colour, thickness, cv2.LINE_AA, FRACTION_BITS)


def colour(
    rng: np.random.Generator, hue: float, saturation: float, value: float, spread: float = 0.02
) -> Colour:
    """A colour near the given one; hue in turns, the rest 0..1."""
    wobbled = np.clip(np.array([saturation, value]) * rng.uniform(0.85, 1.15, 2), 0, 1)
    red, green, blue = colorsys.hsv_to_rgb((hue + rng.uniform(-spread, spread)) % 1, *wobbled)
    return (255 * red, 255 * green, 255 * blue, 255.0)


def shade(base: Colour, factor: float) -> Colour:
    """The same colour darker (< 1) or lighter (> 1)."""
    red, green, blue = (min(255.0, channel * factor) for channel in base[:3])
    return (red, green, blue, base[3])


def _wood(pen: Pen, rng: np.random.Generator) -> float:
    base, width, height = colour(rng, 0.075, 0.62, 0.68), rng.uniform(24, 29), rng.uniform(22, 27)
    pen.box(-width, -height, width, 0, base)
    pen.polygon(
        [(-width, -height), (-width + 5, -height - 5), (width + 5, -height - 5), (width, -height)],
        shade(base, 1.3),
    )
    pen.polygon([(width, -height), (width + 5, -height - 5), (width + 5, -4), (width, 0)], shade(base, 0.7))
    for y in np.linspace(-height + 4, -4, 4) + rng.uniform(-1, 1, 4):
        pen.line((-width + 2, y), (width - 2, y + rng.uniform(-1.5, 1.5)), shade(base, 0.8), 1)
    return height + 3


def _metal(pen: Pen, rng: np.random.Generator) -> float:
    steel, width, y = colour(rng, 0.58, 0.12, 0.86), rng.uniform(32, 38), rng.uniform(15, 20)
    for x in (-0.6 * width, 0.6 * width):
        pen.polygon([(x - 5, 0), (x - 2, -y), (x + 2, -y), (x + 5, 0)], shade(steel, 0.35))
    pen.box(-width, -y - 8, width, -y, steel)
    pen.box(-width, -y - 8, width, -y - 6, shade(steel, 1.25))
    pen.box(-width, -y - 2, width, -y, shade(steel, 0.6))
    pen.box(-0.5 * width, -y - 6, -0.1 * width, -y - 2, shade(steel, 1.15))
    return y + 8


def _glass(pen: Pen, rng: np.random.Generator) -> float:
    green, width, height = colour(rng, 0.38, 0.6, 0.62), rng.uniform(12, 15), rng.uniform(38, 42)
    shoulder, neck = 0.62 * height, 0.45 * width
    pen.polygon(
        [(-width, 0), (-width, -shoulder), (-neck, -shoulder - 7), (-neck, -height)]
        + [(neck, -height), (neck, -shoulder - 7), (width, -shoulder), (width, 0)],
        green,
    )
    pen.box(-neck - 1.5, -height - 3, neck + 1.5, -height, shade(green, 1.35))
    pen.box(-width + 2, -0.5 * shoulder, width - 2, -3, shade(green, 0.75))
    pen.line((-width + 4, -shoulder + 1), (-width + 4, -6), shade(green, 1.6), 2)
    return height + 3


def _drum(pen: Pen, rng: np.random.Generator) -> float:
    red, skin = colour(rng, 0.99, 0.8, 0.72), colour(rng, 0.12, 0.1, 0.95)
    gold, width, height = colour(rng, 0.13, 0.7, 0.85), rng.uniform(25, 30), rng.uniform(29, 34)
    pen.box(-width, -height, width, -5, red)
    pen.disc((0, -5), width, 6, red)
    for x in np.linspace(-width, width, 6)[:-1]:
        pen.line((x, -height + 5), (x + width / 5, -4), gold, 1.2)
        pen.line((x + width / 5, -4), (x + 2 * width / 5, -height + 5), gold, 1.2)
    pen.disc((0, -height), width + 1, 7.5, gold)
    pen.disc((0, -height), width - 1, 6, skin)
    return height + 1


def _tambourine(pen: Pen, rng: np.random.Generator) -> float:
    frame, brass, radius = colour(rng, 0.155, 0.85, 0.9), colour(rng, 0.12, 0.3, 0.98), rng.uniform(20, 22)
    skin = colour(rng, 0.8, 0.35, 0.8)
    pen.disc((0, -radius), radius, radius, shade(frame, 0.8))
    pen.disc((0, -radius), radius - 2, radius - 2, frame)
    pen.disc((0, -radius), radius - 7, radius - 7, skin)
    turn = rng.uniform(0, 2 * np.pi)
    for angle in turn + np.arange(7) * 2 * np.pi / 7:
        x, y = (radius - 4) * np.cos(angle), -radius + (radius - 4) * np.sin(angle)
        pen.disc((x, y), 3.6, 3.6, shade(brass, 0.5))
        pen.disc((x, y), 2.6, 2.6, brass)
    return 2 * radius


def _water(pen: Pen, rng: np.random.Generator) -> float:
    bowl, water = colour(rng, 0.66, 0.55, 0.55), colour(rng, 0.53, 0.65, 0.9)
    width, height = rng.uniform(31, 35), rng.uniform(20, 24)
    pen.polygon([(-width, -height), (width, -height), (0.6 * width, 0), (-0.6 * width, 0)], bowl)
    pen.disc((0, -height), width, 9, shade(bowl, 1.25))
    pen.disc((0, -height + 0.5), width - 3, 7.5, water)
    pen.disc((-0.3 * width, -height - 1), 8, 1.5, shade(water, 1.3))
    return height - 1


DRAWINGS: dict[str, Callable[[Pen, np.random.Generator], float]] = {
    "wood": _wood,
    "metal": _metal,
    "glass": _glass,
    "drum": _drum,
    "tambourine": _tambourine,
    "water": _water,
}


SIZE = 128
FRAME_RATE_HZ = 25
FRAMES = round(DURATION_S * FRAME_RATE_HZ)
SENSOR_NOISE = 1.2  # grey levels
HORIZON, FOOT = 97, 113  # rows where the table begins, and where objects stand
OBJECT_TOP = 58  # no object reaches above this row


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
    return _with_sensor_noise(frames, rng)


def _with_sensor_noise(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every frame gets another cut-out of one noise picture: far cheaper than new noise, and as unlike."""
    brighter, darker = _noise_picture()
    for frame, (y, x) in zip(frames, rng.integers(0, SIZE, (len(frames), 2)), strict=True):
        cv2.add(frame, brighter[y : y + SIZE, x : x + SIZE], dst=frame)
        cv2.subtract(frame, darker[y : y + SIZE, x : x + SIZE], dst=frame)
    return frames


@functools.cache
def _noise_picture() -> tuple[np.ndarray, np.ndarray]:
    """Its positive and its negative part, (2 SIZE, 2 SIZE, 3) uint8 each: OpenCV is quick with bytes."""
    noise = (
        np.random.default_rng(0).normal(0, SENSOR_NOISE, (2 * SIZE, 2 * SIZE, 1)).round().repeat(3, axis=2)
    )
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
    height = DRAWINGS[label](Pen(large, (2 * x, 2 * FOOT), 2 * scale), rng)
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
