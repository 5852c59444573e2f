"""Checkpoints of unfinished training: one file, from which a run goes on as if it had not stopped."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from stav2a.checkpoints import save_weights


@dataclass
class Progress:
    """How far a stage has come: what a checkpoint holds beside tensors."""

    step: int = 0
    best_loss: float = math.inf
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        self.history.setdefault(name, []).append((self.step, value))


def write_checkpoint(
    file: Path, tensors: Mapping[str, Tensor], optimizer: Any, scaler: Any, progress: Progress
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        file: The checkpoint.
        tensors: All that is to be restored in place, by name.
        optimizer: A torch optimizer; what it knows of each parameter is kept.
        scaler: fp16's gradient scaler, or None.
        progress: How far the run has come.
    """
    state = {
        f"optimizer.{number}.{name}": value
        for number, known in optimizer.state_dict()["state"].items()
        for name, value in known.items()
    }
    numbers = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    facts = {
        "progress": vars(progress),
        "optimizer": numbers,
        "scaler": scaler.state_dict() if scaler else {},
    }
    temporary = file.with_suffix(f".{os.getpid()}")
    kept = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    save_weights(temporary, {**tensors, **kept}, facts=json.dumps(facts))
    os.replace(temporary, file)


@torch.no_grad()
def read_checkpoint(file: Path, tensors: Mapping[str, Tensor], optimizer: Any, scaler: Any) -> Progress:
    """Put everything back that `write_checkpoint` kept, and return how far the run had come."""
    with safe_open(file, framework="pt") as saved:
        facts = json.loads(saved.metadata()["facts"])
        for name, tensor in tensors.items():
            tensor.copy_(saved.get_tensor(name))
        kept = {name: saved.get_tensor(name) for name in saved.keys() if name.startswith("optimizer.")}
    state: dict[int, dict[str, Any]] = {}
    for full, value in {**kept, **facts["optimizer"]}.items():
        _, number, name = full.split(".", 2)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if scaler and facts["scaler"]:
        scaler.load_state_dict(facts["scaler"])
    return Progress(**facts["progress"])
