"""Optical flow, and the picture's motion by it."""

from stav2a.data.optical_flow.motion import Farneback, clip_motion, motion, save_flows
from stav2a.data.optical_flow.sparse import SparseFarneback

__all__ = ["Farneback", "SparseFarneback", "clip_motion", "motion", "save_flows"]
