"""How checkpoints call what we call by its stock name: tables, and nothing else."""

import re
from collections.abc import Sequence

# AutoencoderKL of diffusers -> that of latent diffusion (CompVis), the layout of AudioLDM's first stage.
# {i} counts resolutions from the finest here, {r} the same for the decoder, which counts the other way round.
VAE = (
    (r"^(encoder)\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"\1.down.\2.block.\3."),
    (r"^(encoder)\.down_blocks\.(\d+)\.downsamplers\.0\.conv\.", r"\1.down.\2.downsample.conv."),
    (r"^(decoder)\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r"\1.up.<\2>.block.\3."),
    (r"^(decoder)\.up_blocks\.(\d+)\.upsamplers\.0\.conv\.", r"\1.up.<\2>.upsample.conv."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)
VAE_LINEAR = re.compile(r"\.attentions\.0\.to_(?:q|k|v|out\.0)\.weight$")  # 1x1 convolutions over there

VOCODER = ((r"^upsampler\.", "ups."),)  # SpeechT5HifiGan -> HiFi-GAN


def renamed(name: str, table: Sequence[tuple[str, str]]) -> str:
    """The name after every replacement of a table.

    Example:
        >>> renamed("upsampler.0.weight", VOCODER)
        'ups.0.weight'
    """
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def vae_name(name: str, levels: int) -> str:
    """AudioLDM's name of a tensor of `AutoencoderKL` with this many resolutions.

    Example:
        >>> vae_name("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", levels=3)
        'decoder.up.2.block.1.nin_shortcut.weight'
        >>> vae_name("encoder.mid_block.attentions.0.to_out.0.bias", levels=3)
        'encoder.mid.attn_1.proj_out.bias'
    """
    return re.sub(r"<(\d+)>", lambda match: str(levels - 1 - int(match[1])), renamed(name, VAE))


def vae_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape over there: linear layers of attention are 1x1 convolutions.

    Example:
        >>> vae_shape("encoder.mid_block.attentions.0.to_q.weight", (8, 8))
        (8, 8, 1, 1)
    """
    return (*shape, 1, 1) if VAE_LINEAR.search(name) else shape
