"""Execution of one recipe in its run folder: train, evaluate, write and track; or answer from the folder."""

import json
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from stav2a import recipe
from stav2a.data.onsets import SuperFlux
from stav2a.evaluation.scores import figures, from_json, per_clip, to_json
from stav2a.experiments.dry_run import DryRun, dry_run
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.run_folder import RunFolder
from stav2a.experiments.steps import SOUND_FACTS, RunOutcome, RunSteps
from stav2a.experiments.tracking import PARENT, TrackingStore, connect, environment, git_state, resolve
from stav2a.metrics.registered.judged import missing_judges
from stav2a.metrics.score import Score
from stav2a.models import audit
from stav2a.recipe import describing
from stav2a.registry import name_of
from stav2a.reports import model_cost
from stav2a.reports.comparison_tables import scores_document
from stav2a.reports.pages import sample_clips, write_page, write_samples
from stav2a.training.train import log_losses
from stav2a.utils import distributed
from stav2a.utils.errors import UsageError, printable
from stav2a.utils.files import check_writable, sweep, write_json, write_text
from stav2a.utils.parallel import prepare_processes
from stav2a.utils.program import command
from stav2a.utils.store import CONTENT, Store, save_tensors

SAMPLES = 8  # clips in the report
LOSSES = "training/"  # before the losses' names in tracking: MLflow sorts by name, and scores come first
SHOWN = ("aa_align", "av_align", "onset_f1")  # scores of each of them


def explain(loaded: recipe.Recipe[Experiment]) -> str:
    """Recipe in full: its lineage, its signature and every parameter, then as comments the model's cost.

    Raises:
        ValueError: A value of the recipe is wrong, or its parts don't fit together.
    """
    experiment = loaded.build()
    tried = dry_run(experiment)
    lineage = " -> ".join(recipe.shown(path) for path in loaded.files)
    audited = "\n".join(f"# {line}".rstrip() for line in _audited(experiment, tried))
    return f"# {lineage}\n# signature {loaded.signature()}\n\n{loaded.snapshot()}\n{audited}"


def _audited(experiment: Experiment, tried: DryRun) -> list[str]:
    """Cost of the model, the parts that could not be checked, and the files that are missing for it."""
    lines = list(tried.unchecked)
    if found := _audit(experiment, tried):
        lines = [*model_cost.audit_lines(found, _branches(experiment)), *lines]
    described = describing.describe_root(experiment)["parameters"]
    missing = audit.missing_weights(tried.requested, described)
    missing += audit.missing_data(experiment.described("dataset"))
    metrics = [metric() for metric in experiment.metrics]
    missing += missing_judges(metrics, has_classifier=experiment.classifier is not None)
    return [*lines, *tried.left_out, *tried.remarks, "", *model_cost.missing_lines(missing)]


def _audit(experiment: Experiment, tried: DryRun) -> audit.Audit | None:
    """Cost of the model, unless it can't be built without its weights."""
    if tried.model is None:
        return None
    stages = [(name_of(each), each()) for each in experiment.stages]
    trained = [(name, stage) for name, stage in stages if not stage.idle]
    sampler = experiment.described("sampler")["parameters"]
    return audit.audit(tried.model, trained, precision=sampler.get("precision", "float32"))


def _branches(experiment: Experiment) -> int:
    return len(experiment.guider().branches(experiment.guidance_scale))


@dataclass(frozen=True)
class TrackingOptions:
    """Options of a run's tracking, as `tracking.connect` has them.

    Args:
        attached: Files to log with it.
        untracked: Names of parameters that are not logged.

    Raises:
        UsageError: A file is missing.
    """

    uri: str | None = None
    experiment: str = "stav2a"
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    attached: Sequence[Path] = ()
    untracked: Collection[str] = ()

    def __post_init__(self) -> None:
        for path in self.attached:
            if not path.is_file():
                raise UsageError(f"--attach {path}: there is no such file.")

    def place(self, output: Path) -> str:
        """Key of the store and of the parent in it: one run folder can be tracked in several."""
        store = resolve(self.uri, output)
        return f"{store.key if store else 'none'} {self.tags.get(PARENT, '')}".strip()


