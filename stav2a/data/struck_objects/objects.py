"""The objects: how they look, how they sound, and how captions name them."""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stav2a.data.struck_objects import sounds

FRACTION_BITS = 4
Colour = tuple[float, float, float, float]  # red, green, blue, alpha: 0..255
Point = tuple[float, float]


class Pen:
    """A pen of filled shapes for a uint8 canvas; on an empty RGBA one, colours come out premultiplied.

    Args:
        canvas: (H, W, 3 or 4), drawn on in place.
        origin: Place of (0, 0) on the canvas, in pixels.
        scale: Pixels a unit.
    """

    def __init__(self, canvas: np.ndarray, origin: Point = (0.0, 0.0), scale: float = 1.0) -> None:
        self.canvas, self.origin, self.scale = canvas, origin, scale

    def _at(self, point: Point) -> tuple[int, int]:
        fine = self.scale * 2**FRACTION_BITS
        return (
            round(self.origin[0] * 2**FRACTION_BITS + point[0] * fine),
            round(self.origin[1] * 2**FRACTION_BITS + point[1] * fine),
        )

    def _width(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def disc(self, centre: Point, radius_x: float, radius_y: float, colour: Colour, width: float = 0) -> None:
        """A filled ellipse, or with a width its outline."""
        at, fine = self._at(centre), self.scale * 2**FRACTION_BITS
        thickness = self._width(width) if width else -1
        if radius_x == radius_y:
            radius = round(radius_x * fine)
            cv2.circle(self.canvas, at, radius, colour, thickness, cv2.LINE_AA, FRACTION_BITS)
            return
        axes = (round(radius_x * fine), round(radius_y * fine))
        cv2.ellipse(self.canvas, at, axes, 0, 0, 360, colour, thickness, cv2.LINE_AA, FRACTION_BITS)

    def arc(self, centre: Point, radius_x: float, radius_y: float, colour: Colour, width: float) -> None:
        """The lower half of an ellipse's outline."""
        fine = self.scale * 2**FRACTION_BITS
        axes = (round(radius_x * fine), round(radius_y * fine))
        at, thickness = self._at(centre), self._width(width)
        cv2.ellipse(self.canvas, at, axes, 0, 0, 180, colour, thickness, cv2.LINE_AA, FRACTION_BITS)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        corners = np.array([self._at(point) for point in points], np.int32)
        cv2.fillPoly(self.canvas, [corners], colour, cv2.LINE_AA, FRACTION_BITS)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        """A line with round ends."""
        thickness = self._width(width)
        cv2.line(self.canvas, self._at(start), self._at(end), colour, thickness, cv2.LINE_AA, FRACTION_BITS)


Drawing = Callable[[Pen, np.random.Generator], float]  # at (0, 0); returns the height of the top


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


def _draw_wood(pen: Pen, rng: np.random.Generator) -> float:
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


def _draw_metal(pen: Pen, rng: np.random.Generator) -> float:
    steel, width, y = colour(rng, 0.58, 0.12, 0.86), rng.uniform(32, 38), rng.uniform(15, 20)
    for x in (-0.6 * width, 0.6 * width):
        pen.polygon([(x - 5, 0), (x - 2, -y), (x + 2, -y), (x + 5, 0)], shade(steel, 0.35))
    pen.box(-width, -y - 8, width, -y, steel)
    pen.box(-width, -y - 8, width, -y - 6, shade(steel, 1.25))
    pen.box(-width, -y - 2, width, -y, shade(steel, 0.6))
    pen.box(-0.5 * width, -y - 6, -0.1 * width, -y - 2, shade(steel, 1.15))
    return y + 8


def _draw_glass(pen: Pen, rng: np.random.Generator) -> float:
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


def _draw_drum(pen: Pen, rng: np.random.Generator) -> float:
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


def _draw_tambourine(pen: Pen, rng: np.random.Generator) -> float:
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


def _draw_water(pen: Pen, rng: np.random.Generator) -> float:
    bowl, water = colour(rng, 0.66, 0.55, 0.55), colour(rng, 0.53, 0.65, 0.9)
    width, height = rng.uniform(31, 35), rng.uniform(20, 24)
    pen.polygon([(-width, -height), (width, -height), (0.6 * width, 0), (-0.6 * width, 0)], bowl)
    pen.disc((0, -height), width, 9, shade(bowl, 1.25))
    pen.disc((0, -height + 0.5), width - 3, 7.5, water)
    pen.disc((-0.3 * width, -height - 1), 8, 1.5, shade(water, 1.3))
    return height - 1


def draw_painted(pen: Pen, rng: np.random.Generator) -> float:
    """A painted pot, which may be of anything."""
    paint, width, height = colour(rng, rng.random(), 0.35, 0.62, 0), rng.uniform(21, 27), rng.uniform(25, 33)
    pen.polygon([(-width, -height), (width, -height), (0.85 * width, -4), (-0.85 * width, -4)], paint)
    pen.disc((0, -4), 0.85 * width, 5, paint)
    pen.box(-0.9 * width, -0.45 * height, 0.9 * width, -0.35 * height, shade(paint, 1.3))
    pen.disc((0, -height), width + 1, 6.5, shade(paint, 0.7))
    pen.disc((0, -height), width - 1, 5.2, shade(paint, 1.15))
    return height + 1


def _draw_board(pen: Pen, rng: np.random.Generator) -> float:
    """The board that sandpaper is rubbed on."""
    pine, width, height = colour(rng, 0.11, 0.4, 0.82), rng.uniform(44, 48), rng.uniform(15, 19)
    pen.polygon([(-width, 0), (width, 0), (width - 5, -height), (5 - width, -height)], pine)
    pen.box(-width, 0, width, 5, shade(pine, 0.7))
    for y in np.linspace(-height + 3, -3, 4):
        pen.line((-width + 8, y), (width - 8, y + rng.uniform(-1, 1)), shade(pine, 0.9), 1)
    return 0.6 * height


def _draw_nothing(pen: Pen, rng: np.random.Generator) -> float:
    """The vessel below a jug is drawn with its water, picture by picture; this is its height."""
    return 30.0


@dataclass(frozen=True)
class SoundingObject:
    """One class of objects; each object differs in size, colour, pitch and decay.

    Args:
        manner: How it is made to sound, "struck", "rubbed" or "poured".
        names: The words for it in captions.
        draw: Function that draws it at (0, 0) and returns the height of its top.
        sound: For "struck" a function from a generator to the sound of a blow, else one from a generator and
            a speed to a sound.
        painted: Name in captions of the painted pot that several classes share; None if there is none.
        counts: Fewest and most events.
        gap_s: Shortest time between the beginnings of two events.
        length_s: Shortest and longest duration of an event; 0 for blows.
        peak: Peak of the loudest sound.
    """

    manner: str
    names: tuple[str, ...]
    draw: Drawing
    sound: Callable[..., Any]
    painted: str | None = None
    counts: tuple[int, int] = (2, 5)
    gap_s: float = 0.28
    length_s: tuple[float, float] = (0.0, 0.0)
    peak: float = 0.6


OBJECTS = {
    "wood": SoundingObject(
        "struck", ("a wood block", "a wooden block", "wood"), _draw_wood, sounds.strike_wood, "a wooden pot"
    ),
    "metal": SoundingObject(
        "struck", ("a metal bar", "a steel bar", "metal"), _draw_metal, sounds.strike_metal, "a metal pot"
    ),
    "glass": SoundingObject(
        "struck", ("a glass bottle", "a bottle", "glass"), _draw_glass, sounds.strike_glass, "a glass pot"
    ),
    "drum": SoundingObject(
        "struck", ("a drum", "a small drum", "a red drum"), _draw_drum, sounds.strike_drum, "a drum"
    ),
    "tambourine": SoundingObject(
        "struck", ("a tambourine", "the tambourine"), _draw_tambourine, sounds.strike_tambourine
    ),
    "water": SoundingObject(
        "struck", ("a water basin", "a full basin", "a basin"), _draw_water, sounds.strike_water
    ),
    "sandpaper": SoundingObject(
        "rubbed",
        ("sandpaper", "a sanding block", "coarse sandpaper"),
        _draw_board,
        sounds.rub_sandpaper,
        counts=(3, 5),
        gap_s=0.38,
        length_s=(0.25, 0.36),
        peak=0.4,
    ),
    "jug": SoundingObject(
        "poured",
        ("a jug", "a full jug", "the jug"),
        _draw_nothing,
        sounds.pour_water,
        counts=(1, 3),
        gap_s=0.7,
        length_s=(0.5, 1.2),
        peak=0.09,
    ),
}
