"""Pretrained models that judge sounds, each with its own front end."""

from stav2a.metrics.judges import clap, cnn14, ms_clap, vggish, yamnet

__all__ = ["cnn14", "clap", "ms_clap", "vggish", "yamnet"]
