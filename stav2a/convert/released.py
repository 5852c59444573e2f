"""The authors' release of STA-V2A: all blocks in one state dict, as `STAV2A.from_pretrained` takes them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stav2a.convert.parts import Part, layout_of, meta
from stav2a.convert.text import text_encoder
from stav2a.convert.unets import UNet

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


def parts(tensors: Mapping[str, Tensor], unet: Part, sizes: UNet, video_encoder: Part) -> list[Part]:
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


def _local_head(in_dim: int) -> Part:
    component = "local_head.onset_released"
    built = meta(component, LOCAL_HEAD, in_dim=in_dim, length=LATENT_FRAMES)
    return Part("local_head", component, LOCAL_HEAD, layout_of(built), theirs=head_name)


def _global_pooler(in_dim: int, cond_dim: int) -> Part:
    component = "global_pooler.factor_graph"
    built = meta(component, GLOBAL_POOLER, in_dim=in_dim, cond_dim=cond_dim)
    return Part("global_pooler", component, GLOBAL_POOLER, layout_of(built), theirs=pooler_name)


def _backbone(sizes: UNet) -> Part:
    component = "backbone.unet_controlnet_released"
    built = meta(component, {}, unet=sizes.build(), local_dim=LOCAL_HEAD["dim"])
    return Part("backbone", component, {"freeze_unet": False}, layout_of(built, without="unet."))


def _fuser() -> Part:
    return Part("condition_fuser", "condition_fuser.concat", {}, {})
