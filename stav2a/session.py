"""One recipe carried out in its run folder: run, written down, tracked; or answered from there."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stav2a import evaluation, gallery, recipe
from stav2a.experiment import Experiment
from stav2a.pipeline import Outcome, Pipeline
from stav2a.plots import curves_png
from stav2a.report import write_report
from stav2a.run_folder import RunFolder, check_writable
from stav2a.store import Store, save_tensors, write_text
from stav2a.tracking import Tracker, connect, environment, git_state

SAMPLES = 8  # clips to hear and to see


def explain(loaded: recipe.Recipe) -> str:
    """What a recipe comes to: its lineage, its signature, every parameter.

    Raises:
        ValueError: The recipe's values can't be.
    """
    Experiment()  # type: ignore[call-arg]  # gin supplies every argument
    lineage = " -> ".join(recipe.shown(path) for path in loaded.files)
    return f"# {lineage}\n# signature {loaded.signature()}\n\n{loaded.snapshot()}"


def carry_out(loaded: recipe.Recipe, output: Path, tracking_uri: str | None) -> str:
    """Run a recipe, or take the answer of an earlier run of the same.

    Args:
        loaded: The recipe.
        output: Holds the run folders, the store and, by default, the tracking database.
        tracking_uri: See `tracking.connect`.

    Returns:
        The table of scores, and where everything is.
    """
    name = loaded.named[0].stem
    folder = RunFolder(output / f"{name}-{loaded.signature()[:8]}")
    check_writable(output)
    if folder.finished:
        return _answer(folder)
    known = folder.facts() if folder.begun else {}
    tracker = connect(
        tracking_uri, output, experiment="stav2a", run_name=name, run_id=known.get("mlflow_run")
    )
    with tracker:
        _begin(loaded, folder, name, tracker)
        began = time.monotonic()
        outcome = _pipeline(Store(output / "store"), tracker).run()
        folder.add(seconds=round(time.monotonic() - began, 1))
        _write(loaded, folder, outcome)
        _track(tracker, folder, outcome)
        folder.add(tracked=tracker.where())
    folder.add(finished=True)
    return _answer(folder)


def _begin(loaded: recipe.Recipe, folder: RunFolder, name: str, tracker: Tracker) -> None:
    facts: dict[str, Any] = {"recipe": name, "environment": environment(), "git": git_state(Path.cwd())}
    folder.begin(signature=loaded.signature(), snapshot=loaded.snapshot(), facts=facts)
    tracker.set_tags({"recipe": name, "signature": loaded.signature(), **_prefixed("git", facts["git"])})
    tracker.log_params(recipe.flatten(loaded.described()))
    tracker.log_params(_prefixed("version", facts["environment"]))
    tracker.log_text(loaded.snapshot(), "snapshot.gin")
    tracker.wait()
    folder.add(mlflow_run=tracker.run_id)


def _pipeline(store: Store, tracker: Tracker) -> Pipeline:
    def log(name: str, value: float, step: int) -> None:
        tracker.log_metrics({name: value}, step=step)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return Pipeline(Experiment(), store, log, tell)  # type: ignore[call-arg]  # gin supplies every argument


def _write(loaded: recipe.Recipe, folder: RunFolder, outcome: Outcome) -> None:
    save_tensors(folder.weights, outcome.model.state_dict())
    gallery.write_samples(outcome.made, folder.samples, count=SAMPLES)
    write_text(folder.scores, evaluation.to_json(outcome.scores))
    facts = folder.facts()
    losses = {
        f"{stage}/{name}": points for stage, h in outcome.histories.items() for name, points in h.items()
    }
    write_report(
        folder.report,
        title=f"STA-V2A: {facts['recipe']}",
        facts={
            "recipe": facts["recipe"],
            "signature": facts["signature"][:16],
            "took": f"{facts['seconds']} s, without what was in the store",
        },
        scores=outcome.scores,
        clips=gallery.report_clips(outcome.made, folder.samples, outcome.scores, count=SAMPLES),
        curves=curves_png(losses) if losses else None,
        details={
            "Recipe, whole": loaded.snapshot(),
            "Lineage": "\n".join(recipe.shown(path) for path in loaded.files),
            "Environment": {**facts["environment"], **_prefixed("git", facts["git"])},
        },
    )


def _track(tracker: Tracker, folder: RunFolder, outcome: Outcome) -> None:
    for score in outcome.scores:
        figures = {
            score.name: score.value,
            f"{score.name}_low": score.low,
            f"{score.name}_high": score.high,
            f"{score.name}_chance": score.chance,
            f"{score.name}_corrected": score.corrected,
        }
        if score.unavailable is None:
            tracker.log_metrics({name: value for name, value in figures.items() if value is not None})
    tracker.log_artifact(folder.scores)
    tracker.log_artifact(folder.report)
    for path in sorted(folder.samples.iterdir()):
        tracker.log_artifact(path, "samples")


def _answer(folder: RunFolder) -> str:
    table = evaluation.table(evaluation.from_json(folder.scores.read_text()))
    places = {
        "report": folder.report,
        "samples": folder.samples,
        "model": folder.weights,
        "tracking": folder.facts()["tracked"],
    }
    return table + "\n" + "\n".join(f"{name:9}{place}" for name, place in places.items())


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}.{name}": str(value) for name, value in values.items()}
