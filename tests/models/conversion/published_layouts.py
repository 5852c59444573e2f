"""Checkpoints of random weights whose keys are written out by hand, as the published ones are documented."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from stav2a.metrics.judges.yamnet import ONNX_NAMES, YAMNetwork
from stav2a.models.conversion.converters import ConversionOptions
from stav2a.models.conversion.layouts import UNetSizes
from tests import tiny

State = dict[str, Tensor]

CAVP: dict[str, Any] = {
    "width": 4, "blocks": (1, 1, 1, 1), "dim": 8, "frame_rate_hz": 4.0, "frame_size": 16,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (8, 16, 32), "latent_channels": 4, "layers_per_block": 2, "patch": 1,
    "mel_mean": 0.0, "mel_std": 1.0, "mel_floor": -11.6,
}  # fmt: skip
HIFIGAN: dict[str, Any] = {"upsample_initial_channel": 32}
CHOICES = ConversionOptions(
    unet=UNetSizes(tiny.unet.keywords, latent_channels=4, cond_dim=8),
    cavp=CAVP,
    vae=VAE,
    hifigan=HIFIGAN,
)
SCALE_FACTOR = 0.8


def random(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    rng = torch.Generator().manual_seed(seed)
    state = {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    return {name: 1 + t.abs() if name.endswith("running_var") else t for name, t in state.items()}


def layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A layer's weight and bias; a norm's where the shape is one number."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def cavp(dim: int = 8) -> State:
    """CAVP's tower in four stages of one bottleneck, with the two parts that are ignored."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_norm(name: str, out: int, inside: int, *kernel: int) -> None:
        shapes[f"video_encoder.{name}.conv.weight"] = (out, inside, *kernel)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"video_encoder.{name}.bn.{kind}"] = (out,)

    conv_norm("conv1", 4, 3, 1, 7, 7)
    inside = 4
    for stage in range(4):
        planes, long = 4 * 2**stage, 3 if stage >= 2 else 1
        conv_norm(f"layer{stage + 1}.0.conv1", planes, inside, long, 1, 1)
        conv_norm(f"layer{stage + 1}.0.conv2", planes, planes, 1, 3, 3)
        conv_norm(f"layer{stage + 1}.0.conv3", 4 * planes, planes, 1, 1, 1)
        conv_norm(f"layer{stage + 1}.0.downsample", 4 * planes, inside, 1, 1, 1)
        inside = 4 * planes
    shapes |= dict(layer("video_project_head", dim, inside))
    state = random(shapes)
    state |= {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in state
        if name.endswith("running_var")
    }
    return state | {"spec_encoder.conv_block1.conv1.weight": torch.zeros(2, 1), "logit_scale": torch.ones(())}


def ldm_vae(prefix: str = "", latent: int = 4) -> State:
    """Latent diffusion's autoencoder: widths 8, 16, 32, two blocks a resolution, one channel."""
    widths, shapes = (8, 16, 32), {}

    def block(name: str, inside: int, out: int) -> None:
        shapes.update(layer(f"{name}.norm1", inside), **dict(layer(f"{name}.conv1", out, inside, 3, 3)))
        shapes.update(layer(f"{name}.norm2", out), **dict(layer(f"{name}.conv2", out, out, 3, 3)))
        if inside != out:
            shapes.update(layer(f"{name}.nin_shortcut", out, inside, 1, 1))

    def middle(name: str) -> None:
        block(f"{name}.block_1", 32, 32)
        shapes.update(layer(f"{name}.attn_1.norm", 32))
        for kind in ("q", "k", "v", "proj_out"):
            shapes.update(layer(f"{name}.attn_1.{kind}", 32, 32, 1, 1))
        block(f"{name}.block_2", 32, 32)

    shapes.update(layer("encoder.conv_in", 8, 1, 3, 3))
    inside = 8
    for i, width in enumerate(widths):
        for j in range(2):
            block(f"encoder.down.{i}.block.{j}", inside, width)
            inside = width
        if i < 2:
            shapes.update(layer(f"encoder.down.{i}.downsample.conv", width, width, 3, 3))
    middle("encoder.mid")
    shapes.update(layer("encoder.norm_out", 32), **dict(layer("encoder.conv_out", 2 * latent, 32, 3, 3)))
    shapes.update(layer("decoder.conv_in", 32, latent, 3, 3))
    middle("decoder.mid")
    inside = 32
    for i, width in reversed(list(enumerate(widths))):
        for j in range(3):
            block(f"decoder.up.{i}.block.{j}", inside, width)
            inside = width
        if i > 0:
            shapes.update(layer(f"decoder.up.{i}.upsample.conv", width, width, 3, 3))
    shapes.update(layer("decoder.norm_out", 8), **dict(layer("decoder.conv_out", 1, 8, 3, 3)))
    shapes.update(layer("quant_conv", 2 * latent, 2 * latent, 1, 1))
    shapes.update(layer("post_quant_conv", latent, latent, 1, 1))
    return {prefix + name: tensor for name, tensor in random(shapes, seed=1).items()}


