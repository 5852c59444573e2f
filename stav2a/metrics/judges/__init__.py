"""Pretrained models that judge sounds, each with its own front end."""

from stav2a.metrics.judges import cavp, clap, cnn14, ms_clap, passt, synchformer, vggish, yamnet

__all__ = ["cnn14", "cavp", "clap", "ms_clap", "passt", "synchformer", "vggish", "yamnet"]
