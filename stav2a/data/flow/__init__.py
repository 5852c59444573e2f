"""Optical flow, and how much a picture moves by it."""

from stav2a.data.flow.farneback import Farneback
from stav2a.data.flow.motion import motion
from stav2a.data.flow.sparse import SparseFarneback

__all__ = ["Farneback", "SparseFarneback", "motion"]
