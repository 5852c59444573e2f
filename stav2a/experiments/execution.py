"""One recipe carried out in its run folder: run, written down, tracked; or answered from there."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stav2a import recipe
from stav2a.evaluation.scores import figures, from_json, per_clip, to_json
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.run_folder import RunFolder
from stav2a.experiments.steps import RunOutcome, RunSteps
from stav2a.experiments.tracking import PARENT, Tracker, connect, environment, git_state, resolve
from stav2a.models import audit
from stav2a.models.stav2a import BLOCKS
from stav2a.recipe import describing, parsing
from stav2a.reports import model_cost, run_report, tables
from stav2a.reports.plots import curves_png
from stav2a.reports.run_report import write_report
from stav2a.training.train import log_losses
from stav2a.utils import distributed
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.errors import UsageError
from stav2a.utils.files import check_writable, exclusive, write_json, write_text
from stav2a.utils.store import Store, save_tensors

SAMPLES = 8  # clips to hear and to see


def explain(loaded: recipe.Recipe[Experiment]) -> str:
    """What a recipe comes to: its lineage, its signature, every parameter, then as comments what it costs.

    Raises:
        ValueError: The recipe's values can't be, or its parts don't go together.
    """
    experiment = loaded.build()
    lineage = " -> ".join(parsing.shown(path) for path in loaded.files)
    audited = "\n".join(f"# {line}".rstrip() for line in _audited(experiment))
    return f"# {lineage}\n# signature {loaded.signature()}\n\n{loaded.snapshot()}\n{audited}"


def _audited(experiment: Experiment) -> list[str]:
    """What the model costs, and what is missing for it."""
    stages = [
        (describing.describe(factory)["component"].split(".")[1], factory()) for factory in experiment.stages
    ]
    try:
        model, requested = audit.skeleton(
            {slot: getattr(experiment, slot) for slot in BLOCKS}, duration_s=experiment.duration_s
        )
        trained = [(name, stage) for name, stage in stages if stage.steps]
        sampler = experiment.described("sampler")["parameters"]
        found = audit.audit(model, trained, precision=sampler.get("precision", "float32"))
    except (CheckpointError, OSError, RuntimeError) as error:  # of a component that needs its numbers
        reason = error.message if isinstance(error, CheckpointError) else str(error).splitlines()[0]
        return [f"what the model costs can't be told without its weights: {reason}"]
    missing = audit.missing_weights(requested) + audit.missing_data(experiment.described("dataset"))
    return [*model_cost.audit_lines(found), "", *model_cost.missing_lines(missing)]


@dataclass(frozen=True)
class TrackingOptions:
    """Where, and as what, a run is tracked.

    Args:
        uri: See `tracking.connect`.
        experiment: MLflow experiment.
        run_name: Name of the run there; the recipe's without one.
        tags: Further tags; `mlflow.parentRunId` makes it the child of another run.
        attached: Files to keep with it.

    Raises:
        UsageError: A file that is not there.
    """

    uri: str | None = None
    experiment: str = "stav2a"
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    attached: Sequence[Path] = ()

    def __post_init__(self) -> None:
        for path in self.attached:
            if not path.is_file():
                raise UsageError(f"--attach {path}: there is no such file.")

    def place(self, output: Path) -> str:
        """A name for the store, and the parent in it: one run folder can be tracked in several."""
        store = resolve(self.uri, output)
        return " ".join([str(store or "none"), self.tags.get(PARENT, "")]).strip()


def execute(loaded: recipe.Recipe[Experiment], output: Path, tracked: TrackingOptions) -> str:
    """Run a recipe, or take the answer of an earlier run of the same; track it where it is not yet.

    Args:
        loaded: The recipe.
        output: Holds the run folders, the store and, by default, the tracking database.
        tracked: Where, and as what.

    Returns:
        The table of scores, and where everything is; "" in a process that is not the main one.
    """
    folder = RunFolder(output / f"{loaded.named[0].stem}-{loaded.signature()[:8]}")
    if not distributed.is_main():
        _take_part(loaded, output)
        return ""
    check_writable(output)
    place = tracked.place(output)
    with exclusive(output / "store" / "locks" / folder.path.name, f"run {folder.path}"):
        distributed.broadcast_from_main(folder.finished)
        if not (folder.finished and folder.tracked(place).get("whole")):
            _make(loaded, folder, output, tracked, place)
    return _answer(folder, place)


def _take_part(loaded: recipe.Recipe[Experiment], output: Path) -> None:
    """All that a process does which is not the main one: it trains with the others and writes nothing."""
    if not distributed.broadcast_from_main():
        RunSteps(loaded.build(), Store(output / "store"), lambda *loss: None, lambda line: None).train()


def _make(
    loaded: recipe.Recipe[Experiment], folder: RunFolder, output: Path, tracked: TrackingOptions, place: str
) -> None:
    name = loaded.named[0].stem
    tracker = connect(
        tracked.uri,
        output,
        experiment=tracked.experiment,
        run_name=tracked.run_name or name,
        tags=tracked.tags,
        run_id=folder.tracked(place).get("run"),
    )
    with tracker:
        if not folder.finished:
            facts = {"recipe": name, "environment": environment(), "git": git_state(Path.cwd())}
            folder.begin(signature=loaded.signature(), snapshot=loaded.snapshot(), facts=facts)
            _begin(loaded, folder, tracker, place)
            _run(loaded, folder, tracker, output)
        else:
            _begin(loaded, folder, tracker, place)
            _log_losses(folder, tracker)
        _track(tracker, folder, tracked)
        where = tracker.where()
    folder.add_tracked(place, where=where, whole=True)


def _begin(loaded: recipe.Recipe[Experiment], folder: RunFolder, tracker: Tracker, place: str) -> None:
    facts = folder.facts()
    tags = {"recipe": facts["recipe"], "signature": facts["signature"], **_prefixed("git", facts["git"])}
    tracker.set_tags(tags)
    tracker.log_params(describing.flatten(loaded.described()))
    tracker.log_params(_prefixed("version", facts["environment"]))
    tracker.log_text(loaded.snapshot(), "snapshot.gin")
    tracker.wait()
    folder.add_tracked(place, run=tracker.run_id)


def _run(loaded: recipe.Recipe[Experiment], folder: RunFolder, tracker: Tracker, output: Path) -> None:
    began = time.monotonic()
    outcome = _pipeline(loaded, Store(output / "store"), tracker).run()
    folder.add(seconds=round(time.monotonic() - began, 1))
    _write(loaded, folder, outcome)
    folder.add(finished=True)


def _pipeline(loaded: recipe.Recipe[Experiment], store: Store, tracker: Tracker) -> RunSteps:
    def log(name: str, value: float, step: int) -> None:
        tracker.log_metrics({name: value}, step=step)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return RunSteps(loaded.build(), store, log, tell)


def _write(loaded: recipe.Recipe[Experiment], folder: RunFolder, outcome: RunOutcome) -> None:
    save_tensors(folder.weights, outcome.trained.model.state_dict())
    run_report.write_samples(outcome.made, folder.samples, count=SAMPLES)
    write_text(folder.scores, to_json(outcome.scores))
    write_json(folder.losses, outcome.trained.histories)
    facts = folder.facts()
    losses = {
        f"{stage}/{name}": points
        for stage, history in outcome.trained.histories.items()
        for name, points in history.items()
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
        clips=run_report.report_clips(outcome.made, folder.samples, outcome.scores, count=SAMPLES),
        curves=curves_png(losses) if losses else None,
        details={
            "Recipe, whole": loaded.snapshot(),
            "Lineage": "\n".join(parsing.shown(path) for path in loaded.files),
            "Environment": {**facts["environment"], **_prefixed("git", facts["git"])},
        },
    )


def _log_losses(folder: RunFolder, tracker: Tracker) -> None:
    """The losses of a run that was not tracked here while it trained."""
    log_losses(
        json.loads(folder.losses.read_text()),
        lambda name, value, step: tracker.log_metrics({name: value}, step=step),
    )


def _track(tracker: Tracker, folder: RunFolder, tracked: TrackingOptions) -> None:
    scores = from_json(folder.scores.read_text())
    tracker.log_metrics(figures(scores))
    tracker.log_table(per_clip(scores), "per_clip.json")
    for path in (folder.scores, folder.report, *tracked.attached):
        tracker.log_artifact(path)
    for path in sorted(folder.samples.iterdir()):
        tracker.log_artifact(path, "samples")


def _answer(folder: RunFolder, place: str) -> str:
    table = tables.table(from_json(folder.scores.read_text()))
    places = {
        "report": folder.report,
        "samples": folder.samples,
        "model": folder.weights,
        "tracking": folder.tracked(place)["where"],
    }
    return table + "\n" + "\n".join(f"{name:9}{place}" for name, place in places.items())


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}.{name}": str(value) for name, value in values.items()}
