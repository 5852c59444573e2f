"""A picture's quadratics at every size that the sparse flow is solved at."""

import itertools

import cv2
import numpy as np
from scipy.sparse import csr_array

LEVELS, SMALLEST = 3, 32  # halvings, and the shortest side that one may lead to, as in OpenCV


class Pyramid:
    """Blurs and reduces a picture as OpenCV's Farneback does, and fits a quadratic around every pixel.

    Args:
        height: Of the pictures.
        width: Of the pictures.

    Shapes:
        (H, W) uint8 -> a (h, 5, w) float32 a level, the finest first; the planes are explained in `kernels`.
        They are overwritten when the picture after the next one comes: memory had anew takes its time.
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
        blur = _blur(0)
        sharp = picture.astype(np.float32)
        reduced = [cv2.transpose(across @ cv2.transpose(down @ sharp)) for down, across in self._reductions]
        made = next(self._turns)
        for small, planes in zip(
            (cv2.sepFilter2D(sharp, cv2.CV_32F, blur, blur), *reduced), made, strict=True
        ):
            _expand(small, planes)
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
    """What OpenCV's blur and resizing do in one direction, as a matrix: few of the blurred rows are needed.

    Shapes:
        (reduced, length)
    """
    each, none = np.eye(length, dtype=np.float32), np.ones(1, np.float32)
    blurred = cv2.sepFilter2D(each, cv2.CV_32F, none, _blur(level))
    return csr_array(cv2.resize(blurred, (length, reduced), interpolation=cv2.INTER_LINEAR))


def _expand(picture: np.ndarray, planes: np.ndarray) -> None:
    from stav2a.data.flow.kernels import REACH, expand

    wide = cv2.copyMakeBorder(picture, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
    expand(wide, planes)
