"""`stav2a convert`: published checkpoints into folders that the components load."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from stav2a.cli.options import number
from stav2a.utils.errors import SUCCESS, UsageError
from stav2a.utils.shipped import doc

EXAMPLES = f"""
  stav2a convert cavp --checkpoint cavp_epoch66.ckpt --output checkpoints/cavp
  stav2a convert audioldm --checkpoint audioldm-s-full.ckpt --output checkpoints/audioldm
  stav2a convert tango --checkpoint pytorch_model_main.bin --output checkpoints/t2a
  stav2a convert yamnet --checkpoint yamnet.h5 --output weights/yamnet

Files are opened without running anything in them (torch 2.10 or newer). Every key has to be known,
present and of its shape; otherwise all that do not fit are named, and nothing is written. The output
holds one folder a part, with model.safetensors and config.json; the lines that a recipe needs are
printed. Where the files come from, and under which licence: {doc("weights.md")}.
"""


CheckpointKind = Literal[
    "released", "cavp", "tango", "audioldm", "vta_ldm", "hifigan", "yamnet", "mmaudio", "oobleck", "bigvgan"
]


def convert(
    kind: Annotated[CheckpointKind, Argument(help="whose checkpoint it is")],
    checkpoint: Annotated[
        list[Path], Option(metavar="FILE", help="torch, safetensors or Keras files, or a wheel")
    ],
    output: Annotated[Path, Option(metavar="DIR", help="a new folder")],
    unet: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="sizes of the U-Net where they are not its kind's own: tango, vta_ldm_pretrain, stav2a, "
            "or a diffusers config.json",
        ),
    ] = None,
    leave_out: Annotated[
        list[str],
        Option(
            metavar="PREFIX",
            help="keys that begin so, with a dot at the end, belong to nothing here; may be repeated",
        ),
    ] = [],
    scale_factor: Annotated[
        float | None,
        Option(
            parser=number(lambda value: 1e-6 <= value <= 1e6, "number from 1e-6 to 1e6"),
            metavar="X",
            help="scale factor of the latents, for a VAE file that holds none",
        ),
    ] = None,
) -> int:
    """Turn a published checkpoint into folders of safetensors that the components load."""
    if output.exists():  # before torch is imported, and gigabytes are read
        raise UsageError(f"{output} is there already. Choose another folder, or move it away first.")
    from stav2a.models.conversion import converters
    from stav2a.models.conversion.layouts import find_unet

    options = converters.ConversionOptions(
        unet=find_unet(unet) if unet else None, scale_factor=scale_factor, left_out=tuple(leave_out)
    )
    print(converters.convert(kind, checkpoint, output, options))
    return SUCCESS
