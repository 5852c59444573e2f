"""Machine, clocks, ceilings, and arms measured in turns."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stav2a.models.stav2a import STAV2A, Conditions

GIGA = 1e9
RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Which of the clocks is compared: on one thread the processor's, which other people's work stretches less.
CLOCK = "cpu" if DEVICE.type == "cpu" and torch.get_num_threads() == 1 else "wall"


def machine() -> dict[str, Any]:
    """Device, versions, date and load."""
    import diffusers

    gpu = torch.cuda.get_device_name() if DEVICE.type == "cuda" else None
    return {
        "device": gpu or _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "date": date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Context in which a GPU multiplies float32 in TF32, or does not: torch does in convolutions alone."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


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
    """Median and quartiles; of one value, that."""
    values = values * 2 if len(values) == 1 else values
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": low, "q3": high}


def ceilings(device: torch.device, clock: Clock, which: str) -> dict[str, float]:
    """What the device does at best by one of the clocks: GFLOP/s of products, GB/s of a copy."""
    found, size = {}, 8192 if device.type == "cuda" else 1024
    kinds = [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
    for name, dtype in [*kinds, ("tf32", torch.float32)] if device.type == "cuda" else kinds:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with tf32(name == "tf32"):
            seconds = min(clock(lambda a=a, b=b: a @ b)[which] for _ in range(8))
        found[name] = 2 * size**3 / seconds / GIGA
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
