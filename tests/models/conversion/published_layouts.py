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
MMAUDIO: dict[str, Any] = {"bins": 8, "latent_channels": 4, "hidden_channels": 8}
OOBLECK: dict[str, Any] = {
    "hidden_size": 8, "downsampling_ratios": (2, 4), "channel_multiples": (1, 2), "audio_channels": 2,
    "sample_rate": 44_100,
}  # fmt: skip
BIGVGAN: dict[str, Any] = {
    "bins": 8, "upsample_initial_channel": 8, "upsample_rates": (4, 2), "upsample_kernel_sizes": (8, 4),
    "sample_rate": 44_100,
}  # fmt: skip
CHOICES = ConversionOptions(
    unet=UNetSizes(tiny.unet.keywords, latent_channels=4, cond_dim=8),
    cavp=CAVP,
    vae=VAE,
    hifigan=HIFIGAN,
    mmaudio=MMAUDIO,
    oobleck=OOBLECK,
    bigvgan=BIGVGAN,
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


def mmaudio() -> State:
    """MMAudioVAE of diffusers: 8 bins, 4 latent channels, widths 8, 16 and 32; its front end is left out."""
    shapes: dict[str, tuple[int, ...]] = {"data_mean": (1, 8, 1), "data_std": (1, 8, 1)}

    def block(name: str, inside: int, out: int) -> None:
        shapes[f"{name}.conv1.weight"] = (out, inside, 3)
        shapes[f"{name}.conv2.weight"] = (out, out, 3)
        if inside != out:
            shapes[f"{name}.nin_shortcut.weight"] = (out, inside, 1)

    def ends(name: str, first: tuple[int, int], last: tuple[int, int]) -> None:
        shapes[f"{name}.conv_in.weight"] = (*first, 3)
        shapes[f"{name}.conv_out.weight"] = (*last, 3)
        shapes[f"{name}.learnable_gain"] = ()
        block(f"{name}.mid.block_1", 32, 32)
        shapes[f"{name}.mid.attn_1.qkv.weight"] = (96, 32, 1)
        shapes[f"{name}.mid.attn_1.proj_out.weight"] = (32, 32, 1)
        block(f"{name}.mid.block_2", 32, 32)

    ends("encoder", (8, 8), (8, 32))
    ends("decoder", (32, 4), (8, 8))
    inside = 8
    for i, width in enumerate((8, 16, 32)):
        for j in range(2):
            block(f"encoder.down.{i}.block.{j}", inside, width)
            inside = width
    shapes |= {f"encoder.down.0.downsample.conv{i}.weight": (8, 8, 1) for i in (1, 2)}
    for i, width in reversed(list(enumerate((8, 16, 32)))):
        for j in range(3):
            block(f"decoder.up.{i}.block.{j}", inside, width)
            inside = width
    shapes["decoder.up.1.upsample.conv.weight"] = (16, 16, 3)
    state = {f"vae.{name}": tensor for name, tensor in random(shapes, seed=4).items()}
    return state | {"mel_converter.mel_basis": torch.ones(8, 5), "mel_converter.hann_window": torch.ones(8)}


def oobleck() -> State:
    """AutoencoderOobleck of diffusers: widths 8, 8 and 16, ratios 2 and 4, stereo, weight normalisation."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, inside: int, kernel: int, *, bias: int) -> None:
        shapes.update({f"{name}.weight_g": (out, 1, 1), f"{name}.weight_v": (out, inside, kernel)})
        if bias:
            shapes[f"{name}.bias"] = (bias,)

    def snake(name: str, width: int) -> None:
        shapes.update({f"{name}.alpha": (1, width, 1), f"{name}.beta": (1, width, 1)})

    def units(name: str, width: int) -> None:
        for i in (1, 2, 3):
            for j, kernel in ((1, 7), (2, 1)):
                snake(f"{name}.res_unit{i}.snake{j}", width)
                conv(f"{name}.res_unit{i}.conv{j}", width, width, kernel, bias=width)

    conv("encoder.conv1", 8, 2, 7, bias=8)
    conv("encoder.conv2", 8, 16, 3, bias=8)
    snake("encoder.snake1", 16)
    conv("decoder.conv1", 16, 4, 7, bias=16)
    conv("decoder.conv2", 2, 8, 7, bias=0)
    snake("decoder.snake1", 8)
    for i, (inside, out, ratio) in enumerate(((8, 8, 2), (8, 16, 4))):
        units(f"encoder.block.{i}", inside)
        snake(f"encoder.block.{i}.snake1", inside)
        conv(f"encoder.block.{i}.conv1", out, inside, 2 * ratio, bias=out)
    for i, (inside, out, ratio) in enumerate(((16, 8, 4), (8, 8, 2))):
        snake(f"decoder.block.{i}.snake1", inside)
        conv(f"decoder.block.{i}.conv_t1", inside, out, 2 * ratio, bias=out)  # transposed
        units(f"decoder.block.{i}", out)
    return random(shapes, seed=5)


def bigvgan() -> State:
    """BigVGAN-v2 of 8 bins, 8 channels at first, halved twice."""
    shapes = dict(layer("conv_pre", 8, 8, 7))

    def activation(name: str, width: int) -> None:
        shapes.update({f"{name}.act.alpha": (width,), f"{name}.act.beta": (width,)})
        shapes.update(
            {f"{name}.upsample.filter": (1, 1, 12), f"{name}.downsample.lowpass.filter": (1, 1, 12)}
        )

    for i, kernel in enumerate((8, 4)):
        inside, out = 8 // 2**i, 8 // 2 ** (i + 1)
        shapes |= {f"ups.{i}.0.weight": (inside, out, kernel), f"ups.{i}.0.bias": (out,)}  # transposed
        for j, size in enumerate((3, 7, 11)):
            for k in range(3):
                shapes |= dict(layer(f"resblocks.{3 * i + j}.convs1.{k}", out, out, size))
                shapes |= dict(layer(f"resblocks.{3 * i + j}.convs2.{k}", out, out, size))
            for k in range(6):
                activation(f"resblocks.{3 * i + j}.activations.{k}", out)
    activation("activation_post", 2)
    return random(shapes | {"conv_post.weight": (1, 2, 7)}, seed=6)


CHECKPOINTS = {
    "cavp": cavp,
    "tango": lambda: unet() | t5("text_encoder."),
    "audioldm": audioldm,
    "vta_ldm": lambda: unet(),
    "hifigan": hifigan,
    "mmaudio": mmaudio,
    "oobleck": oobleck,
    "bigvgan": bigvgan,
    "yamnet": lambda: {ONNX_NAMES[name]: tensor for name, tensor in YAMNetwork().state_dict().items()},
}
