"""Optical flow, and the picture's motion by it."""

from stav2a.data.optical_flow.motion import ClipFlow, Farneback, clip_motion, load_flows, motion, save_flows
from stav2a.data.optical_flow.sparse import SparseFarneback

__all__ = [
    "ClipFlow", "Farneback", "SparseFarneback", "clip_motion", "load_flows", "motion", "save_flows",
]  # fmt: skip
