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
        flow = np.empty((*grey.shape[1:], 2), np.float32)  # one for all pairs: no memory to be had anew
        means = []
        for before, after in zip(grey, grey[1:], strict=False):
            cv2.calcOpticalFlowFarneback(before, after, flow, 0.5, 3, 15, 3, 5, 1.2, 0)
            means.append(float(cv2.magnitude(flow[..., 0], flow[..., 1]).mean()))
        return np.array(means)
