"""The ladder of the denoising loop: all rungs in one process, in turns, on new random noise each round.

    python -m tests.benchmarks.ladder --scale paper --batch 1 --steps 20 --rounds 5

The results are written after every first run and every round. The same command goes on after it was killed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stav2a.sampling import ddim
from stav2a.utils.files import write_json
from tests.benchmarks.arms import ALONE, ON_CPU, ON_GPU, PLAIN, PLAIN_HALF, PLAIN_OF, Arm
from tests.benchmarks.measuring import (
    CLOCK,
    DEVICE,
    RESULTS,
    Clock,
    ceilings,
    error,
    flops,
    in_turns,
    machine,
    peak_memory_gb,
    spread,
    tf32,
)
from tests.benchmarks.scales import SCALES, given

GUIDANCE = 3.0
ROUNDING = 1e-5  # error that float32 is allowed; other precisions, twice that of their plain loop


def chosen(scale: str, batch: int, wanted: Sequence[str] = ()) -> dict[str, Arm]:
    """The rungs: those that are asked for, with the plain loops that they are compared with.

    By default on a CPU those of the scale; on a GPU all but the ones of one change alone, and for more than
    one clip those of bfloat16, as others take minutes.
    """
    arms = ON_GPU if DEVICE.type == "cuda" else ON_CPU
    if unknown := [name for name in wanted if name not in arms]:
        raise SystemExit(f"error: there is no rung {unknown[0]!r}. There are: {' | '.join(arms)}")
    if wanted:
        names = set(wanted)
    elif DEVICE.type == "cpu":
        names = {name for name, arm in arms.items() if scale in arm.expected}
    else:
        names = {n for n, arm in arms.items() if batch == 1 or arm.precision == "bfloat16"} - {*ALONE}
    names |= {PLAIN, baseline(), *(PLAIN_OF[arms[name].precision] for name in names)}
    return {name: arm for name, arm in arms.items() if name in names}


def baseline() -> str:
    """The rung that others are compared with: what users of diffusers run."""
    return PLAIN_HALF if DEVICE.type == "cuda" else PLAIN


def measure(
    scale: str,
    batch: int,
    steps: int,
    rounds: int,
    file: Path,
    *,
    wanted: Sequence[str] = (),
    minutes: float = float("inf"),
) -> dict[str, Any]:
    """Measure the rungs and write the record, after every round; what the file has of the same is kept.

    Args:
        scale: Name of the model's size.
        batch: Clips.
        steps: Denoising steps of a run.
        rounds: Rounds, of one run of every rung.
        file: The record, JSON.
        wanted: Names of rungs; see `chosen`.
        minutes: No round begins that would end later.
    """
    began, arms, clock = time.monotonic(), chosen(scale, batch, wanted), Clock(DEVICE)
    asked = {"scale": scale, "batch": batch, "steps": steps, "rungs": list(arms)}
    record = continued(file, asked)
    model = SCALES[scale].model(DEVICE)
    scheduler = ddim("epsilon", timestep_spacing="trailing")
    settings = {"scheduler": scheduler, "num_inference_steps": steps, "guidance_scale": GUIDANCE}
    if not record:
        tokens = SCALES[scale].words + 4
        record |= {
            "machine": machine(), "clock": CLOCK, **asked,
            "baseline": baseline(),
            "gflop_a_step": flops(model, batch, tokens) / 1e9,
            "million_parameters": sum(p.numel() for p in model.backbone.parameters()) / 1e6,
            "ceilings": ceilings(DEVICE, clock, CLOCK),
            "first_runs": {}, "errors": {}, "times": [],
        }  # fmt: skip
    timed = [name for name in arms if name != PLAIN or DEVICE.type == "cpu" or batch == 1]
    runs = {name: in_precision(arm.make(), arm.precision) for name, arm in arms.items()}
    exact = None
    for name in [PLAIN, *(name for name in arms if name != PLAIN)]:
        made, seconds = clocked(clock, partial(runs[name], model, **settings, **given(model, batch, 0)))
        exact = made if exact is None else exact
        record["first_runs"].setdefault(name, seconds)  # with preparation and compilation
        record["errors"].setdefault(name, error(made, exact))
        write_json(file, summed_up(record, arms))
        print(f"{name}: first run {seconds['wall']:.1f} s", file=sys.stderr)
    longest = 0.0
    while len(record["times"]) < rounds:
        if time.monotonic() - began + longest > 60 * minutes:
            break
        inputs = {**settings, **given(model, batch, 1 + len(record["times"]))}
        times: dict[str, Any] = {}
        round_ = clock(partial(in_turns, {n: partial(runs[n], model, **inputs) for n in timed}, clock, times))
        longest = max(longest, round_["wall"])
        record["times"].append(
            {name: {kind: found[0] for kind, found in times[name].items()} for name in times}
        )
        write_json(file, summed_up(record, arms))
        print(f"round {len(record['times'])}: {round_['wall']:.1f} s", file=sys.stderr)
    return record


def continued(file: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The record that a killed command left, or an empty one.

    Raises:
        SystemExit: The file has another measurement.
    """
    if not file.exists():
        return {}
    found = json.loads(file.read_text())
    if "times" not in found:
        return {}  # of an older form
    same = {**asked, **{key: machine()[key] for key in ("device", "torch", "threads")}}
    there = {key: found[key] if key in asked else found["machine"][key] for key in same}
    if there != same:
        changed = ", ".join(key for key in same if same[key] != there[key])
        raise SystemExit(f"error: {file} is of another measurement ({changed}). Remove it or give --results.")
    return found


