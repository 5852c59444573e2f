"""Pretrained models that judge sounds, each with its own front end."""

from stav2a.metrics.judges import (
    audiobox_aesthetics,
    cavp,
    clap,
    cnn14,
    imagebind,
    ms_clap,
    passt,
    synchformer,
    vggish,
    yamnet,
)

__all__ = [
    "audiobox_aesthetics", "cavp", "clap", "cnn14", "imagebind", "ms_clap", "passt", "synchformer", "vggish",
    "yamnet",
]  # fmt: skip
