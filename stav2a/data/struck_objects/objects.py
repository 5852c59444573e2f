"""The objects that are struck: their pictures, and their sounds by modal synthesis."""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

DURATION_S = 2.56
SAMPLE_RATE = 16_000
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
        x, y = (o + self.scale * value for o, value in zip(self.origin, point, strict=True))
        return round(x * 2**FRACTION_BITS), round(y * 2**FRACTION_BITS)

    def _width(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def disc(self, centre: Point, radius_x: float, radius_y: float, colour: Colour, width: float = 0) -> None:
        """A filled ellipse, or with a width its outline."""
        at, axes = self._at(centre), [round(r * self.scale * 2**FRACTION_BITS) for r in (radius_x, radius_y)]
        thickness = self._width(width) if width else -1
        cv2.ellipse(self.canvas, at, axes, 0, 0, 360, colour, thickness, cv2.LINE_AA, FRACTION_BITS)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        corners = np.array([self._at(point) for point in points], np.int32)
        cv2.fillPoly(self.canvas, [corners], colour, cv2.LINE_AA, FRACTION_BITS)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
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


def _time(duration_s: float) -> np.ndarray:
    return np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE


def _modes(
    rng: np.random.Generator, f0: float, ratios: tuple[float, ...], decay_s: float, damping: float
) -> np.ndarray:
    """Damped sines; a mode decays the faster, and is the weaker, the higher it is."""
    t = _time(min(6 * decay_s, DURATION_S))
    total = np.zeros_like(t)
    for ratio in ratios:
        frequency = f0 * ratio * rng.uniform(0.99, 1.01)
        if frequency < 0.47 * SAMPLE_RATE:
            level = rng.uniform(0.6, 1) * ratio**-0.6
            total += level * np.exp(-t / decay_s * ratio**damping) * np.sin(2 * np.pi * frequency * t)
    return total * np.minimum(1, t / 0.0005)


def _noise(
    rng: np.random.Generator, low_hz: float, high_hz: float, decay_s: float, length: int
) -> np.ndarray:
    """A burst of noise in a band, decaying, of peak about 1."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    band = 1 / (1 + (low_hz / np.maximum(hz, 1)) ** 8) / (1 + (hz / high_hz) ** 8)
    noise = np.fft.irfft(spectrum * band, length)
    return noise / np.abs(noise).max() * np.exp(-np.arange(length) / SAMPLE_RATE / decay_s)


Struck = tuple[np.ndarray, np.ndarray]  # the ringing, and the attack that grows faster with strength


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


def _strike_wood(rng: np.random.Generator) -> Struck:
    ringing = _modes(rng, rng.uniform(500, 1000), (1, 2.57, 4.2), rng.uniform(0.02, 0.045), 0.5)
    return ringing, 0.5 * _noise(rng, 800, 4000, 0.004, len(ringing))


def _draw_metal(pen: Pen, rng: np.random.Generator) -> float:
    steel, width, y = colour(rng, 0.58, 0.12, 0.86), rng.uniform(32, 38), rng.uniform(15, 20)
    for x in (-0.6 * width, 0.6 * width):
        pen.polygon([(x - 5, 0), (x - 2, -y), (x + 2, -y), (x + 5, 0)], shade(steel, 0.35))
    pen.box(-width, -y - 8, width, -y, steel)
    pen.box(-width, -y - 8, width, -y - 6, shade(steel, 1.25))
    pen.box(-width, -y - 2, width, -y, shade(steel, 0.6))
    pen.box(-0.5 * width, -y - 6, -0.1 * width, -y - 2, shade(steel, 1.15))
    return y + 8


def _strike_metal(rng: np.random.Generator) -> Struck:
    # A free bar's modes.
    ringing = _modes(rng, rng.uniform(420, 900), (1, 2.756, 5.404, 8.933), rng.uniform(0.3, 0.7), 0.5)
    return ringing, 0.4 * _noise(rng, 3000, 7500, 0.005, len(ringing))


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


def _strike_glass(rng: np.random.Generator) -> Struck:
    ringing = _modes(rng, rng.uniform(1900, 2900), (1, 1.44, 2.03, 2.61), rng.uniform(0.07, 0.16), 0.4)
    return ringing, 0.3 * _noise(rng, 4000, 7500, 0.004, len(ringing))


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


def _strike_drum(rng: np.random.Generator) -> Struck:
    # A membrane's modes, its pitch falling by a third as the stretched skin relaxes.
    f0, decay_s = rng.uniform(70, 140), rng.uniform(0.09, 0.18)
    t = _time(6 * decay_s)
    phase = 2 * np.pi * f0 * (t + 0.5 * 0.04 * (1 - np.exp(-t / 0.04)))
    ratios = (1, 1.593, 2.136, 2.653)
    ringing = sum(r**-0.8 * np.exp(-t / decay_s * r**0.7) * np.sin(phase * r) for r in ratios)
    return ringing * np.minimum(1, t / 0.001), 0.5 * _noise(rng, 100, 1500, 0.015, len(t))


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


def _strike_tambourine(rng: np.random.Generator) -> Struck:
    decay_s = rng.uniform(0.06, 0.13)
    length = len(_time(6 * decay_s))
    jingles = 0.25 * _modes(rng, rng.uniform(4500, 5500), (1, 1.13, 1.27, 1.39), decay_s, 0)[:length]
    return _noise(rng, 3500, 7600, decay_s, length) + jingles, 0.3 * _noise(rng, 300, 2000, 0.01, length)


def _draw_water(pen: Pen, rng: np.random.Generator) -> float:
    bowl, water = colour(rng, 0.66, 0.55, 0.55), colour(rng, 0.53, 0.65, 0.9)
    width, height = rng.uniform(31, 35), rng.uniform(20, 24)
    pen.polygon([(-width, -height), (width, -height), (0.6 * width, 0), (-0.6 * width, 0)], bowl)
    pen.disc((0, -height), width, 9, shade(bowl, 1.25))
    pen.disc((0, -height + 0.5), width - 3, 7.5, water)
    pen.disc((-0.3 * width, -height - 1), 8, 1.5, shade(water, 1.3))
    return height - 1


def _strike_water(rng: np.random.Generator) -> Struck:
    # Bubbles: each a tone that rises as the bubble nears the surface; and a splash.
    decay_s, f0, rise = rng.uniform(0.05, 0.09), rng.uniform(300, 520), rng.uniform(6, 11)
    t = _time(6 * decay_s)
    ringing = np.zeros_like(t)
    for delay, ratio, level in ((0, 1, 1), (0.012, 1.5, 0.6), (0.02, 2.1, 0.35)):
        s = np.maximum(0, t - delay)
        tone = np.sin(2 * np.pi * f0 * ratio * (s + rise * s**2 / 2)) * np.exp(-s / decay_s)
        ringing += level * tone * np.minimum(1, s / 0.002)
    return ringing, 0.35 * _noise(rng, 400, 2500, 0.02, len(t))


@dataclass(frozen=True)
class StruckObject:
    """One class of objects; each object differs in size, colour, pitch and decay."""

    name: str  # in captions
    draw: Callable[[Pen, np.random.Generator], float]  # at (0, 0); returns the height of the top
    strike: Callable[[np.random.Generator], Struck]


OBJECTS = {
    "wood": StruckObject("wood block", _draw_wood, _strike_wood),
    "metal": StruckObject("metal bar", _draw_metal, _strike_metal),
    "glass": StruckObject("glass bottle", _draw_glass, _strike_glass),
    "drum": StruckObject("drum", _draw_drum, _strike_drum),
    "tambourine": StruckObject("tambourine", _draw_tambourine, _strike_tambourine),
    "water": StruckObject("water basin", _draw_water, _strike_water),
}