def clocked(clock: Clock, run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, float]]:
    """What a run gives, and its seconds."""
    made: list[Tensor] = []
    seconds = clock(lambda: made.append(run()))
    return made[0], seconds


def in_precision(sampler: Callable[..., Tensor], precision: str) -> Callable[..., Tensor]:
    """A sampler whose float32 products are in TF32, or are not."""

    def run(*given: Any, **settings: Any) -> Tensor:
        with tf32(precision == "tf32"):
            return sampler(*given, **settings)

    return run


def summed_up(record: dict[str, Any], arms: Mapping[str, Arm]) -> dict[str, Any]:
    """The record with what follows from its times, as docs/performance.md has it."""
    clock, times, errors = record["clock"], record["times"], record["errors"]
    record |= {"rounds": len(times), "peak_memory_gb": peak_memory_gb(DEVICE), "arms": {}}
    for name, arm in arms.items():
        if name not in errors or (times and name not in times[0]):
            continue
        plain = errors.get(PLAIN_OF[arm.precision])
        allowed = ROUNDING if arm.precision == "float32" else plain and max(ROUNDING, 2 * plain)
        record["arms"][name] = {
            "expected": arm.expected.get(record["scale"]),
            "predicted_ms": arm.predicted_ms.get(record["batch"]) if record["scale"] == "paper" else None,
            "precision": arm.precision, "exact": arm.exact, "error": errors[name], "allowed_error": allowed,
            "first_run_s": record["first_runs"][name],
        }  # fmt: skip
        if times:
            measured = {kind: spread([each[name][kind] for each in times]) for kind in ("wall", "cpu")}
            ratio = spread([each[name][clock] / each[record["baseline"]][clock] for each in times])
            record["arms"][name] |= {**measured, "ratio": ratio}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rungs", default="", help="names, separated by |")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="no round begins that would end later"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--name", default="", help="of the record; by default of device, scale and batch")
    given_ = parser.parse_args()
    device = "gpu" if DEVICE.type == "cuda" else "cpu"
    name = given_.name or f"{device}-{given_.scale}-{given_.batch}"
    given_.results.mkdir(parents=True, exist_ok=True)
    file = given_.results / f"{name}.json"
    wanted = [each.strip() for each in given_.rungs.split("|") if each.strip()]
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    record = measure(
        given_.scale,
        given_.batch,
        given_.steps,
        given_.rounds,
        file,
        wanted=wanted,
        minutes=given_.minutes,
    )
    for each, arm in record["arms"].items():
        ms = f"{1000 * arm[CLOCK]['median'] / record['steps']:9.2f} ms a step" if CLOCK in arm else ""
        print(f"{ms}  error {arm['error']:.0e}  {each}")
    print(file)
    if record["rounds"] < given_.rounds:
        raise SystemExit(
            f"{record['rounds']} rounds of {given_.rounds}: no more time. Run it again to go on."
        )


if __name__ == "__main__":
    main()
