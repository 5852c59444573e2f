"""Drawing with smooth edges at fractions of a pixel."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

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
