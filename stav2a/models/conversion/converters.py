"""The published checkpoints: whose they are, and which parts of ours they hold."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stav2a.models.conversion import layouts
from stav2a.models.conversion.layouts import (
    UNETS,
    VOCODER,
    CheckpointPart,
    UNetSizes,
    layout_of,
    meta,
    renamed,
    text_encoder,
    vae_name,
    vae_shape,
)
from stav2a.utils.torch_files import ConvertError

Tensors = Mapping[str, Tensor]
UNKNOWN_LICENCE = "unknown to us: read the page you have them from (several of these are non-commercial)"
CAVP: dict[str, Any] = {
    "width": 64, "blocks": (3, 4, 6, 3), "dim": 512, "frame_rate_hz": 4.0, "frame_size": 224,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512), "latent_channels": 8, "layers_per_block": 2, "patch": 1,
    "mel_mean": 0.0, "mel_std": 1.0, "mel_floor": -11.6,
}  # fmt: skip
HIFIGAN: dict[str, Any] = {"upsample_initial_channel": 1024}
SCHEDULE = (  # of latent diffusion's training; the numbers are our schedulers' as well
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
    "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
    "logvar", "lvlb_weights",
)  # fmt: skip


@dataclass(frozen=True)
class ConversionOptions:
    """What a checkpoint does not say of itself.

    Args:
        unet: Sizes of its U-Net; None for its kind's own.
        scale_factor: Of the latents, where the file has none.
        cavp: Sizes of the video encoder.
        vae: Sizes of the autoencoder.
        hifigan: Sizes of the vocoder.
        left_out: Beginnings of keys that the user leaves out, beside the kind's own.
    """

    unet: UNetSizes | None = None
    scale_factor: float | None = None
    cavp: Mapping[str, Any] = field(default_factory=lambda: CAVP)
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)
    hifigan: Mapping[str, Any] = field(default_factory=lambda: HIFIGAN)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converter:
    """One kind of published checkpoint.

    Args:
        summary: What it is, for the command's help.
        licence: Of the weights, as far as we know.
        parts: What it holds; called with its tensors and the choices.
        known_by: How keys begin that this kind alone has.
        wrappers: Entries of the file under which its tensors may lie.
        left_out: Keys, or beginnings of keys that end with a dot, which belong to nothing here.
        read: Keys that `parts` has read by itself.
        prepared: Its tensors in their plain form.
        model: What joins its parts to a model, where they are its blocks.
    """

    summary: str
    licence: str
    parts: Callable[[Tensors, ConversionOptions], Sequence[CheckpointPart]]
    known_by: tuple[str, ...]
    wrappers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    prepared: Callable[[Tensors], Tensors] = dict
    model: Mapping[str, Any] | None = None

    def leaves_out(self, key: str) -> str | None:
        """The entry of `left_out` that a key falls under."""
        return next((each for each in self.left_out if key == each or _under(each, key)), None)

    def knows(self, keys: Iterable[str]) -> bool:
        """Whether a file of these keys is, at first sight, of this kind."""
        return any(key.startswith(self.known_by) for key in keys)


def _under(entry: str, key: str) -> bool:
    return entry.endswith(".") and key.startswith(entry)


def video_encoder(prefix: str, sizes: Mapping[str, Any], folder: str) -> CheckpointPart:
    """CAVP's video tower, whose names are ours."""
    layout = layout_of(meta("feature_encoder.cavp", sizes))
    return CheckpointPart(folder, "feature_encoder.cavp", sizes, layout, prefix)


def unet(sizes: UNetSizes, prefix: str = "unet.") -> CheckpointPart:
    """A U-Net of stock diffusers, whose names are ours."""
    built = sizes.build()
    hub = json.loads(built.to_json_string())
    return CheckpointPart(
        "unet", "unet.stable_diffusion", sizes.parameters, layout_of(built), prefix, hub=hub
    )


def autoencoder(prefix: str, sizes: Mapping[str, Any], scale_factor: float) -> CheckpointPart:
    """AudioLDM's autoencoder. Its latents are multiplied by the scale factor; ours are divided by `scale`."""
    layout = layout_of(meta("autoencoder.kl", sizes))
    levels = len(sizes["block_out_channels"])
    made = {
        "shift": torch.zeros(layout["shift"]),
        "scale": torch.full(layout["scale"], 1 / scale_factor),
    }
    return CheckpointPart(
        "vae",
        "autoencoder.kl",
        sizes,
        layout,
        prefix,
        theirs=lambda name: vae_name(name.removeprefix("vae."), levels),
        their_shape=vae_shape,
        made=made,
        notes={"scale_factor": scale_factor},
    )


