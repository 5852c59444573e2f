"""The published U-Nets of the Tango family as data: sizes for `unet.stable_diffusion`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.convert.parts import meta
from stav2a.convert.reading import ConvertError


@dataclass(frozen=True)
class UNet:
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

UNETS: dict[str, UNet] = {
    "tango": UNet(
        "Tango (arXiv 2304.13731), 865.9 M parameters",
        _sizes((320, 640, 1280, 1280), FINE, (5, 10, 20, 20), linear=True),
    ),
    "vta_ldm_pretrain": UNet("VTA-LDM (arXiv 2407.07464), its configuration 'pretrain'", _PRETRAIN),
    "stav2a": UNet("STA-V2A (arXiv 2409.08601), inferred: nothing published says it in numbers", _PRETRAIN),
}

# Of a diffusers configuration: where it comes from, and what changes neither weights nor float32 results.
SILENT = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size", "upcast_attention"}


def find_unet(name: str) -> UNet:
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


def from_diffusers(config: Mapping[str, Any], source: str) -> UNet:
    """The sizes in the arguments of a diffusers `UNet2DConditionModel`.

    Raises:
        ConvertError: Names each setting that `unet.stable_diffusion` does not have.
        KeyError: The widths or the block types are missing.
    """
    widths = tuple(config["block_out_channels"])
    heads = config.get("attention_head_dim", 8)
    unet = UNet(
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
