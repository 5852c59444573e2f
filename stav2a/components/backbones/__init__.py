"""Backbones: what predicts the noise, from the noisy latent and all conditions."""

from stav2a.components.backbones.controlnet import LocalEmbedding, UNetControlNet, UNetControlNetMasked
from stav2a.components.backbones.fdn import FDN, UNetControlNetFDN
from stav2a.components.backbones.released import (
    PlainEmbedding,
    SpreadEmbedding,
    UNetControlNetPlain,
    UNetControlNetReleased,
)
from stav2a.components.backbones.unet import UNetBackbone
from stav2a.components.backbones.xs import UNetControlNetXS

__all__ = [
    "FDN",
    "LocalEmbedding",
    "PlainEmbedding",
    "SpreadEmbedding",
    "UNetBackbone",
    "UNetControlNet",
    "UNetControlNetFDN",
    "UNetControlNetMasked",
    "UNetControlNetPlain",
    "UNetControlNetReleased",
    "UNetControlNetXS",
]
