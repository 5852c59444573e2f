"""The joint stage's training step: a ladder of ways to compute it, in one process, in turns.

Clips are random numbers of the right shapes; latents and video features are at hand, as the store has them.
"""

import time
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from stav2a.training.loop import TrainingRun
from stav2a.utils.files import write_json
from tests.benchmarks.joint_steps import run
from tests.benchmarks.measuring import (
    CLOCK,
    DEVICE,
    RESULTS,
    Clock,
    in_turns,
    machine,
    peak_memory_gb,
    spread,
)
from tests.benchmarks.scales import SCALES

torch._inductor.config.force_disable_caches = True  # a first run compiles, as on a new machine
# scale, batch, rounds, warm-up rounds
RUNS = [("laptop", 16, 10, 2)] if DEVICE.type == "cpu" else [("laptop", 16, 10, 2), ("paper", 10, 10, 3)]
PLAIN = "plain AdamW"
LAST = {"memory_format": "channels_last"}
BF16 = {"mixed_precision": "bf16"}


def plain_adamw(params: Iterable[Any]) -> Any:
    """One parameter after the other."""
    return torch.optim.AdamW(params, betas=(0.9, 0.99), foreach=False, fused=False)


# name: settings of the trainer, the step's time over the plain one's as expected before it was measured,
# and whether it learns the same but for rounding in float32
ARMS: dict[str, tuple[dict[str, Any], float, bool]] = {
    PLAIN: ({"optimizer": plain_adamw}, 1.0, True),
    "fused AdamW": ({}, 0.95, True),
    "fused AdamW, channels_last": (LAST, 0.9, True),
    "fused AdamW, compiled": ({"compiled": True}, 0.8, True),
    "fused AdamW, bf16": (BF16, 0.9, False),
    "fused AdamW, bf16, compiled": ({"compiled": True, **BF16}, 0.6, False),
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("scale", "batch", "rounds", "warmups"), RUNS)
def test_training_ladder(benchmark, tmp_path, scale, batch, rounds, warmups):
    clock, times = Clock(DEVICE), {}
    runs, losses, firsts = {}, {}, {}
    for name, (settings, *_) in ARMS.items():
        began = time.perf_counter()
        runs[name] = run(scale, batch, settings, tmp_path / name)  # compiles
        losses[name] = [runs[name].step() for _ in range(3)][-1]
        firsts[name] = time.perf_counter() - began
    pieces = {"drawing a batch": drawing(runs[PLAIN]), "encoding its clips": encoding(scale, batch)}
    benchmark.pedantic(
        in_turns,
        args=({**{name: each.step for name, each in runs.items()}, **pieces}, clock, times),
        rounds=rounds,
        warmup_rounds=warmups,
    )
    taken = {name: [each for each in found[CLOCK][warmups:]] for name, found in times.items()}
    record = {
        "machine": machine(), "scale": scale, "batch": batch, "rounds": rounds,
        "peak_memory_gb": peak_memory_gb(DEVICE),
        "arms": {
            name: {
                "expected": expected, "exact": exact, "first_run_s": firsts[name],
                "error": abs(losses[name] / losses[PLAIN] - 1),
                "seconds": spread(taken[name]),
                "ratio": spread([a / b for a, b in zip(taken[name], taken[PLAIN], strict=True)]),
            }
            for name, (_, expected, exact) in ARMS.items()
        },
        "pieces": {name: spread(taken[name]) for name in pieces},
    }  # fmt: skip
    benchmark.extra_info.update(record)
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"training-{DEVICE.type}-{scale}-{batch}.json", record)


def drawing(run: TrainingRun) -> Any:
    """What a step waits for its data."""
    return lambda: run._inputs(run.progress.step)


def encoding(scale: str, batch: int) -> Any:
    """What a step does not wait for, as latents and features are kept: both encoders on its clips."""
    model: Any = SCALES[scale].model(DEVICE)
    encoder = model.feature_encoder
    length, size = round(model.duration_s * encoder.frame_rate_hz), encoder.frame_size
    frames = torch.rand(batch, length, 3, size, size, device=DEVICE)
    mel = torch.randn(batch, 1, round(model.duration_s * 100), 64, device=DEVICE)

    @torch.no_grad()
    def both() -> Tensor:
        model.autoencoder.encode(mel)
        return encoder(frames)

    return both
