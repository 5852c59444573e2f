"""From checkpoint files to folders: read, checked key by key, written, and told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from stav2a import __version__, registry
from stav2a.models.conversion.converters import CONVERTERS, ConversionOptions, Converter, unet
from stav2a.models.conversion.layouts import UNETS, CheckpointPart, check
from stav2a.models.stav2a import write_model
from stav2a.recipe import describing
from stav2a.utils.checkpoints import CONFIG, OURS, save_weights
from stav2a.utils.files import new_folder, write_json
from stav2a.utils.torch_files import CheckpointFile, ConvertError, read


def convert(kind: str, files: Sequence[Path], output: Path, choices: ConversionOptions | None = None) -> str:
    """Convert one published checkpoint.

    Args:
        kind: One of `CONVERTERS`.
        files: Its files.
        output: A new folder, with one folder a part where it has several.
        choices: What the files do not say.

    Returns:
        What was read, left out and written, and how a recipe names it.

    Raises:
        ConvertError: A file is no such checkpoint; names every key that does not fit.
        UsageError: The output is there already.
    """
    choices = choices or ConversionOptions()
    converter = replace(CONVERTERS[kind], left_out=(*CONVERTERS[kind].left_out, *choices.left_out))
    with new_folder(output) as folder:
        sources = [read(path, converter.wrappers) for path in files]
        tensors = converter.prepared(_joined(sources))
        parts = _fitting(kind, converter, tensors, choices, files)
        for part in parts:
            _write(folder / part.folder, part, tensors, origin(kind, sources))
        if converter.model is not None:
            write_model(folder, **converter.model)
    return "\n".join(_told(converter, sources, tensors, parts, output))


def origin(kind: str, sources: Sequence[CheckpointFile]) -> dict[str, Any]:
    """Where weights come from, for their config.json."""
    return {
        "source": kind,
        "files": [{"name": source.path.name, "sha256": source.sha256} for source in sources],
        "licence": CONVERTERS[kind].licence,
        "version": __version__,
    }


def _joined(sources: Sequence[CheckpointFile]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for source in sources:
        if twice := sorted(set(source.tensors) & set(tensors)):
            raise ConvertError(
                f"{source.path} holds {twice[0]}, as a file before it does. Give each file once."
            )
        tensors |= source.tensors
    return tensors


def _fitting(
    kind: str,
    converter: Converter,
    tensors: Mapping[str, Tensor],
    choices: ConversionOptions,
    files: Sequence[Path],
) -> list[CheckpointPart]:
    """The parts that the tensors make up, all of them checked."""
    names = ", ".join(map(str, files))
    if not converter.knows(tensors):
        raise ConvertError(f"{names} is no checkpoint of {kind}: {_other_kind(tensors)}")
    try:
        parts = list(converter.parts(tensors, choices))
        check(parts, tensors, lambda key: key in converter.read or converter.leaves_out(key) is not None)
    except ConvertError as error:
        advice = _other_unet(tensors)
        raise ConvertError(
            f"{names} does not fit {kind}, and nothing was written:\n{error}{advice}"
        ) from None
    return parts


def _other_unet(tensors: Mapping[str, Tensor]) -> str:
    """The published sizes that the U-Net of a checkpoint has, if it has any."""
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.startswith("unet.")}
    fitting = [name for name, sizes in UNETS.items() if found and unet(sizes).shapes() == found]
    return f"\n  Its U-Net has the sizes of --unet {' or '.join(fitting)}." if fitting else ""


def _other_kind(tensors: Mapping[str, Tensor]) -> str:
    begin = ", ".join(dict.fromkeys(name.split(".")[0] for name in list(tensors)[:2000]))
    near = [kind for kind, other in CONVERTERS.items() if other.knows(tensors)]
    advice = f" Perhaps: stav2a convert {near[0]}" if near else ""
    return f"its keys begin with {begin[:200]}.{advice}"


def _write(
    folder: Path, part: CheckpointPart, tensors: Mapping[str, Tensor], converted: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / part.file, part.take(tensors))
    ours = {
        "component": part.component,
        "parameters": dict(part.parameters),
        "converted": {**converted, **part.notes},
    }
    write_json(folder / CONFIG, {**part.hub, OURS: ours})


def _told(
    converter: Converter,
    sources: Sequence[CheckpointFile],
    tensors: Mapping[str, Tensor],
    parts: Sequence[CheckpointPart],
    output: Path,
) -> list[str]:
    lines = [f"read      {source.path}  sha256 {source.sha256}" for source in sources]
    lines += [f"licence   {converter.licence}"]
    unused = Counter(entry for key in tensors if (entry := converter.leaves_out(key)))
    unused |= Counter(name for source in sources for name in source.beside)
    for entry, count in unused.items():
        lines.append(f"left out  {entry}{f'* ({count} tensors)' if entry.endswith('.') else ''}")
    for part in parts:
        numbers = sum(tensors[key].numel() for key in part.keys())
        lines.append(f"wrote     {output / part.folder}  {part.component}, {numbers / 1e6:.1f} M numbers")
    lines += [f"noted     {name} {value}" for part in parts for name, value in part.notes.items()]
    lines += [f"to add    {part.needs}, into {output / part.folder}" for part in parts if part.needs]
    bindings = [line for part in parts for line in _bindings(part, output)]
    lines += ["In a recipe:", *(f"  {line}" for line in bindings)]
    if converter.model is not None:
        lines += [
            "In Python:",
            f"  STAV2A.from_pretrained({str(output)!r}, SLOT=FACTORY of blocks not there)",
        ]
    return lines


def _bindings(part: CheckpointPart, output: Path) -> list[str]:
    entry = registry.get(*part.component.split("."))
    checkpoint = {"checkpoint": str(output / part.folder)} if "checkpoint" in entry.settable else {}
    bound = {**checkpoint, **part.parameters}
    return [f"{part.component}.{name} = {describing.format_value(value)}" for name, value in bound.items()]
