"""What fewer steps and shortcuts cost in quality: `python -m tests.benchmarks.quality --runs runs`.

The full model is sampled anew from the same noise, by each sampler and scheduler, and measured as its own run
measures it; its training is taken from the runs' store, or done. Rows that the file has already are kept.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stav2a import recipe
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.steps import RunSteps
from stav2a.utils.files import write_json
from stav2a.utils.store import Store

RESULTS = Path(__file__).parent / "results" / "quality.json"
RECIPE = "recipes/cn_onset_gvf.gin"


def by(scheduler: str, steps: int, *more: str) -> Sequence[str]:
    """Bindings of a scheduler that begins at pure noise, a number of steps, and what else is given."""
    spacing = f"scheduler.{scheduler}.timestep_spacing = 'trailing'"
    return [f"run.scheduler = @scheduler.{scheduler}", spacing, f"run.num_inference_steps = {steps}", *more]


ROWS: dict[str, Sequence[str]] = {
    "DPM-Solver++, 25 steps": by("dpm_solver", 25),
    "DPM-Solver++, 10 steps": by("dpm_solver", 10),
    "DDPM, 10 steps": by("ddpm", 10),
    "DDPM, 25 steps": by("ddpm", 25),
    "UniPC, 10 steps": by("unipc", 10),
    "DPM-Solver++, 25 steps, guidance from 0.2 to 0.8": by(
        "dpm_solver", 25, "sampler.fast.shortcut = @shortcut.guidance_interval"
    ),
    "DPM-Solver++, 25 steps, ControlNet every 2nd": by(
        "dpm_solver", 25, "sampler.fast.shortcut = @shortcut.control_every"
    ),
    "DPM-Solver++, 25 steps, DeepCache every 2nd": by(
        "dpm_solver", 25, "sampler.fast.shortcut = @shortcut.deep_cache"
    ),
    "DPM-Solver++, 50 steps": by("dpm_solver", 50),
    "UniPC, 25 steps": by("unipc", 25),
    "DPM-Solver++, 25 steps, bfloat16": by("dpm_solver", 25, "sampler.fast.precision = 'bfloat16'"),
    "DPM-Solver++, 25 steps, reference": by("dpm_solver", 25, "run.sampler = @sampler.reference"),
    "DDIM, 200 steps": by("ddim", 200),
}


def scored(store: Store, name: str) -> dict[str, Any]:
    """One row: its scores with their intervals, and what sampling took of the processor."""
    loaded = recipe.load(RECIPE, ROWS[name], root=Experiment)
    experiment = loaded.build()
    began: dict[str, float] = {}

    def tell(line: str) -> None:
        began[line.split()[0]] = time.process_time()

    outcome = RunSteps(experiment, store, lambda *loss: None, tell).run()
    return {
        "cpu_s": began["measuring"] - began["sampling"],
        "steps": experiment.num_inference_steps,
        "scores": [_figures(score) for score in outcome.scores],
    }


def _figures(score: Any) -> dict[str, Any]:
    names = ("name", "value", "low", "high", "corrected", "chance")
    return {name: getattr(score, name) for name in names}


def without_sounds(store: Store, folder: Path) -> Store:
    """Copy of a store, by links, in which all sounds are missing."""
    shutil.copytree(
        store.root, folder, copy_function=os.link, ignore=shutil.ignore_patterns("sounds-*", "partial")
    )
    return Store(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="the --output folder of `stav2a run`")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the results, JSON")
    arguments = parser.parse_args()
    found: Mapping[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    with tempfile.TemporaryDirectory(dir=arguments.runs) as folder:  # on the same disk, for links
        store = without_sounds(Store.of(arguments.runs), Path(folder, "store"))
        for name in ROWS:
            if name not in found:
                print(name, file=sys.stderr)
                found = {**found, name: scored(store, name)}
                write_json(arguments.output, found)


if __name__ == "__main__":
    main()
