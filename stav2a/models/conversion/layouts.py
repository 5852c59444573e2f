"""Layouts of published checkpoints: parts of one component each, by the names and shapes of their tensors."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stav2a import registry
from stav2a.recipe import describing
from stav2a.utils.checkpoints import NAMES, holder, state
from stav2a.utils.torch_files import ConvertError

Shape = tuple[int, ...]
SHOWN = 50  # names in a list of faults


@dataclass(frozen=True)
class CheckpointPart:
    """Part of a checkpoint: a component with its sizes, and the names of its tensors in the checkpoint.

    Args:
        folder: Folder of the part below the output; "." for the output itself.
        component: Selector of the component, such as `autoencoder.kl`.
        parameters: Parameters that a recipe has to bind for these weights to fit.
        layout: Names and shapes of the component's tensors.
        prefix: Prefix of all keys of the part in the checkpoint.
        published_name: Function from the name of a tensor to its name in the checkpoint, without the prefix.
        published_shape: Function from name and shape to the shape in the checkpoint, of as many numbers.
        constants: Tensors that the checkpoint lacks.
        combined: Function from the part's tensors to those of the component, where they differ in number.
        duplicates: Keys of the checkpoint that may repeat another one, by their full names.
        config: Entries of config.json for other programs that read this layout.
        to_add: Files that have to be put beside the weights by hand.
        facts: Further facts of the checkpoint, for config.json.
    """

    folder: str
    component: str
    parameters: Mapping[str, Any]
    layout: Mapping[str, Shape] = field(repr=False)
    prefix: str = ""
    published_name: Callable[[str], str] = lambda name: name
    published_shape: Callable[[str, Shape], Shape] = lambda name, shape: shape
    constants: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    combined: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    duplicates: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    to_add: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the weights file, which diffusers and transformers look for."""
        return NAMES[1] if "_diffusers_version" in self.config else NAMES[0]

    def keys(self) -> dict[str, str]:
        """Names of the component's tensors by the keys of the checkpoint."""
        names = (name for name in self.layout if name not in self.constants)
        return {f"{self.prefix}{self.published_name(name)}": name for name in names}

    def shapes(self) -> dict[str, Shape]:
        """Shapes in the checkpoint by its keys."""
        return {key: self.published_shape(name, self.layout[name]) for key, name in self.keys().items()}

    def tensors(self, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The component's tensors from a checkpoint that `check` accepts."""
        found = {name: checkpoint[key].reshape(self.layout[name]) for key, name in self.keys().items()}
        return self.combined(found) | dict(self.constants)


def check(
    parts: Sequence[CheckpointPart], tensors: Mapping[str, Tensor], left_out: Callable[[str], bool]
) -> None:
    """Check that a checkpoint has every key of the parts, in its shape, and no other that is not left out.

    Raises:
        ConvertError: Names every key that is missing, unexpected or of another shape.
    """
    shapes = {key: shape for part in parts for key, shape in part.shapes().items()}
    duplicates = {key: original for part in parts for key, original in part.duplicates.items()}
    faults = {
        "missing": [key for key in shapes if key not in tensors],
        "unexpected": [
            key for key in tensors if key not in shapes and key not in duplicates and not left_out(key)
        ],
        "of another shape": [
            f"{key} is {tuple(tensors[key].shape)}, expected {shape}"
            for key, shape in shapes.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
        "different from the original": [
            f"{key} is not {original}"
            for key, original in duplicates.items()
            if key in tensors and original in tensors and not torch.equal(tensors[key], tensors[original])
        ],
    }
    lines = []
    for kind, keys in faults.items():
        more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        if keys:
            lines.append(f"  {len(keys)} {kind}: {', '.join(keys[:SHOWN])}{more}")
    if lines:
        raise ConvertError("\n".join(lines))


def meta(component: str, parameters: Mapping[str, Any], **wired: Any) -> Any:
    """A component on the meta device, which has shapes but no numbers."""
    registry.load()
    with torch.device("meta"):
        return registry.get(*component.split(".")).factory(**wired, **parameters)


def layout_of(module: Any, *, without: str = "") -> dict[str, Shape]:
    """Names and shapes of the tensors in a checkpoint folder of a component."""
    tensors = state(module if without else holder(module), without=without)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def video_encoder(prefix: str, sizes: Mapping[str, Any], folder: str) -> CheckpointPart:
    """Video tower of CAVP, whose names are the same."""
    layout = layout_of(meta("feature_encoder.cavp", sizes))
    return CheckpointPart(folder, "feature_encoder.cavp", sizes, layout, prefix)


# Names in AutoencoderKL of diffusers -> names in latent diffusion (CompVis), the layout of AudioLDM's first
# stage. Its decoder counts resolutions the other way round: <i> stands for the last minus i.
VAE_NAMES = (
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
VAE_LINEAR = re.compile(r"\.attentions\.0\.to_(?:q|k|v|out\.0)\.weight$")  # published as 1x1 convolutions


def vae_name(name: str, levels: int) -> str:
    """AudioLDM's name of a tensor of `AutoencoderKL` with this many resolutions.

    Example:
        >>> vae_name("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", levels=3)
        'decoder.up.2.block.1.nin_shortcut.weight'
        >>> vae_name("encoder.mid_block.attentions.0.to_out.0.bias", levels=3)
        'encoder.mid.attn_1.proj_out.bias'
    """
    for pattern, replacement in VAE_NAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"<(\d+)>", lambda match: str(levels - 1 - int(match[1])), name)


def vae_shape(name: str, shape: Shape) -> Shape:
    """Shape in AudioLDM of a tensor of `AutoencoderKL`.

    Example:
        >>> vae_shape("encoder.mid_block.attentions.0.to_q.weight", (8, 8))
        (8, 8, 1, 1)
    """
    return (*shape, 1, 1) if VAE_LINEAR.search(name) else shape


def autoencoder(prefix: str, sizes: Mapping[str, Any], scale_factor: float) -> CheckpointPart:
    """Autoencoder of AudioLDM, whose latents are multiplied by a factor; `MelVAE` divides by `scale`."""
    layout = layout_of(meta("autoencoder.kl", sizes))
    levels = len(sizes["block_out_channels"])
    return CheckpointPart(
        "vae",
        "autoencoder.kl",
        sizes,
        layout,
        prefix,
        published_name=lambda name: vae_name(name.removeprefix("vae."), levels),
        published_shape=vae_shape,
        constants={
            "shift": torch.zeros(layout["shift"]),
            "scale": torch.full(layout["scale"], 1 / scale_factor),
        },
        facts={"scale_factor": scale_factor},
    )


def vocoder(prefix: str, sizes: Mapping[str, Any], folder: str) -> CheckpointPart:
    """HiFi-GAN. The model of transformers can normalise its input, which is not wanted: mean 0, scale 1."""
    built = meta("vocoder.hifigan", sizes)
    layout = layout_of(built)
    return CheckpointPart(
        folder,
        "vocoder.hifigan",
        sizes,
        layout,
        prefix,
        published_name=lambda name: re.sub(r"^upsampler\.", "ups.", name),
        constants={"mean": torch.zeros(layout["mean"]), "scale": torch.ones(layout["scale"])},
        config=json.loads(built.generator.config.to_json_string()),
    )


def diffusers_autoencoder(component: str, sizes: Mapping[str, Any], scale_factor: float) -> CheckpointPart:
    """`autoencoder.mmaudio` or `autoencoder.oobleck`, whose latents are multiplied by a factor."""
    layout = layout_of(meta(component, sizes))
    outer = "" if component == "autoencoder.mmaudio" else "vae."  # MMAudioVAE itself holds a `vae`
    return CheckpointPart(
        ".",
        component,
        sizes,
        layout,
        published_name=lambda name: name.removeprefix(outer),
        constants={
            "shift": torch.zeros(layout["shift"]),
            "scale": torch.full(layout["scale"], 1 / scale_factor),
        },
        facts={"scale_factor": scale_factor},
    )


def bigvgan(sizes: Mapping[str, Any]) -> CheckpointPart:
    """BigVGAN-v2, whose names are the same."""
    return CheckpointPart(".", "vocoder.bigvgan", sizes, layout_of(meta("vocoder.bigvgan", sizes)))


@dataclass(frozen=True)
class UNetSizes:
    """Sizes of a U-Net.

    Args:
        parameters: Parameters of `unet.stable_diffusion`.
        latent_channels: Channels of the latent, C.
        cond_dim: Width of the cross-attention tokens, D_c.
    """

    parameters: Mapping[str, Any]
    latent_channels: int = 8
    cond_dim: int = 1024

    def build(self) -> Any:
        """The U-Net on the meta device."""
        wired = {"latent_channels": self.latent_channels, "cond_dim": self.cond_dim}
        return meta("unet.stable_diffusion", self.parameters, **wired)


_TANGO: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "attention_levels": (True, True, True, False),
    "attention_head_dim": (5, 10, 20, 20), "layers_per_block": 2, "use_linear_projection": True,
    "norm_num_groups": 32,
}  # fmt: skip
_PRETRAIN: dict[str, Any] = {
    "block_out_channels": (128, 256, 384, 640), "attention_levels": (False, True, True, True),
    "attention_head_dim": (8, 8, 8, 8), "layers_per_block": 2, "use_linear_projection": False,
    "norm_num_groups": 32,
}  # fmt: skip
UNETS: dict[str, UNetSizes] = {
    "tango": UNetSizes(_TANGO),  # arXiv 2304.13731, 865.9 M parameters
    "vta_ldm_pretrain": UNetSizes(_PRETRAIN),  # arXiv 2407.07464, its configuration 'pretrain'
    "stav2a": UNetSizes(_PRETRAIN),  # arXiv 2409.08601, inferred: no publication has the numbers
}
# Settings of a diffusers configuration that change neither weights nor float32 results.
IGNORED = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size", "upcast_attention"}


def find_unet(name: str) -> UNetSizes:
    """Sizes of a published U-Net by its name, or those in a diffusers config.json.

    Raises:
        ConvertError: It is neither; or `unet.stable_diffusion` lacks a setting of the file.
    """
    if name in UNETS:
        return UNETS[name]
    path = Path(name)
    if not path.is_file():
        raise ConvertError(
            f"--unet {name}: no such file, and no U-Net of that name.", advice=f"Known: {', '.join(UNETS)}."
        )
    try:
        return _from_diffusers(json.loads(path.read_text(encoding="utf-8")), name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConvertError):
            raise
        raise ConvertError(
            f"--unet {name} is no diffusers configuration of a UNet2DConditionModel ({error!r})."
        ) from None


def _from_diffusers(config: Mapping[str, Any], source: str) -> UNetSizes:
    widths = tuple(config["block_out_channels"])
    heads = config.get("attention_head_dim", 8)
    unet = UNetSizes(
        {
            "block_out_channels": widths,
            "attention_levels": tuple(kind == "CrossAttnDownBlock2D" for kind in config["down_block_types"]),
            "attention_head_dim": (heads,) * len(widths) if isinstance(heads, int) else tuple(heads),
            "layers_per_block": config.get("layers_per_block", 2),
            "use_linear_projection": config.get("use_linear_projection", False),
            "norm_num_groups": config.get("norm_num_groups", 32),
        },
        latent_channels=config.get("in_channels", 4),
        cond_dim=config.get("cross_attention_dim", 1280),
    )
    built = json.loads(unet.build().to_json_string())
    given = {**config, "attention_head_dim": list(unet.parameters["attention_head_dim"])}
    differing = [
        f"{key} = {value!r}" for key, value in given.items() if key not in IGNORED and built.get(key) != value
    ]
    if differing:
        raise ConvertError(f"{source}: unet.stable_diffusion can't have {', '.join(differing)}.")
    return unet


@dataclass(frozen=True)
class Denoiser:
    """Prediction type and text encoder of a published U-Net, which are not in its tensors.

    Args:
        sizes: Key of `UNETS`.
        predicts: Name of the component of the slot `objective`.
        reads: Component whose tokens its cross attention reads, or a description of other ones.
        scale: Recipe that is laid over another one to start from this U-Net; "" where there is none.
    """

    sizes: str
    predicts: str
    reads: str
    scale: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """Entries of the converted folder's config.json."""
        return {"predicts": self.predicts, "reads": self.reads}

    def fits(self, recipe: Mapping[str, Any]) -> bool:
        """True where a recipe, by the described parameters of its root, can start from this U-Net."""
        sizes = describing.describe(UNETS[self.sizes].parameters)
        unet = recipe["unet"]["parameters"]
        own, wanted = (f"objective.{self.predicts}", self.reads), ("objective", "text_encoder")
        fits = own == tuple(recipe[slot]["component"] for slot in wanted)
        return fits and all(unet.get(name) == value for name, value in sizes.items())


def unet(sizes: UNetSizes, denoiser: Denoiser) -> CheckpointPart:
    """U-Net of diffusers, whose names are the same."""
    built = sizes.build()
    config = json.loads(built.to_json_string())
    return CheckpointPart(
        "unet",
        "unet.stable_diffusion",
        sizes.parameters,
        layout_of(built),
        "unet.",
        config=config,
        facts=denoiser.facts,
    )


TABLE, DUPLICATE = "shared.weight", "encoder.embed_tokens.weight"  # one table under two names


def text_encoder(kind: str, tensors: Mapping[str, Tensor], prefix: str) -> CheckpointPart:
    """T5 or mT5 encoder, in the sizes of its tensors.

    Args:
        kind: Name of the component, `t5` or `mt5`.
        tensors: The checkpoint.
        prefix: Prefix of the encoder's keys in the checkpoint.

    Raises:
        ConvertError: A tensor that gives a size is missing.
    """
    from transformers import MT5Config, MT5EncoderModel, T5Config, T5EncoderModel

    config_kind, model_kind = (MT5Config, MT5EncoderModel) if kind == "mt5" else (T5Config, T5EncoderModel)
    config = config_kind(**_text_sizes(tensors, prefix))
    with torch.device("meta"):
        layout = layout_of(model_kind(config))
    return CheckpointPart(
        "text_encoder",
        f"text_encoder.{kind}",
        {},
        {name: shape for name, shape in layout.items() if name != DUPLICATE},
        prefix,
        duplicates={f"{prefix}{DUPLICATE}": f"{prefix}{TABLE}"},
        config={
            **json.loads(config.to_json_string()),
            "architectures": [model_kind.__name__],
            "dtype": "float32",
            "tokenizer_class": "PreTrainedTokenizerFast",  # or transformers makes up an empty tokenizer
        },
        to_add=f"the tokenizer's files of google/{'mt5' if kind == 'mt5' else 'flan-t5'}-large",
    )


def _text_sizes(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    def shape(name: str) -> Shape:
        if prefix + name not in tensors:
            raise ConvertError(f"  1 missing: {prefix}{name}")
        return tuple(tensors[prefix + name].shape)

    attention, network = "encoder.block.0.layer.0.SelfAttention", "encoder.block.0.layer.1.DenseReluDense"
    blocks = [re.match(re.escape(prefix) + r"encoder\.block\.(\d+)\.", name) for name in tensors]
    buckets, heads = shape(f"{attention}.relative_attention_bias.weight")
    vocabulary, width = shape(TABLE)
    gated = f"{prefix}{network}.wi_0.weight" in tensors
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shape(f"{attention}.q.weight")[0] // heads,
        "d_ff": shape(f"{network}.{'wi_0' if gated else 'wi'}.weight")[0],
        "num_layers": 1 + max(int(found[1]) for found in blocks if found),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


DURATION_S, LATENT_FRAMES = 10.24, 256  # of STA-V2A's release
LOCAL_HEAD: dict[str, Any] = {"dim": 128, "windows": (1, 2, 4, 8), "upsampling": 6.25}
GLOBAL_POOLER: dict[str, Any] = {"tokens": 4, "dropout": 0.5}
POOLER_NAMES = {  # modules that the release calls otherwise
    "embed": "fga.un_models.0.embed",
    "feature_reduce": "fga.un_models.0.feature_reduce",
    "embed_x": "fga.pp_models.0.embed_X",
    "embed_y": "fga.pp_models.0.embed_Y",
    "reduce_potentials": "fga.reduce_potentials.0",
}


def head_name(name: str) -> str:
    """The release's name of a tensor of `local_head.onset_released`.

    Example:
        >>> head_name("fc1.weight"), head_name("l2.bias")
        ('trans_cvap_feature.fc1.weight', 'pre_onset.l2.bias')
    """
    return f"{'trans_cvap_feature' if name.startswith('fc') else 'pre_onset'}.{name}"


def pooler_name(name: str) -> str:
    """The release's name of a tensor of `global_pooler.factor_graph`.

    Example:
        >>> pooler_name("embed_x.weight"), pooler_name("conv.bias")
        ('global_video_feature.fga.pp_models.0.embed_X.weight', 'global_video_feature.conv.bias')
    """
    module, _, kind = name.rpartition(".")
    return f"global_video_feature.{POOLER_NAMES.get(module, module)}.{kind}"


def release_blocks(sizes: UNetSizes, in_dim: int, denoiser: Denoiser) -> list[CheckpointPart]:
    """Blocks of STA-V2A's release that no other checkpoint has, for video features of width `in_dim`."""
    backbone = meta("backbone.unet_controlnet_released", {}, unet=sizes.build(), local_dim=LOCAL_HEAD["dim"])
    head = meta("local_head.onset_released", LOCAL_HEAD, in_dim=in_dim, length=LATENT_FRAMES)
    pooler = meta("global_pooler.factor_graph", GLOBAL_POOLER, in_dim=in_dim, cond_dim=sizes.cond_dim)
    return [
        CheckpointPart(
            "backbone",
            "backbone.unet_controlnet_released",
            {"freeze_unet": False},
            layout_of(backbone, without="unet."),
            facts=denoiser.facts,
        ),
        CheckpointPart(
            "local_head", "local_head.onset_released", LOCAL_HEAD, layout_of(head), published_name=head_name
        ),
        CheckpointPart(
            "global_pooler",
            "global_pooler.factor_graph",
            GLOBAL_POOLER,
            layout_of(pooler),
            published_name=pooler_name,
        ),
        CheckpointPart("condition_fuser", "condition_fuser.concat", {}, {}),
    ]
