"""`stav2a convert`, which is `python -m stav2a convert`: published checkpoints made loadable."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stav2a.cli import options
from stav2a.utils.errors import SUCCESS, UsageError, guarded

KINDS = ("released", "cavp", "tango", "audioldm", "vta_ldm", "hifigan")
EPILOG = """examples:
  stav2a convert cavp --checkpoint cavp_epoch66.ckpt --output checkpoints/cavp
  stav2a convert audioldm --checkpoint audioldm-s-full.ckpt --output checkpoints/audioldm
  stav2a convert tango --checkpoint pytorch_model_main.bin --output checkpoints/t2a

Files are opened without running anything in them (torch 2.10 or newer). Every key has to be known, present
and of its shape; otherwise all that do not fit are named, and nothing is written. The output holds one folder
a part, with model.safetensors and config.json; the lines that a recipe needs are printed. Where the files
come from, and under which licence: docs/weights.md.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = options.command(
        "convert", "Turn a published checkpoint into folders of safetensors that the components load.", EPILOG
    )
    add = parser.add_argument
    add("kind", choices=KINDS, metavar=f"{{{','.join(KINDS)}}}", help="whose checkpoint it is")
    add(
        "--checkpoint", nargs="+", type=Path, required=True, metavar="FILE", help="torch or safetensors files"
    )
    add("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    add(
        "--unet",
        metavar="NAME",
        help="sizes of the U-Net where they are not its kind's own: tango, vta_ldm_pretrain, "
        "stav2a, or a diffusers config.json",
    )
    add(
        "--leave-out",
        action="append",
        default=[],
        metavar="PREFIX",
        help="keys that begin so, with a dot at the end, belong to nothing here; may be repeated",
    )
    add("--scale-factor", type=float, metavar="X", help="of the latents, for a VAE file that has none in it")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Convert one checkpoint; 1 if it does not fit, 2 if the command can't be carried out."""
    arguments = build_parser().parse_args(argv)
    if arguments.output.exists():  # before torch is imported, and gigabytes are read
        raise UsageError(
            f"{arguments.output} is there already. Choose another folder, or move it away first."
        )
    if arguments.scale_factor is not None and not 0 < arguments.scale_factor < math.inf:
        raise UsageError(f"--scale-factor {arguments.scale_factor}: expected a number above 0.")
    from stav2a.models.conversion.writing_folders import convert

    print(convert(arguments.kind, arguments.checkpoint, arguments.output, _choices(arguments)))
    return SUCCESS


def _choices(arguments: argparse.Namespace) -> Any:
    from stav2a.models.conversion.converters import ConversionOptions
    from stav2a.models.conversion.layouts import find_unet

    unet = find_unet(arguments.unet) if arguments.unet else None
    return ConversionOptions(
        unet=unet, scale_factor=arguments.scale_factor, left_out=tuple(arguments.leave_out)
    )
