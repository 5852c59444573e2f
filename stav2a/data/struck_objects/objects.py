"""What the six objects look like. Units are pixels from the middle of the object's foot; up is negative.

Each function draws the object and returns the height at which it is struck. Colour and shape tell the
class; both vary from clip to clip.
"""

from collections.abc import Callable

import numpy as np

from stav2a.data.struck_objects.pen import Pen, colour, shade


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
