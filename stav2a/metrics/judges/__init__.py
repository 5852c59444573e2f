"""Pretrained models that judge sounds, each with its own front end."""

from stav2a.metrics.judges import (
    audiobox_aesthetics,
    cavp,
    clap,
    cnn14,
    imagebind,
    ms_clap,
    vggish,
    yamnet,
)

__all__ = ["audiobox_aesthetics", "cnn14", "cavp", "clap", "imagebind", "ms_clap", "vggish", "yamnet"]
