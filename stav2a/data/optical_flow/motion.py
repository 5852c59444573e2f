"""Motion of the picture, frame by frame, in whose peaks AV-Align [17] is defined."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from stav2a.data.media import Decoded, MediaError
from stav2a.registry import register
from stav2a.slots import OpticalFlow
from stav2a.utils.files import write_json
from stav2a.utils.store import save_tensors


@register("optical_flow", "farneback")
class Farneback:
    """Farneback's dense flow by OpenCV, with the settings that AV-Align is defined with [17]: exact and slow.

    Shapes:
        grey (N, H, W) uint8 -> mean magnitude (N - 1,) in pixels a frame
    """

    definition = "Farneback"

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        flow = np.empty((*grey.shape[1:], 2), np.float32)  # one buffer for all pairs, as allocation is slow
        means = []
        for before, after in zip(grey, grey[1:], strict=False):
            cv2.calcOpticalFlowFarneback(before, after, flow, 0.5, 3, 15, 3, 5, 1.2, 0)
            means.append(mean_magnitude(flow[..., 0], flow[..., 1]))
        return np.array(means)


def mean_magnitude(u: np.ndarray, v: np.ndarray) -> float:
    """Mean length of flow vectors, the same in every run.

    OpenCV's rounding depends on the memory address of its result, so the result begins on a cache line.

    Shapes:
        u (H, W) float32, v (H, W) float32
    """
    memory = np.empty(u.size + 16, np.float32)
    start = -memory.ctypes.data % 64 // memory.itemsize
    return float(cv2.magnitude(u, v, memory[start : start + u.size].reshape(u.shape)).mean())


def motion(frames: np.ndarray, size: int | None = None, flow: OpticalFlow | None = None) -> np.ndarray:
    """Mean optical flow between successive frames, in native pixels a frame.

    The first value is the second's, as released: `[flow(0, 1)] + [flow(i - 1, i)]`.

    Args:
        frames: At least 3, at their native rate.
        size: Length of the shorter side at which the flow is found, for speed; by default the native size.
            The flow is scaled back to native pixels.
        flow: Optical flow to use; by default Farneback's, exactly.

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


def clip_motion(clip: Decoded, size: int | None = None, flow: OpticalFlow | None = None) -> np.ndarray:
    """`motion` of a decoded clip, in pixels of its file, also where its frames were reduced to fit memory."""
    return clip.reduction * motion(clip.frames, size, flow)


@dataclass(frozen=True)
class ClipFlow:
    """Motion of a clip's picture.

    Args:
        motion: Mean flow of every frame (L,), see `motion`.
        frame_rate_hz: Average frames a second.
        times_s: Times of the frames (L,).
    """

    motion: np.ndarray
    frame_rate_hz: float
    times_s: np.ndarray

    @classmethod
    def of(cls, clip: Decoded, flow: OpticalFlow) -> "ClipFlow":
        """The motion of a decoded clip, at its own size and rate."""
        return cls(clip_motion(clip, flow=flow), clip.frame_rate_hz, clip.times_s)


def save_flows(folder: Path, flows: Sequence[ClipFlow]) -> None:
    """Write the motion of some clips."""
    rows = {str(i): torch.from_numpy(np.stack([each.motion, each.times_s])) for i, each in enumerate(flows)}
    save_tensors(folder / "flows.safetensors", rows)
    write_json(folder / "rates.json", [each.frame_rate_hz for each in flows])


def load_flows(folder: Path) -> list[ClipFlow]:
    """Read what `save_flows` wrote."""
    rates = json.loads((folder / "rates.json").read_text(encoding="utf-8"))
    rows = load_file(folder / "flows.safetensors")
    return [ClipFlow(rows[str(i)][0].numpy(), rate, rows[str(i)][1].numpy()) for i, rate in enumerate(rates)]
