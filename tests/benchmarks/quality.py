"""What fewer steps and shortcuts cost in quality: `python -m tests.benchmarks.quality --run RUN_DIR`.

The test clips of a finished run are sampled anew from the same noise, by each sampler and scheduler, and
measured as the run itself measures them. Rows that the file has already are kept.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stav2a import preparation, results
from stav2a.evaluation import evaluate
from stav2a.generate.soundtrack import Trained, load
from stav2a.pipeline import Pipeline
from stav2a.sampling import (
    ControlEvery,
    DeepCache,
    FastSampler,
    GuidanceInterval,
    ReferenceSampler,
    ddim,
    ddpm,
    dpm_solver,
    unipc,
)
from stav2a.store import Store, write_json

RESULTS = Path(__file__).parent / "results" / "quality.json"
FAST = FastSampler
ROWS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "DPM-Solver++, 25 steps": (FAST, dpm_solver, 25),
    "DPM-Solver++, 10 steps": (FAST, dpm_solver, 10),
    "DDPM, 25 steps, as the recipe has it": (FAST, ddpm, 25),
    "UniPC, 10 steps": (FAST, unipc, 10),
    "DPM-Solver++, 25 steps, guidance from 0.2 to 0.8": (
        partial(FAST, shortcut=GuidanceInterval), dpm_solver, 25,
    ),
    "DPM-Solver++, 25 steps, ControlNet every 2nd": (partial(FAST, shortcut=ControlEvery), dpm_solver, 25),
    "DPM-Solver++, 25 steps, DeepCache every 2nd": (partial(FAST, shortcut=DeepCache), dpm_solver, 25),
    "DPM-Solver++, 50 steps": (FAST, dpm_solver, 50),
    "UniPC, 25 steps": (FAST, unipc, 25),
    "DPM-Solver++, 25 steps, bfloat16": (partial(FAST, precision="bfloat16"), dpm_solver, 25),
    "DPM-Solver++, 25 steps, reference": (ReferenceSampler, dpm_solver, 25),
    "DDIM, 200 steps": (FAST, ddim, 200),
}  # fmt: skip


def scored(trained: Trained, store: Store, name: str) -> dict[str, Any]:
    """One row: its scores with their intervals, and what sampling took of the processor."""
    make, scheduler, steps = ROWS[name]
    experiment, model = trained.experiment, trained.model
    pipeline = Pipeline(experiment, store, lambda name, value, step: None, lambda line: None)
    data = pipeline._prepare(model)
    corpus = preparation.corpus(data, model, pipeline._filter_key, store=store, keys=pipeline._keys)
    classifier = pipeline._classifier(model, corpus, data)
    rows = [i for i, clip in enumerate(data.clips) if clip.split == "test"]
    clips, began = [data.clips[i] for i in rows], time.process_time()
    audio = results.generate(
        model,
        preparation.encode_frames(model, corpus.frames[rows]),
        [clip.caption for clip in clips],
        sampler=make(),
        scheduler=scheduler(experiment.prediction_type, timestep_spacing="trailing"),
        num_inference_steps=steps,
        guidance_scale=experiment.guidance_scale,
        seed=experiment.seed,
    )
    took = time.process_time() - began
    made = results.Generated(clips, audio, data.audio[rows])
    scores = evaluate(_samples(pipeline, made, data, classifier), [make() for make in experiment.metrics])
    return {"cpu_s": took, "steps": steps, "scores": [_figures(score) for score in scores]}


def _samples(pipeline: Any, made: Any, data: Any, classifier: Any) -> Any:
    flows, rates = preparation.mean_flows(made.clips, store=pipeline.store, key=pipeline._dataset_key)
    heard = results.classified(classifier, made, name="struck_objects classifier")
    return results.evaluation_set(made, flows, rates, heard, preparation.class_names(data.clips))


def _figures(score: Any) -> dict[str, Any]:
    names = ("name", "value", "low", "high", "corrected", "chance")
    return {name: getattr(score, name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run of the benchmark")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the results, JSON")
    arguments = parser.parse_args()
    trained, store = load(arguments.run), Store(arguments.run.parent / "store")
    found: Mapping[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in ROWS:
        if name not in found:
            print(name, file=sys.stderr)
            found = {**found, name: scored(trained, store, name)}
            write_json(arguments.output, found)


if __name__ == "__main__":
    main()
