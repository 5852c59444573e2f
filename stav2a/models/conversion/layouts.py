"""What a converter writes: parts, each a component's tensors, found in a checkpoint by name and shape."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stav2a import registry
from stav2a.utils.checkpoints import NAMES, holder, state
from stav2a.utils.torch_files import ConvertError

Shape = tuple[int, ...]
SHOWN = 50  # names of a kind


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class CheckpointPart:
    """A folder to write: a component with its sizes, and how a checkpoint calls its tensors.

    Args:
        folder: Below the output; "." where it is the output itself.
        component: Such as `autoencoder.kl`.
        parameters: What a recipe has to bind for these weights to fit.
        layout: Names and shapes of the component's tensors.
        prefix: Of all its keys in the checkpoint.
        theirs: Our name of a tensor -> the checkpoint's, without the prefix.
        their_shape: Our name and shape -> the shape in the checkpoint, of as many numbers.
        made: Tensors that a checkpoint does not hold, by our names.
        twins: Keys (theirs, prefix and all) that repeat another one; they may be left out, and must be equal.
        hub: What config.json says to other programs that read this layout.
        needs: What has to be put beside the weights by hand.
        notes: Further facts of the checkpoint, for config.json.
    """

    folder: str
    component: str
    parameters: Mapping[str, Any]
    layout: Mapping[str, Shape] = field(repr=False)
    prefix: str = ""
    theirs: Callable[[str], str] = _same
    their_shape: Callable[[str, Shape], Shape] = lambda name, shape: shape
    made: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    twins: Mapping[str, str] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict, repr=False)
    needs: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the weights: diffusers and transformers look for their own."""
        return NAMES[1] if "_diffusers_version" in self.hub else NAMES[0]

    def keys(self) -> dict[str, str]:
        """The checkpoint's keys -> our names."""
        return {f"{self.prefix}{self.theirs(name)}": name for name in self.layout if name not in self.made}

    def shapes(self) -> dict[str, Shape]:
        """The checkpoint's keys -> their shapes there."""
        return {key: self.their_shape(name, self.layout[name]) for key, name in self.keys().items()}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors out of a checkpoint that `check` has found to fit."""
        taken = {name: tensors[key].reshape(self.layout[name]) for key, name in self.keys().items()}
        return taken | dict(self.made)

    def begun(self, tensors: Iterable[str]) -> bool:
        """Whether a checkpoint has any key of this part."""
        return any(key in self.keys() for key in tensors)


def check(
    parts: Sequence[CheckpointPart], tensors: Mapping[str, Tensor], left_out: Callable[[str], bool]
) -> None:
    """Every key is in its place, has its shape, and no other is there.

    Args:
        parts: What is to be written.
        tensors: The checkpoint.
        left_out: Keys that belong to the checkpoint, but to nothing here.

    Raises:
        ConvertError: Names every key that is missing, unexpected or of another shape.
    """
    shapes = {key: shape for part in parts for key, shape in part.shapes().items()}
    twins = {key: twin for part in parts for key, twin in part.twins.items()}
    faults = {
        "missing": [key for key in shapes if key not in tensors],
        "unexpected": [
            key for key in tensors if key not in shapes and key not in twins and not left_out(key)
        ],
        "of another shape": [
            f"{key} is {tuple(tensors[key].shape)}, expected {shape}"
            for key, shape in shapes.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
        "unlike their twins": [
            f"{key} is not {twin}"
            for key, twin in twins.items()
            if key in tensors and twin in tensors and not torch.equal(tensors[key], tensors[twin])
        ],
    }
    if any(faults.values()):
        raise ConvertError("\n".join(_listed(kind, keys) for kind, keys in faults.items() if keys))


def _listed(kind: str, keys: Sequence[str]) -> str:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"  {len(keys)} {kind}: {', '.join(keys[:SHOWN])}{more}"


def meta(component: str, parameters: Mapping[str, Any], **wired: Any) -> Any:
    """A component without memory: all shapes, no numbers."""
    registry.load()
    with torch.device("meta"):
        return registry.get(*component.split(".")).factory(**wired, **parameters)


def layout_of(module: Any, *, without: str = "") -> dict[str, Shape]:
    """Names and shapes of what a checkpoint folder of this component holds."""
    tensors = state(module if without else holder(module), without=without)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


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


@dataclass(frozen=True)
class UNetSizes:
    """One U-Net's sizes.

    Args:
        source: Whose it is.
        parameters: Of `unet.stable_diffusion`.
        latent_channels: Channels of the latent, C.
        cond_dim: Width of the cross-attention tokens, D_c.
    """

    source: str
    parameters: Mapping[str, Any]
    latent_channels: int = 8
    cond_dim: int = 1024

    def build(self) -> Any:
        """On the meta device: shapes alone."""
        return meta(
            "unet.stable_diffusion",
            self.parameters,
            latent_channels=self.latent_channels,
            cond_dim=self.cond_dim,
        )


def _sizes(
    widths: tuple[int, ...], attention: tuple[bool, ...], heads: tuple[int, ...], *, linear: bool
) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "attention_levels": attention,
        "attention_head_dim": heads,
        "layers_per_block": 2,
        "use_linear_projection": linear,
        "norm_num_groups": 32,
    }


FINE, COARSE = (True, True, True, False), (False, True, True, True)  # where cross attention is
_PRETRAIN = _sizes((128, 256, 384, 640), COARSE, (8, 8, 8, 8), linear=False)
UNETS: dict[str, UNetSizes] = {
    "tango": UNetSizes(
        "Tango (arXiv 2304.13731), 865.9 M parameters",
        _sizes((320, 640, 1280, 1280), FINE, (5, 10, 20, 20), linear=True),
    ),
    "vta_ldm_pretrain": UNetSizes("VTA-LDM (arXiv 2407.07464), its configuration 'pretrain'", _PRETRAIN),
    "stav2a": UNetSizes(
        "STA-V2A (arXiv 2409.08601), inferred: nothing published says it in numbers", _PRETRAIN
    ),
}

# Of a diffusers configuration: where it comes from, and what changes neither weights nor float32 results.
SILENT = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size", "upcast_attention"}


def find_unet(name: str) -> UNetSizes:
    """A published U-Net by its name, or the sizes in a diffusers config.json.

    Raises:
        ConvertError: It is neither; or the file asks for what `unet.stable_diffusion` can't be.
    """
    if name in UNETS:
        return UNETS[name]
    path = Path(name)
    if not path.is_file():
        raise ConvertError(
            f"--unet {name}: no such file, and no U-Net of that name. Known: {', '.join(UNETS)}."
        )
    try:
        return from_diffusers(json.loads(path.read_text()), name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConvertError):
            raise
        raise ConvertError(
            f"--unet {name} is no diffusers configuration of a UNet2DConditionModel ({error!r})."
        ) from None


def from_diffusers(config: Mapping[str, Any], source: str) -> UNetSizes:
    """The sizes in the arguments of a diffusers `UNet2DConditionModel`.

    Raises:
        ConvertError: Names each setting that `unet.stable_diffusion` does not have.
        KeyError: The widths or the block types are missing.
    """
    widths = tuple(config["block_out_channels"])
    heads = config.get("attention_head_dim", 8)
    unet = UNetSizes(
        source,
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
        f"{key} = {value!r}" for key, value in given.items() if key not in SILENT and built.get(key) != value
    ]
    if differing:
        raise ConvertError(f"{source}: unet.stable_diffusion can't have {', '.join(differing)}.")
    return unet


ATTENTION = "encoder.block.0.layer.0.SelfAttention"
TABLE, TWIN = "shared.weight", "encoder.embed_tokens.weight"  # one table under two names


def text_encoder(kind: str, component: str, tensors: Mapping[str, Tensor], prefix: str) -> CheckpointPart:
    """The part of a T5 or mT5 encoder, of whatever size it is.

    Args:
        kind: `t5` or `mt5`.
        component: Which of ours takes the folder.
        tensors: The checkpoint.
        prefix: Of the encoder's keys in it.

    Raises:
        ConvertError: A tensor that tells a size is missing.
    """
    from transformers import MT5Config, MT5EncoderModel, T5Config, T5EncoderModel

    config_kind, model_kind = (MT5Config, MT5EncoderModel) if kind == "mt5" else (T5Config, T5EncoderModel)
    config = config_kind(**_text_sizes(tensors, prefix))
    with torch.device("meta"):
        model = model_kind(config)
    layout = {name: shape for name, shape in layout_of(model).items() if name != TWIN}
    hub = {**json.loads(config.to_json_string()), "architectures": [model_kind.__name__], "dtype": "float32"}
    hub["tokenizer_class"] = "PreTrainedTokenizerFast"  # or transformers makes up an empty tokenizer
    return CheckpointPart(
        "text_encoder",
        component,
        {},
        layout,
        prefix,
        twins={f"{prefix}{TWIN}": f"{prefix}{TABLE}"},
        hub=hub,
        needs=f"the tokenizer's files of google/{'mt5' if kind == 'mt5' else 'flan-t5'}-large",
    )


def _text_sizes(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    def shape(name: str) -> tuple[int, ...]:
        if prefix + name not in tensors:
            raise ConvertError(f"  1 missing: {prefix}{name}")
        return tuple(tensors[prefix + name].shape)

    blocks = [re.match(re.escape(prefix) + r"encoder\.block\.(\d+)\.", name) for name in tensors]
    buckets, heads = shape(f"{ATTENTION}.relative_attention_bias.weight")
    vocabulary, width = shape(TABLE)
    gated = f"{prefix}encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in tensors
    inner = "wi_0" if gated else "wi"
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shape(f"{ATTENTION}.q.weight")[0] // heads,
        "d_ff": shape(f"encoder.block.0.layer.1.DenseReluDense.{inner}.weight")[0],
        "num_layers": 1 + max(int(found[1]) for found in blocks if found),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


DURATION_S, LATENT_FRAMES = 10.24, 256
CAVP_PREFIX, TEXT_PREFIX = "extract_cavp.stage1_model.", "text_encoder."
LOCAL_HEAD: dict[str, Any] = {"dim": 128, "windows": (1, 2, 4, 8), "upsampling": 6.25}
GLOBAL_POOLER: dict[str, Any] = {"tokens": 4, "dropout": 0.5}
POOLER_NAMES = {  # ours -> theirs; what is not here is called alike
    "embed": "fga.un_models.0.embed",
    "feature_reduce": "fga.un_models.0.feature_reduce",
    "embed_x": "fga.pp_models.0.embed_X",
    "embed_y": "fga.pp_models.0.embed_Y",
    "reduce_potentials": "fga.reduce_potentials.0",
}


def parts(
    tensors: Mapping[str, Tensor], unet: CheckpointPart, sizes: UNetSizes, video_encoder: CheckpointPart
) -> list[CheckpointPart]:
    """The release's parts; video and text encoder are there if the file has them."""
    in_dim = video_encoder.parameters["dim"]
    found = [unet, _backbone(sizes), _local_head(in_dim), _global_pooler(in_dim, sizes.cond_dim), _fuser()]
    if any(name.startswith(CAVP_PREFIX) for name in tensors):
        found.append(video_encoder)
    if any(name.startswith(TEXT_PREFIX) for name in tensors):
        found.append(text_encoder("mt5", "text_encoder.mt5", tensors, TEXT_PREFIX))
    return found


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


def _local_head(in_dim: int) -> CheckpointPart:
    component = "local_head.onset_released"
    built = meta(component, LOCAL_HEAD, in_dim=in_dim, length=LATENT_FRAMES)
    return CheckpointPart("local_head", component, LOCAL_HEAD, layout_of(built), theirs=head_name)


def _global_pooler(in_dim: int, cond_dim: int) -> CheckpointPart:
    component = "global_pooler.factor_graph"
    built = meta(component, GLOBAL_POOLER, in_dim=in_dim, cond_dim=cond_dim)
    return CheckpointPart("global_pooler", component, GLOBAL_POOLER, layout_of(built), theirs=pooler_name)


def _backbone(sizes: UNetSizes) -> CheckpointPart:
    component = "backbone.unet_controlnet_released"
    built = meta(component, {}, unet=sizes.build(), local_dim=LOCAL_HEAD["dim"])
    return CheckpointPart("backbone", component, {"freeze_unet": False}, layout_of(built, without="unet."))


def _fuser() -> CheckpointPart:
    return CheckpointPart("condition_fuser", "condition_fuser.concat", {}, {})
