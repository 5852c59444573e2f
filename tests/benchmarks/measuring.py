"""Clocks, ceilings, and arms measured in turns."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stav2a.models.stav2a import STAV2A, Conditions

GIGA = 1e9


class Clock:
    """Seconds of a piece of work, finished: of the wall, and of the processor where it does the work.

    On one thread both are the same on a quiet machine; other people's work stretches the first alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Callable[[], Any]) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": low, "q3": high}


def ceilings(device: torch.device, clock: Clock, which: str) -> dict[str, float]:
    """What the device does at best, by one of the clocks: GFLOP/s of a matrix product, GB/s of a copy."""
    found, size = {}, 8192 if device.type == "cuda" else 1024
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = min(clock(lambda a=a, b=b: a @ b)[which] for _ in range(8))
        found[str(dtype).removeprefix("torch.")] = 2 * size**3 / seconds / GIGA
    source = torch.randn(64 * 2**20, device=device)
    goal = torch.empty_like(source)
    seconds = min(clock(lambda: goal.copy_(source))[which] for _ in range(5))
    found["copy"] = 2 * source.nbytes / seconds / GIGA
    return found


def flops(model: STAV2A, batch: int, tokens: int) -> float:
    """Of one step with both branches of guidance, counted without computing it."""
    import copy

    meta = copy.deepcopy(model.backbone).to("meta")
    rows = 2 * batch
    cond_dim, local_dim = model.text_encoder.dim, model.local_head.dim
    length = model.latent_shape[1]
    conditions = Conditions(
        torch.empty(rows, tokens, cond_dim, device="meta"),
        torch.empty(rows, tokens, dtype=torch.bool, device="meta"),
        torch.empty(rows, length, local_dim, device="meta"),
    )
    z_t, t = torch.empty(rows, *model.latent_shape, device="meta"), torch.empty(rows, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        meta(z_t, t, conditions.c, conditions.mask, conditions.e_lv)
    return float(counter.get_total_flops())


def peak_memory_gb(device: torch.device) -> float:
    """The device's since the process began; on a CPU the whole process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def in_turns(arms: Mapping[str, Callable[[], Tensor]], clock: Clock, times: dict[str, Any]) -> None:
    """Run every arm once, and add its times."""
    for name, run in arms.items():
        for kind, seconds in clock(run).items():
            times.setdefault(name, {}).setdefault(kind, []).append(seconds)


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())