def hifigan(prefix: str = "") -> State:
    """HiFi-GAN with AudioLDM's rates and 32 channels at first."""
    shapes = dict(layer("conv_pre", 32, 64, 7))
    for i, kernel in enumerate((16, 16, 8, 4, 4)):
        inside, out = 32 // 2**i, 32 // 2 ** (i + 1)
        shapes |= {f"ups.{i}.weight": (inside, out, kernel), f"ups.{i}.bias": (out,)}  # transposed
        for j, size in enumerate((3, 7, 11)):
            for k in range(3):
                shapes |= dict(layer(f"resblocks.{3 * i + j}.convs1.{k}", out, out, size))
                shapes |= dict(layer(f"resblocks.{3 * i + j}.convs2.{k}", out, out, size))
    shapes |= dict(layer("conv_post", 1, 1, 7))
    return {prefix + name: tensor for name, tensor in random(shapes, seed=2).items()}


def t5(prefix: str, *, words: int = 8, width: int = 16) -> State:
    """A T5 encoder of one layer: two heads of 8, gated; the words' table under both its names."""
    block = "encoder.block.0.layer"
    shapes: dict[str, tuple[int, ...]] = {
        "shared.weight": (words, width),
        f"{block}.0.SelfAttention.relative_attention_bias.weight": (32, 2),
        f"{block}.0.layer_norm.weight": (width,),
        f"{block}.1.DenseReluDense.wi_0.weight": (24, width),
        f"{block}.1.DenseReluDense.wi_1.weight": (24, width),
        f"{block}.1.DenseReluDense.wo.weight": (width, 24),
        f"{block}.1.layer_norm.weight": (width,),
        "encoder.final_layer_norm.weight": (width,),
    }
    shapes |= {f"{block}.0.SelfAttention.{kind}.weight": (16, width) for kind in "qkv"}
    shapes[f"{block}.0.SelfAttention.o.weight"] = (width, 16)
    state = random(shapes, seed=3)
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    return {prefix + name: tensor for name, tensor in state.items()}


def unet() -> State:
    """A U-Net of stock diffusers, which Tango and its kin are."""
    made = tiny.unet(latent_channels=4, cond_dim=8)
    tiny.shake(made)
    return {f"unet.{name}": tensor for name, tensor in made.state_dict().items()}


def audioldm(latent: int = 4) -> State:
    state = ldm_vae("first_stage_model.", latent) | hifigan("first_stage_model.vocoder.")
    state["scale_factor"] = torch.tensor(SCALE_FACTOR)
    state["model.diffusion_model.out.0.weight"] = torch.ones(3)
    return state | {"cond_stage_model.model.logit_scale_a": torch.ones(()), "betas": torch.ones(10)}


CHECKPOINTS = {
    "cavp": cavp,
    "tango": lambda: unet() | t5("text_encoder."),
    "audioldm": audioldm,
    "vta_ldm": lambda: unet(),
    "hifigan": hifigan,
    "yamnet": lambda: {ONNX_NAMES[name]: tensor for name, tensor in YAMNetwork().state_dict().items()},
}