def execute(loaded: recipe.Recipe[Experiment], output: Path, options: TrackingOptions, jobs: int = 1) -> str:
    """Run a recipe, or take the answer of an earlier run of the same; track it where it is not yet.

    Args:
        loaded: The recipe.
        output: Folder of the run folders, the store and, by default, the tracking database.
        options: Options of its tracking.
        jobs: Processes of this machine that train and sample side by side.

    Returns:
        The table of scores, and the places of all results; "" in a process that is not the main one.

    Raises:
        StaV2AError: A part of the recipe can't work: nothing is trained, and nothing is left behind.
    """
    store = Store.of(output)
    if not distributed.is_main():  # it trains with the others and writes nothing
        if not distributed.broadcast_from_main():
            dry_run(experiment := loaded.build())
            steps = RunSteps(experiment, store, lambda *loss: None, lambda line: None)
            steps.sample(steps.train())
        return ""
    check_writable(output)
    sweep(output.rglob(".tmp-*"))
    print_line = partial(print, file=sys.stderr, flush=True)
    steps = RunSteps(loaded.build(), store, lambda *loss: None, print_line, jobs)
    folder = RunFolder.of(output, loaded.named[0].stem, steps.keys.run)
    place = options.place(output)
    with store.lock(folder.path.name, f"run {folder.path}"):
        finished = distributed.broadcast_from_main(folder.whole())
        if finished and _tracked(folder.tracked(place), resolve(options.uri, output)):
            scores: Sequence[Score] = from_json(folder.scores.read_text(encoding="utf-8"))
        else:
            if not finished and (jobs > 1 or not store.has("clips", steps.keys.by_kind["clips"])):
                prepare_processes()
            tried = None if finished else dry_run(steps.experiment)
            for line in tried.remarks if tried else ():
                print_line(line)
            scores = _run_and_track(loaded, folder, steps, options, place, tried)
    tracked = resolve(options.uri, output)
    places: dict[str, Any] = {"report": folder.report, "samples": folder.samples, "sounds": folder.sounds}
    places["model"] = folder.weights
    places["tracking"] = folder.tracked(place)["where"]
    if tracked is not None and not tracked.is_server:  # relative to the current folder
        places["tracking"] = tracked.opened_by()
    where = ("--run", folder.path, "--output", "sounds")
    places["generate"] = command("generate", "VIDEO.mp4", *where, *folder.trust)
    return "\n".join(
        [scores_document(scores).text(), *(printable(f"{name:9}{at}") for name, at in places.items())]
    )


def _tracked(facts: Mapping[str, Any], store: TrackingStore | None) -> bool:
    """True where the store has all of a run, as far as that can be seen without waiting for a server."""
    return bool(facts.get("whole")) and (store is None or store.may_hold(facts["run"]))


def _run_and_track(
    loaded: recipe.Recipe[Experiment],
    folder: RunFolder,
    steps: RunSteps,
    options: TrackingOptions,
    place: str,
    tried: DryRun | None,
) -> Sequence[Score]:
    """Run the recipe, with its dry run, or none where it is finished; and track the run."""
    name, finished = loaded.named[0].stem, tried is None

    def log(metric: str, value: float, step: int) -> None:
        tracker.log_metrics({f"{LOSSES}{metric}": value}, step=step)

    with connect(
        options.uri,
        folder.path.parent,
        experiment=options.experiment,
        run_name=options.run_name or name,
        tags=options.tags,
        run_id=folder.tracked(place).get("run"),
        span=folder.span() if finished else None,
    ) as tracker:
        if not finished:
            known = {
                "recipe": name,
                "configuration": loaded.signature(),
                "environment": environment(),
                "git": git_state(Path.cwd()),
                "modules": loaded.own_modules(),
            }
            folder.begin(signature=steps.keys.run, snapshot=loaded.snapshot(), facts=known)
        facts = folder.facts()
        tracker.set_tags(
            {"recipe": facts["recipe"], "signature": facts["signature"], **_prefixed("git", facts["git"])}
        )
        parameters = describing.flatten(loaded.described(complete=True))
        # MLflow shows them as they come: the recipe's choices first, then the settings of each component.
        in_groups = sorted(parameters, key=lambda key: not key.startswith("run."))
        tracker.log_params({key: parameters[key] for key in in_groups if key not in options.untracked})
        tracker.log_params(_prefixed("version", facts["environment"]))
        tracker.log_text(loaded.snapshot(), "snapshot.gin")
        tracker.wait()
        folder.add_tracked(place, run=tracker.run_id)
        if tried is None:  # by an earlier process, which did not track it here
            scores: Sequence[Score] = from_json(folder.scores.read_text(encoding="utf-8"))
            log_losses(json.loads(folder.losses.read_text(encoding="utf-8")), log)
        else:
            folder.add(began_s=round(time.time(), 1))
            began = time.monotonic()
            outcome = replace(steps, log=log).run()
            folder.add(
                seconds=round(time.monotonic() - began, 1),
                stage_seconds=steps.stage_seconds(),
                parameters=audit.parameter_counts(outcome.trained.model),
                costs=_costs(steps, tried),
            )
            _write(loaded, folder, outcome)
            folder.finish()
            scores = outcome.scores
        tracker.set_tags({f"judge.{score.name}": score.judge for score in scores if score.judge})
        tracker.log_metrics({**figures(scores), **folder.costs()})
        tracker.describe(_description(facts["recipe"], scores))
        tracker.log_table(per_clip(scores), "per_clip.json")
        for path in (folder.scores, folder.report, *options.attached):
            tracker.log_artifact(path)
        for path in sorted(folder.samples.iterdir()):
            tracker.log_artifact(path, "samples")
        where = tracker.where()
    folder.add_tracked(place, where=where, whole=tracker.complete)
    return scores


