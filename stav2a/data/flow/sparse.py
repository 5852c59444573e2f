"""Farneback's flow on every second pixel: nearly the same figures in a tenth of the time."""

from collections.abc import Iterator

import cv2
import numpy as np

from stav2a.registry import register

# The settings of `optical_flow.farneback`, and what OpenCV sets by itself.
LEVELS, SMALLEST, WINDOW, ITERATIONS = 3, 32, 15, 3
REACH, SIGMA = 5, 1.2  # of the quadratics: pixels to each side, and the deviation of their weights
EDGE = (0.14, 0.14, 0.4472, 0.4472, 0.4472)  # how little the outermost pixels are trusted


@register("optical_flow", "sparse_farneback")
class SparseFarneback:
    """Farneback's flow as `optical_flow.farneback` has it, but solved for a grid of pixels instead of all.

    The quadratics around every pixel, the levels, the window and the iterations are the same; a window of
    15 pixels holds 7.5 points of the grid in each direction. As the flow is smooth over a window, its mean
    hardly changes: docs/filters.md has the agreement. Compiled when first used, which takes some seconds.

    Args:
        step: Pixels from one point of the grid to the next; 1 gives what OpenCV gives.
        finest: Pictures with a shorter side of fewer pixels are solved for every pixel.

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
        grids = [_Grid(*shape, step) for shape in level_shapes(*grey.shape[1:])]
        means, before = [], None
        for picture in grey:
            after = list(expansions(picture, [grid.shape for grid in grids]))
            if before is not None:
                means.append(float(cv2.magnitude(*_flow(before, after, grids)).mean()))
            before = after
        return np.array(means)


class _Grid:
    """The points of one level for which the flow is solved.

    Args:
        height: Of the level's picture.
        width: Of the level's picture.
        step: From one point to the next.
    """

    def __init__(self, height: int, width: int, step: int) -> None:
        self.shape, self.step, self.taps = (height, width), step, window(WINDOW / step)
        ys, xs = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
        self.points = len(ys), len(xs)
        self.trust = _trust(ys, height), _trust(xs, width)
        # Where the points are on the grid of the next coarser level. A pixel's centre is half a pixel in.
        down, across = (((each + 0.5) / 2 - 0.5 - step // 2) / step for each in (ys, xs))
        self.coarser = np.meshgrid(across.astype(np.float32), down.astype(np.float32))

    def first_guess(self, coarse: np.ndarray | None) -> np.ndarray:
        """(2, h, w): the flow of the coarser level, twice as long; 0 at the coarsest."""
        if coarse is None:
            return np.zeros((2, *self.points), np.float32)
        border = cv2.BORDER_REPLICATE
        return np.stack(
            [2 * cv2.remap(each, *self.coarser, cv2.INTER_LINEAR, borderMode=border) for each in coarse]
        )


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


def expansions(picture: np.ndarray, shapes: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    """The quadratics of a picture at every level.

    Shapes:
        picture (H, W) uint8 -> (5, h, w) float32 each
    """
    from stav2a.data.flow.kernels import expand

    for level, (height, width) in enumerate(shapes):
        sigma = (2**level - 1) / 2
        size = max(3, round(5 * sigma) | 1)
        blur = cv2.getGaussianKernel(size, sigma, cv2.CV_32F)
        small = cv2.sepFilter2D(picture, cv2.CV_32F, blur, blur)
        if level:
            small = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        wide = cv2.copyMakeBorder(small, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
        out = np.empty((5, height, width), np.float32)
        expand(wide, TAPS, INVERSE, out)
        yield out


def _flow(before: list[np.ndarray], after: list[np.ndarray], grids: list[_Grid]) -> np.ndarray:
    """The flow at the points of the finest level's grid, (2, h, w), from the coarsest level on."""
    from stav2a.data.flow.kernels import refine

    flow = None
    for first, second, grid in zip(before[::-1], after[::-1], grids[::-1], strict=True):
        flow = grid.first_guess(flow)
        refine(first, second, flow, grid.step, grid.trust[0], grid.trust[1], grid.taps, ITERATIONS)
    assert flow is not None
    return flow


def window(points: float) -> np.ndarray:
    """Weights of a mean over so many points of a grid, from its middle outwards; the last counts in part.

    Example:
        >>> 8 * window(4)
        array([2., 2., 1.], dtype=float32)
    """
    half = int(np.ceil((points - 1) / 2))
    taps = np.ones(half + 1)
    taps[-1] = (points - (2 * half - 1)) / 2
    return (taps / points).astype(np.float32)


def _trust(places: np.ndarray, length: int) -> np.ndarray:
    trust = np.ones(length, np.float32)
    trust[: len(EDGE)] *= EDGE
    trust[-len(EDGE) :] *= EDGE[::-1]
    return trust[places]


def _quadratics() -> tuple[np.ndarray, np.ndarray]:
    """The filters' taps from the middle outwards, times 1, x and x²; and of the inverse of their moments
    what is not zero: of (b, b), (1, A), (A, A), (A_xx, A_yy) and (A_xy, A_xy)."""
    x = np.arange(-REACH, REACH + 1, dtype=np.float64)
    g = np.exp(-(x**2) / (2 * SIGMA**2))
    g /= g.sum()
    taps = np.stack([g, x * g, x**2 * g])[:, REACH:].astype(np.float32)
    across, down = (each.ravel() for each in np.meshgrid(x, x))
    basis = np.stack([np.ones_like(across), across, down, across**2, down**2, across * down])
    inverse = np.linalg.inv((basis * np.outer(g, g).ravel()) @ basis.T)
    return taps, np.array([inverse[each] for each in ((1, 1), (0, 3), (3, 3), (3, 4), (5, 5))], np.float32)


TAPS, INVERSE = _quadratics()
