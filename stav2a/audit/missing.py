"""What a recipe needs and this machine lacks, with what to do about each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.checkpoints import Asked

DATA = ("file", "folder", "videos")  # a dataset's parameters that name what has to be there
CLIPS = "get the clips (the paper's are VGGSound's), and prepare them with this recipe: docs/data.md"


@dataclass(frozen=True)
class Source:
    """A public checkpoint.

    Args:
        kind: What `stav2a convert` calls it.
        file: As its authors call it.
        part: The folder of the output that is the component's; empty where the output itself is.
    """

    kind: str
    file: str
    part: str = ""


RELEASED, TANGO, AUDIOLDM = "pytorch_model_2.bin", "pytorch_model_main.bin", "audioldm-s-full.ckpt"
SOURCES = {  # where there are several, the output folder's name tells which is meant, or else the first is
    "feature_encoder.cavp.checkpoint": (Source("cavp", "cavp_epoch66.ckpt"),),
    "autoencoder.kl.checkpoint": (Source("audioldm", AUDIOLDM, "vae"),),
    "vocoder.hifigan.checkpoint": (Source("audioldm", AUDIOLDM, "vocoder"),),
    "unet.stable_diffusion.checkpoint": (
        Source("tango", TANGO, "unet"),
        Source("released", RELEASED, "unet"),
    ),
    "local_head.onset_released.checkpoint": (Source("released", RELEASED, "local_head"),),
    "global_pooler.factor_graph.checkpoint": (Source("released", RELEASED, "global_pooler"),),
    "backbone.unet_controlnet_released.checkpoint": (Source("released", RELEASED, "backbone"),),
    "text_encoder.mt5.checkpoint": (Source("released", RELEASED, "text_encoder"),),
    "text_encoder.t5.checkpoint": (Source("tango", TANGO, "text_encoder"),),
}
ON_THE_HUB = {  # as transformers saves them
    "text_encoder.mt5.checkpoint": "google/mt5-large",
    "text_encoder.t5.checkpoint": "google/flan-t5-large",
    "feature_encoder.clip.checkpoint": "openai/clip-vit-large-patch14",
    "feature_encoder.videomae.checkpoint": "MCG-NJU/videomae-base",
    "feature_encoder.vjepa2.checkpoint": "facebook/vjepa2-vitl-fpc64-256",
}


@dataclass(frozen=True)
class Missing:
    """Something that a run needs and this machine lacks.

    Args:
        told: What it is.
        advice: A command that makes it, or what else to do.
    """

    told: str
    advice: str


def missing_weights(asked: Iterable[Asked]) -> list[Missing]:
    """The weights that could not be loaded, each with the command that makes them where we know one."""
    found = []
    for each in asked:
        if each.fault:
            told, _, advice = each.fault.partition(". ")
            known = None if Path(each.folder).exists() else _command(each.parameter, each.folder)
            found.append(Missing(told, known or advice.removesuffix(".")))
    return found


def missing_data(described: Mapping[str, Any]) -> list[Missing]:
    """The files and folders that a dataset's description names, and that are not there."""
    named = {name: value for name, value in described["parameters"].items() if name in DATA and value}
    return [
        Missing(f"{described['component']}.{name} = {value!r}: there is no such file or folder", CLIPS)
        for name, value in named.items()
        if not Path(value).exists()
    ]


def missing_lines(missing: Sequence[Missing]) -> list[str]:
    """What is missing, each advice once."""
    if not missing:
        return ["nothing that the recipe names is missing on this machine"]
    by_advice: dict[str, list[str]] = {}
    for each in missing:
        by_advice.setdefault(each.advice, []).append(each.told)
    lines = ["missing on this machine, and what to do:"]
    for advice, told in by_advice.items():
        lines += [*(f"  {line}" for line in told), f"    -> {advice}"]
    return lines


def _command(parameter: str, folder: str) -> str | None:
    """What puts the weights into a folder that is not there yet."""
    known, output = SOURCES.get(parameter, ()), Path(folder)
    meant = [each for each in known if each.kind == output.parent.name]
    source = next(iter([*meant, *known]), None)
    inside = source is not None and source.part != "" and output.name == source.part
    if parameter in ON_THE_HUB and not inside:
        name = ON_THE_HUB[parameter]
        return f"hf download {name}" + ("" if folder == name else f" --local-dir {folder}")
    if source is None:
        return None
    command = f"stav2a convert {source.kind} --checkpoint {source.file} --output"
    if inside or not source.part:
        return f"{command} {output.parent if inside else output}"
    return f"{command} {output}, then bind {parameter} = '{output / source.part}'"
