"""Feature encoders: a silent video becomes one vector a frame."""

from stav2a.components.feature_encoders.cavp import CAVP, SlowOnly
from stav2a.components.feature_encoders.vision_transformers import CLIP, VJEPA2, VideoMAE

__all__ = ["CAVP", "CLIP", "VJEPA2", "SlowOnly", "VideoMAE"]
