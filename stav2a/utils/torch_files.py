"""Published checkpoint files, opened without running anything in them and identified by their sha256."""

import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stav2a.utils import onnx_files
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.contents import file_hash
from stav2a.utils.shipped import doc

OLDEST_TORCH = (2, 10)  # before it, torch.load(weights_only=True) could be made to run code


class Inert:
    """Stand-in for an object beside the weights: made of anything, it holds nothing and does nothing."""

    def __new__(cls, *args: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


# Arrays of whole numbers, as PANNs keeps its sampler's order beside its weights, and single numbers; under
# numpy's old names too.
HARMLESS: list[Any] = [
    *((np.zeros(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    np.dtypes.Int64DType,
    np.dtypes.Float64DType,
]
# Settings by OmegaConf, as Synchformer's authors keep them beside the weights.
HARMLESS += [
    *((Inert, f"omegaconf.{name}") for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *((Inert, f"omegaconf.{name}") for name in ("base.Metadata", "base.ContainerMetadata", "nodes.AnyNode")),
    (Inert, "typing.Any"),
    (dict, "builtins.dict"),
    (list, "builtins.list"),
    (int, "builtins.int"),
    (defaultdict, "collections.defaultdict"),
]
LFS_POINTER = b"version https://git-lfs"
ARCHIVES = (".whl", ".zip")
KINDS = {
    "": "torch or safetensors file",
    ".h5": "file of Keras",
    **dict.fromkeys(ARCHIVES, "archive of an ONNX model"),
}
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, *onnx_files.UNREADABLE)


class ConvertError(CheckpointError):
    """A file that is no checkpoint, or another one than was named."""


@dataclass(frozen=True)
class CheckpointFile:
    """An opened file.

    Args:
        path: The file.
        sha256: Hash of its bytes.
        tensors: Tensors by their names in it, without the `module.` of distributed training.
        beside: Entries beside the state dict, by name: optimizer, epoch, …
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    beside: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read(path: Path, wrappers: Sequence[str] = ()) -> CheckpointFile:
    """Open a file of torch, of safetensors, of Keras (HDF5), or an archive with an ONNX model.

    Args:
        path: The file.
        wrappers: Entries under which the state dict may lie, such as `state_dict`.

    Raises:
        ConvertError: There is no such file, or it is cut off, or holds other things than tensors.
    """
    check_torch(torch.__version__)
    if not path.is_file():
        message = f"{path}: there is no such file."
        raise ConvertError(message, advice=f"Download it first; see {doc('weights.md')}.")
    sha256 = file_hash(path)
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        message = f"{path} is a Git LFS pointer, not the weights themselves."
        raise ConvertError(message, advice="Fetch them with git lfs pull.")
    tensors, beside = _unwrap(_load(path, sha256), path, wrappers)
    stripped = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise ConvertError(f"{path} holds keys both with and without 'module.' before them.")
    return CheckpointFile(path, sha256, stripped, beside)


def check_torch(version: str) -> None:
    """Refuse a torch whose restricted unpickling can't be relied on.

    Raises:
        ConvertError: It is older than 2.10.
    """
    found = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if found < OLDEST_TORCH:
        risk = "can be made to run code by a checkpoint file, even with weights_only=True."
        raise ConvertError(f"torch {version} {risk}", advice="Install torch 2.10 or newer.")


def _load(path: Path, sha256: str) -> Any:
    if path.suffix == ".h5":
        try:
            import h5py
        except ModuleNotFoundError:
            message = f"{path} is a file of Keras, which h5py reads; it is not installed."
            raise ConvertError(message, advice="pip install 'stav2a[keras]'") from None
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in ARCHIVES:
            return onnx_files.weights(path)
        if path.suffix == ".h5":
            return _load_keras(h5py, path)
        mapped = zipfile.is_zipfile(path)  # not the format of torch before 1.6, which has to be read whole
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UNREADABLE as error:
        foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))  # torch has no field for it
        if foreign:
            objects = f"Python objects besides tensors ({foreign[1]}), which could run code"
            advice = "Save its state dict alone, on a machine where you trust the file."
            raise ConvertError(f"{path} holds {objects}, so it was not loaded.", advice=advice) from None
        message = (
            f"{path} can't be read as a checkpoint. It is cut off, or no {KINDS.get(path.suffix, KINDS[''])}."
        )
        raise ConvertError(message, advice=f"Download it again; its sha256 is {sha256}.") from None


def _load_keras(h5py: Any, path: Path) -> dict[str, Tensor]:
    """Tensors of an HDF5 file by their paths in it."""
    found: dict[str, Tensor] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = torch.from_numpy(np.asarray(item))

    with h5py.File(path) as opened:
        opened.visititems(keep)
    return found


def _unwrap(loaded: Any, path: Path, wrappers: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict, and the entries beside it."""
    if _is_state_dict(loaded):
        return dict(loaded), {}
    entries = dict(loaded) if isinstance(loaded, Mapping) else {}
    for wrapper in wrappers:
        if _is_state_dict(entries.get(wrapper)):
            return dict(entries[wrapper]), {str(name): entries[name] for name in entries if name != wrapper}
    found = ", ".join(map(str, list(entries)[:8])) or type(loaded).__name__
    expected = " or ".join(["tensors by name", *(f"an entry {name!r} with them" for name in wrappers)])
    raise ConvertError(f"{path} holds {found}; expected {expected}.")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(t, Tensor) for t in value.values())
