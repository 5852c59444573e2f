"""The flow that AV-Align is defined with."""

import cv2
import numpy as np

from stav2a.registry import register


@register("optical_flow", "farneback")
class Farneback:
    """Farneback's dense flow by OpenCV, with the settings that AV-Align is defined with [17]: exact and slow.

    Shapes:
        grey (N, H, W) uint8 -> mean magnitude (N - 1,) in pixels a frame
    """

    definition = "Farneback"

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        return np.array([_mean_flow(a, b) for a, b in zip(grey, grey[1:], strict=False)])


def _mean_flow(before: np.ndarray, after: np.ndarray) -> float:
    flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    return float(cv2.magnitude(flow[..., 0], flow[..., 1]).mean())
