"""The ladder of the denoising loop: all rungs in one process, in turns, on new random noise each round.

STAV2A_RUNGS chooses rungs by name, separated by `|`; the plain loop is always among them.
"""

import os
import platform
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from stav2a.sampling import ddim
from stav2a.utils.files import write_json
from tests.benchmarks.arms import ON_CPU, ON_GPU, Arm
from tests.benchmarks.measuring import Clock, ceilings, error, flops, in_turns, peak_memory_gb, spread
from tests.benchmarks.scales import SCALES, given

RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Which of the clocks is compared: on one thread the processor's, which other people's work stretches less.
CLOCK = "cpu" if DEVICE.type == "cpu" and torch.get_num_threads() == 1 else "wall"
torch._inductor.config.force_disable_caches = True  # a first run compiles, as on a new machine
GUIDANCE = 3.0
PLAIN = "plain diffusers loop"
# scale, batch, steps a run, rounds, warm-up rounds
CPU_RUNS = [
    ("laptop", 1, 10, 10, 1),
    ("laptop", 8, 5, 10, 3),
    ("laptop", 32, 2, 5, 1),
    ("quarter", 1, 1, 5, 0),
    ("paper", 1, 1, 2, 0),
]
GPU_RUNS = [("paper", 1, 200, 10, 3), ("paper", 8, 200, 10, 3), ("paper", 32, 200, 10, 3)]
RUNS = GPU_RUNS if DEVICE.type == "cuda" else CPU_RUNS


def chosen(scale: str) -> dict[str, Arm]:
    """The rungs of a scale."""
    arms = {
        k: arm for k, arm in (ON_GPU if DEVICE.type == "cuda" else ON_CPU).items() if scale in arm.expected
    }
    wanted = os.environ.get("STAV2A_RUNGS")
    return {k: a for i, (k, a) in enumerate(arms.items()) if not (i and wanted) or k in wanted.split("|")}


def machine() -> dict[str, Any]:
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


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("scale", "batch", "steps", "rounds", "warmups"), RUNS)
def test_ladder(benchmark, scale, batch, steps, rounds, warmups):
    model, clock, arms = SCALES[scale].model(DEVICE), Clock(DEVICE), chosen(scale)
    samplers = {name: arm.make() for name, arm in arms.items()}
    scheduler = ddim("epsilon", timestep_spacing="trailing")
    settings = {"scheduler": scheduler, "num_inference_steps": steps, "guidance_scale": GUIDANCE}
    times: dict[str, Any] = {}
    firsts, errors = first_runs(model, samplers, {**settings, **given(model, batch, 0)}, clock)

    seeds = iter(range(1, 10_000))

    def fresh() -> Any:
        inputs = {**settings, **given(model, batch, next(seeds))}
        return ({n: partial(s, model, **inputs) for n, s in samplers.items()}, clock, times), {}

    benchmark.pedantic(in_turns, setup=fresh, rounds=rounds, warmup_rounds=warmups)
    tokens = SCALES[scale].words + 4
    record = {
        "machine": machine(), "clock": CLOCK,
        "scale": scale, "batch": batch, "steps": steps, "rounds": rounds,
        "gflop_a_step": flops(model, batch, tokens) / 1e9,
        "million_parameters": sum(p.numel() for p in model.backbone.parameters()) / 1e6,
        "ceilings": ceilings(DEVICE, clock, CLOCK),
        "peak_memory_gb": peak_memory_gb(DEVICE),
        "arms": {
            name: {
                "expected": arm.expected[scale], "exact": arm.exact, "error": errors[name],
                "first_run_s": firsts[name],
                **{kind: spread(seconds[warmups:]) for kind, seconds in times[name].items()},
                "ratio": ratio(times, name, warmups),
            }
            for name, arm in arms.items()
        },
    }  # fmt: skip
    benchmark.extra_info.update(record)
    RESULTS.mkdir(exist_ok=True)
    file = f"{'gpu' if DEVICE.type == 'cuda' else 'cpu'}-{scale}-{batch}{os.environ.get('STAV2A_TRIAL', '')}"
    write_json(RESULTS / f"{file}.json", record)


def first_runs(model: Any, samplers: Any, inputs: Any, clock: Clock) -> tuple[Any, dict[str, float]]:
    """Seconds of each arm's first run, preparation and compilation in it, and how far its latents are off."""
    firsts, made = {}, {}
    for name, sampler in samplers.items():
        began = time.process_time(), time.perf_counter()
        made[name] = sampler(model, **inputs)
        firsts[name] = {"cpu": time.process_time() - began[0], "wall": time.perf_counter() - began[1]}
    expected = made[PLAIN]
    return firsts, {name: error(each, expected) for name, each in made.items()}


def ratio(times: Any, name: str, warmups: int) -> dict[str, float]:
    """Of each round's time to the plain loop's in the same round."""
    pairs = zip(times[name][CLOCK], times[PLAIN][CLOCK], strict=True)
    return spread([ours / plain for ours, plain in list(pairs)[warmups:]])
