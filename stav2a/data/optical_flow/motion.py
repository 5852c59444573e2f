"""How much the picture moves, frame by frame: what AV-Align [17] looks for peaks in."""

import cv2
import numpy as np

from stav2a.data.media import MediaError
from stav2a.registry import register
from stav2a.slots import OpticalFlow


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


def motion(frames: np.ndarray, size: int | None = None, flow: OpticalFlow | None = None) -> np.ndarray:
    """Mean optical flow between successive frames, in native pixels a frame.

    The first value is the second's, as released: `[flow(0, 1)] + [flow(i - 1, i)]`.

    Args:
        frames: At least 3, at their native rate.
        size: Length of the shorter side at which the flow is found, for speed; by default the native size.
            The flow is scaled back to native pixels.
        flow: Finds the flow; by default Farneback's, exactly.

    Shapes:
        frames (N, H, W, 3) RGB or (N, H, W) grey, uint8 -> (N,) float64

    Raises:
        MediaError: If there are fewer than 3 frames.
    """
    if len(frames) < 3:
        raise MediaError(
            f"AV-Align was given {len(frames)} frames; motion has peaks from 3 on. Leave the clip out."
        )
    scale = 1.0 if size is None else size / min(frames.shape[1:3])
    shape = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    grey = frames if frames.ndim == 3 else np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames])
    if scale != 1:
        grey = np.stack([cv2.resize(f, shape, interpolation=cv2.INTER_AREA) for f in grey])
    means = (flow or Farneback())(grey) / scale
    return np.array([means[0], *means])
