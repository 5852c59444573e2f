"""Optical flow, and how much a picture moves by it."""

from stav2a.data.optical_flow.motion import Farneback, motion
from stav2a.data.optical_flow.sparse import SparseFarneback

__all__ = ["Farneback", "SparseFarneback", "motion"]
