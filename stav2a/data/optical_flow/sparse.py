"""Farneback's flow on every second pixel: nearly the same figures in a tenth of the time."""

import itertools

import cv2
import numpy as np
from scipy.sparse import csr_array

from stav2a.data.optical_flow.motion import mean_magnitude
from stav2a.registry import register

LEVELS, SMALLEST = 3, 32  # halvings, and the shortest side that one may lead to, as in OpenCV


class Pyramid:
    """Pictures blurred and reduced as by OpenCV's Farneback, with a quadratic around every pixel.

    Shapes:
        (H, W) uint8 -> a (h, 5, w) float32 a level, the finest first; the planes are explained in `kernels`.
        They are overwritten with the picture after the next one, as allocation is slow.
    """

    def __init__(self, height: int, width: int) -> None:
        self.shapes = level_shapes(height, width)
        self._reductions = [
            (_reduction(height, h, level), _reduction(width, w, level))
            for level, (h, w) in enumerate(self.shapes[1:], start=1)
        ]
        turns = ([np.empty((h, 5, w), np.float32) for h, w in self.shapes] for _ in range(2))
        self._turns = itertools.cycle(list(turns))

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        from stav2a.data.optical_flow.kernels import REACH, expand

        blur = _blur(0)
        sharp = picture.astype(np.float32)
        reduced = [cv2.transpose(across @ cv2.transpose(down @ sharp)) for down, across in self._reductions]
        made = next(self._turns)
        smoothed = [cv2.sepFilter2D(sharp, cv2.CV_32F, blur, blur), *reduced]
        for small, planes in zip(smoothed, made, strict=True):
            wide = cv2.copyMakeBorder(small, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
            expand(wide, planes)
        return made


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width at every level, the finest first.

    Example:
        >>> level_shapes(256, 340)
        [(256, 340), (128, 170), (64, 85), (32, 42)]
    """
    scales = [0.5**level for level in range(LEVELS + 1)]
    return [
        (round(height * scale), round(width * scale))
        for scale in scales
        if scale == 1 or min(height, width) * scale >= SMALLEST
    ]


def _blur(level: int) -> np.ndarray:
    sigma = (2**level - 1) / 2
    return cv2.getGaussianKernel(max(3, round(5 * sigma) | 1), sigma, cv2.CV_32F)


def _reduction(length: int, reduced: int, level: int) -> csr_array:
    """OpenCV's blur and resizing in one direction as a matrix, since few of the blurred rows are needed.

    Shapes:
        (reduced, length)
    """
    each, none = np.eye(length, dtype=np.float32), np.ones(1, np.float32)
    blurred = cv2.sepFilter2D(each, cv2.CV_32F, none, _blur(level))
    return csr_array(cv2.resize(blurred, (length, reduced), interpolation=cv2.INTER_LINEAR))


# The settings of `optical_flow.farneback`, and OpenCV's constant weights of the outermost pixels.
WINDOW, ITERATIONS = 15, 3
EDGE = (0.14, 0.14, 0.4472, 0.4472, 0.4472)


@register("optical_flow", "sparse_farneback")
class SparseFarneback:
    """Farneback's flow as `optical_flow.farneback` has it, but solved for a grid of pixels instead of all.

    The quadratics around every pixel, the levels, the window and the iterations are the same; a window of
    15 pixels holds 7.5 points of the grid in each direction. As the flow is smooth over a window, its mean
    hardly changes: docs/filters.md has the agreement. Compiled when first used, which takes some seconds.

    Args:
        step: Pixels from one point of the grid to the next; 1 gives OpenCV's flow.
        finest: Shorter side in pixels below which pictures are solved for every pixel.

    Shapes:
        grey (N, H, W) uint8 -> mean magnitude (N - 1,) in pixels a frame
    """

    def __init__(self, *, step: int = 2, finest: int = 200) -> None:
        self.step, self.finest = step, finest

    @property
    def definition(self) -> str:
        return f"Farneback, every {self.step}nd pixel"

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        step = self.step if min(grey.shape[1:]) >= self.finest else 1
        pyramid = Pyramid(*grey.shape[1:])
        grids = [_Grid(*shape, step) for shape in pyramid.shapes]
        means, before = [], None
        for picture in grey:
            after = pyramid(picture)
            if before is not None:
                means.append(mean_magnitude(*_flow(before, after, grids)))
            before = after
        return np.array(means)


class _Grid:
    """The points of one level for which the flow is solved, a step of pixels apart."""

    def __init__(self, height: int, width: int, step: int) -> None:
        self.step, self.taps = step, window(WINDOW / step)
        ys, xs = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
        self.points = len(ys), len(xs)
        self.trust = _trust(ys, height), _trust(xs, width)
        self.found = np.empty((len(ys), 5, len(xs) + 2 * (len(self.taps) - 1)), np.float32)
        self.coarser = _among_coarser(ys, step), _among_coarser(xs, step)


def _flow(before: list[np.ndarray], after: list[np.ndarray], grids: list[_Grid]) -> np.ndarray:
    """The flow at the points of the finest level's grid, (2, h, w), from the coarsest level on."""
    from stav2a.data.optical_flow.kernels import double, refine

    flow: np.ndarray = np.empty(0, np.float32)
    for first, second, grid in zip(before[::-1], after[::-1], grids[::-1], strict=True):
        guess = np.zeros((2, *grid.points), np.float32)
        if flow.size:
            double(flow, *grid.coarser, guess)
        start = grid.step // 2
        points = np.ascontiguousarray(first[start :: grid.step, :, start :: grid.step])  # (h, 5, w)
        refine(points, second, guess, grid.step, *grid.trust, grid.taps, grid.found, ITERATIONS)
        flow = guess
    return flow


def _among_coarser(places: np.ndarray, step: int) -> np.ndarray:
    """Places of points among those of the next coarser level: (2, n), the number of one and the rest.

    A pixel's centre is half a pixel in.
    """
    at = np.maximum(((places + 0.5) / 2 - 0.5 - step // 2) / step, 0)
    return np.stack([at // 1, at % 1]).astype(np.float32)


def window(points: float) -> tuple[np.float32, ...]:
    """Weights of a mean over so many points of a grid, from its middle outwards; the last counts in part.

    Example:
        >>> [float(8 * weight) for weight in window(4)]
        [2.0, 2.0, 1.0]
    """
    half = int(np.ceil((points - 1) / 2))
    taps = np.ones(half + 1)
    taps[-1] = (points - (2 * half - 1)) / 2
    return tuple((taps / points).astype(np.float32))


def _trust(places: np.ndarray, length: int) -> np.ndarray:
    trust = np.ones(length, np.float32)
    trust[: len(EDGE)] *= EDGE
    trust[-len(EDGE) :] *= EDGE[::-1]
    return trust[places]
