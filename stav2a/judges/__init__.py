"""Pretrained models that judge sounds, each with its own front end. Weights are given by path."""

from stav2a.judges import cnn14, language_audio, ms_clap, vggish

__all__ = ["cnn14", "language_audio", "ms_clap", "vggish"]