def vocoder(prefix: str, sizes: Mapping[str, Any], folder: str) -> CheckpointPart:
    """HiFi-GAN. The stock model can normalise its input, which this one does not: mean 0, scale 1."""
    built = meta("vocoder.hifigan", sizes)
    layout = layout_of(built)
    made = {"mean": torch.zeros(layout["mean"]), "scale": torch.ones(layout["scale"])}
    return CheckpointPart(
        folder,
        "vocoder.hifigan",
        sizes,
        layout,
        prefix,
        theirs=lambda name: renamed(name, VOCODER),
        made=made,
        hub=json.loads(built.generator.config.to_json_string()),
    )


def without_weight_norm(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors whose weights are whole: g v / |v|, as training leaves them apart, multiplied out."""
    plain = dict(tensors)
    for name in tensors:
        if name.endswith(".weight_g") and f"{name[:-1]}v" in plain:
            g, v = plain.pop(name), plain.pop(f"{name[:-1]}v")
            plain[name.removesuffix("_g")] = torch._weight_norm(v, g, 0)
    return plain


def _cavp(tensors: Tensors, choices: ConversionOptions) -> list[CheckpointPart]:
    return [video_encoder("", choices.cavp, ".")]


def _hifigan(tensors: Tensors, choices: ConversionOptions) -> list[CheckpointPart]:
    return [vocoder("", choices.hifigan, ".")]


def _released(tensors: Tensors, choices: ConversionOptions) -> list[CheckpointPart]:
    sizes = choices.unet or UNETS["stav2a"]
    encoder = video_encoder(layouts.CAVP_PREFIX, choices.cavp, "feature_encoder")
    return layouts.parts(tensors, unet(sizes), sizes, encoder)


def _vta_ldm(tensors: Tensors, choices: ConversionOptions) -> list[CheckpointPart]:
    return [unet(choices.unet or UNETS["vta_ldm_pretrain"])]


def _audioldm(tensors: Tensors, choices: ConversionOptions) -> list[CheckpointPart]:
    return _first_stage("first_stage_model.", tensors, choices, 'the file\'s "scale_factor", which it lacks')


def _tango(tensors: Tensors, choices: ConversionOptions) -> list[CheckpointPart]:
    parts = [unet(choices.unet or UNETS["tango"])]
    parts.append(text_encoder("t5", "text_encoder.t5", tensors, "text_encoder."))
    if any(name.startswith(("encoder.", "decoder.", "vocoder.")) for name in tensors):
        parts += _first_stage("", tensors, choices, 'the "scale_factor" of vae_config.json')
    return parts


def _first_stage(
    prefix: str, tensors: Tensors, choices: ConversionOptions, where: str
) -> list[CheckpointPart]:
    scale = choices.scale_factor
    if scale is None and "scale_factor" in tensors:
        scale = float(tensors["scale_factor"])
    if scale is None:
        raise ConvertError(f"  the latents' scale factor is not known: give --scale-factor X, {where}.")
    return [
        autoencoder(prefix, choices.vae, scale),
        vocoder(f"{prefix}vocoder.", choices.hifigan, "vocoder"),
    ]


CONVERTERS: dict[str, Converter] = {
    "released": Converter(
        "STA-V2A's own release: pytorch_model_2.bin",
        UNKNOWN_LICENCE,
        _released,
        known_by=("controlnet.", "pre_onset.", "trans_cvap_feature.", "global_video_feature."),
        left_out=(f"{layouts.CAVP_PREFIX}spec_encoder.", f"{layouts.CAVP_PREFIX}logit_scale"),
        model={"duration_s": layouts.DURATION_S},
    ),
    "cavp": Converter(
        "CAVP's video encoder (Diff-Foley): cavp_epoch66.ckpt",
        "Apache-2.0 (Diff-Foley)",
        _cavp,
        known_by=("video_encoder.", "video_project_head."),
        wrappers=("state_dict",),
        left_out=("spec_encoder.", "logit_scale"),
    ),
    "tango": Converter(
        "Tango's U-Net and Flan-T5: pytorch_model_main.bin; with pytorch_model_vae.bin VAE and vocoder too",
        UNKNOWN_LICENCE,
        _tango,
        known_by=("unet.",),
    ),
    "audioldm": Converter(
        "AudioLDM's autoencoder and vocoder: audioldm-s-full.ckpt and its kin",
        UNKNOWN_LICENCE,
        _audioldm,
        known_by=("first_stage_model.",),
        wrappers=("state_dict",),
        left_out=("model.diffusion_model.", "model_ema.", "cond_stage_model.", *SCHEDULE),
        read=("scale_factor",),
    ),
    "vta_ldm": Converter(
        "VTA-LDM's U-Net; name what else is in the file with --leave-out",
        UNKNOWN_LICENCE,
        _vta_ldm,
        known_by=("unet.",),
    ),
    "hifigan": Converter(
        "A HiFi-GAN generator of AudioLDM's sizes: hifigan_16k_64bins.ckpt",
        UNKNOWN_LICENCE,
        _hifigan,
        known_by=("conv_pre.", "ups."),
        wrappers=("generator", "state_dict"),
        prepared=without_weight_norm,
    ),
}