def _costs(steps: RunSteps, tried: DryRun) -> dict[str, float]:
    """Costs beside the seconds of stages and the parameters of blocks, as far as they are known."""
    found, seconds = _audit(steps.experiment, tried), steps.seconds_per_sound()
    costs: dict[str, float] = {}
    if found:
        costs["parameters.trained"] = found.parameters_trained
    if found and found.flops is not None:
        costs["flops_per_step"] = _branches(steps.experiment) * found.flops
    if seconds is not None:
        costs["seconds_per_sound"] = round(seconds, 4)
    return costs


def _description(name: str, scores: Sequence[Score]) -> str:
    """Description of a run in Markdown for MLflow's pages: its scores, and where the rest is."""
    table = "\n\n".join(table.markdown() for table in scores_document(scores).tables)
    return "\n".join(
        [
            f"Run of the recipe `{name}`; in brackets 95 % intervals over clips.",
            "",
            table,
            "",
            "Among the artifacts are `report.html` (videos, sounds, curves, the recipe), `snapshot.gin`, "
            "`per_clip.json` and the samples. The tag `judge.NAME` says what measured the score `NAME`.",
            "",
        ]
    )


def _write(loaded: recipe.Recipe[Experiment], folder: RunFolder, outcome: RunOutcome) -> None:
    folder.make_room()
    save_tensors(folder.weights, outcome.trained.model.state_dict())
    shutil.copytree(
        outcome.sounds, folder.sounds, ignore=lambda *_: [CONTENT, SOUND_FACTS], dirs_exist_ok=True
    )
    write_samples(outcome.made, folder.samples, count=SAMPLES)
    write_text(folder.scores, to_json(outcome.scores))
    write_json(folder.losses, outcome.trained.histories)
    facts = folder.facts()
    machine = facts["environment"]
    write_page(
        folder.report,
        scores_document(outcome.scores),
        title=f"STA-V2A: {facts['recipe']}",
        facts={
            "recipe": facts["recipe"],
            "signature": facts["signature"][:16],
            "scale": next(
                (path.stem for path in reversed(loaded.files) if path.parent.name == "scale"), "own"
            ),
            "seed": str(loaded.build().seed),
            "date": f"{datetime.fromtimestamp(facts['began_s']):%Y-%m-%d %H:%M}",
            "took": f"{facts['seconds']} s, without what was in the store",
            "device": machine.get("gpu", f"{machine['cpu_count']} CPU cores, {machine['threads']} used"),
        },
        scores=outcome.scores,
        clips=sample_clips({"generated": folder.samples}, {"generated": outcome.scores}, SHOWN),
        detector=SuperFlux(),
        curves={stage: history for stage, history in outcome.trained.histories.items() if history},
        details={
            "Recipe, whole": loaded.snapshot(),
            "Lineage": "\n".join(recipe.shown(path) for path in loaded.files),
            "Environment": {**facts["environment"], **_prefixed("git", facts["git"])},
        },
    )


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}.{name}": str(value) for name, value in values.items()}
