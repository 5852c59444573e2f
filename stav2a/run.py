"""`python -m stav2a.run`: train, sample, evaluate and track one recipe."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stav2a import recipe
from stav2a.errors import guarded

SAMPLES = 8
EXAMPLES = """examples:
  python -m stav2a.run --gin recipes/cn_onset_gvf.gin
  python -m stav2a.run --gin recipes/cn.gin --bind 'stage.joint.steps = 800' --bind 'run.seed = 1'
  python -m stav2a.run --gin recipes/cn.gin --gin recipes/scale/smoke.gin      one over the other: seconds
  python -m stav2a.run --gin recipes/cn.gin --check                            say what it is, run nothing

The same command again goes on where it was stopped, or answers from the store when it was finished.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stav2a run",
        description="Train, sample, evaluate and track one variant of STA-V2A, as a recipe says.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--gin",
        action="append",
        required=True,
        metavar="RECIPE",
        help="a recipe; several are laid over one another",
    )
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="'X.Y = 1'",
        help="override one parameter; may be repeated",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="run folders, store and tracking (default: runs)",
    )
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: $MLFLOW_TRACKING_URI, else OUTPUT/mlflow.db); none tracks nothing",
    )
    parser.add_argument(
        "--check", action="store_true", help="validate the recipe and print it whole; run nothing"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse settings that have no effect, instead of warning"
    )
    parser.add_argument("--trust-recipe", action="store_true", help="let the recipe import any module")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    loaded = recipe.load(arguments.gin, arguments.bind, strict=arguments.strict, trust=arguments.trust_recipe)
    if arguments.check:
        print(_explain(loaded))
        return 0
    return _run(loaded, arguments.output, arguments.tracking_uri)


def _explain(loaded: recipe.Recipe) -> str:
    from stav2a.experiment import Experiment

    Experiment()  # type: ignore[call-arg]  # gin supplies every argument
    lineage = " -> ".join(recipe.shown(path) for path in loaded.files)
    return f"# {lineage}\n# signature {loaded.signature()}\n\n{loaded.snapshot()}"


def _run(loaded: recipe.Recipe, output: Path, uri: str | None) -> int:
    from stav2a.run_folder import RunFolder, check_writable
    from stav2a.tracking import connect, environment, git_state

    name = _name(loaded)
    folder = RunFolder(output / f"{name}-{loaded.signature()[:8]}")
    check_writable(output)
    if folder.finished:
        return _answer(folder)
    known = folder.facts() if (folder.path / "run.json").exists() else {}
    tracker = connect(uri, output, experiment="stav2a", run_name=name, run_id=known.get("mlflow_run"))
    facts: dict[str, Any] = {"recipe": name, "environment": environment(), "git": git_state(Path.cwd())}
    with tracker:
        folder.begin(signature=loaded.signature(), snapshot=loaded.snapshot(), facts=facts)
        tracker.set_tags({"recipe": name, "signature": loaded.signature(), **_prefixed("git", facts["git"])})
        tracker.log_params(recipe.flatten(loaded.described()))
        tracker.log_params(_prefixed("version", facts["environment"]))
        tracker.log_text(loaded.snapshot(), "snapshot.gin")
        _carry_out(loaded, folder, output, tracker)
        where = tracker.where()
    print(where)
    return 0


def _carry_out(loaded: recipe.Recipe, folder: Any, output: Path, tracker: Any) -> None:
    from stav2a import evaluation, gallery
    from stav2a.experiment import Experiment
    from stav2a.pipeline import Pipeline, store_of
    from stav2a.store import save_tensors, write_text

    began = time.monotonic()
    experiment = Experiment()  # type: ignore[call-arg]  # gin supplies every argument
    log = lambda name, value, step: tracker.log_metrics({name: value}, step=step)  # noqa: E731
    pipeline = Pipeline(experiment, store_of(output), log, _tell)
    tracker.wait()
    if tracker.run_id:
        folder.add(mlflow_run=tracker.run_id)
    outcome = pipeline.run()
    save_tensors(folder.weights, outcome.model.state_dict())
    gallery.write_samples(outcome.made, folder.samples, count=SAMPLES)
    folder.add(seconds=round(time.monotonic() - began, 1))
    write_text(folder.scores, evaluation.to_json(outcome.scores))
    _report(loaded, folder, outcome)
    _track(tracker, folder, outcome)
    _answer(folder)


def _report(loaded: recipe.Recipe, folder: Any, outcome: Any) -> None:
    from stav2a import gallery
    from stav2a.plots import curves_png
    from stav2a.report import write_report

    facts = folder.facts()
    losses = {
        f"{stage}/{name}": points
        for stage, history in outcome.histories.items()
        for name, points in history.items()
    }
    write_report(
        folder.report,
        title=f"STA-V2A: {facts['recipe']}",
        facts={
            "recipe": facts["recipe"],
            "signature": facts["signature"][:16],
            "seconds": str(facts["seconds"]),
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


def _track(tracker: Any, folder: Any, outcome: Any) -> None:
    figures = {}
    for score in outcome.scores:
        parts = {"": score.value, "_low": score.low, "_high": score.high, "_chance": score.chance}
        parts["_corrected"] = score.corrected
        figures.update(
            {
                f"{score.name}{part}": v
                for part, v in parts.items()
                if v is not None and score.unavailable is None
            }
        )
    tracker.log_metrics(figures)
    tracker.log_artifact(folder.scores)
    tracker.log_artifact(folder.report)
    for path in sorted(folder.samples.iterdir()):
        tracker.log_artifact(path, "samples")


def _answer(folder: Any) -> int:
    from stav2a import evaluation

    scores = evaluation.from_json(folder.scores.read_text())
    print(evaluation.table(scores))
    print(f"report   {folder.report}\nsamples  {folder.samples}")
    return 0


def _name(loaded: recipe.Recipe) -> str:
    """The variant's name: the first recipe asked for."""
    return loaded.named[0].stem


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}.{name}": str(value) for name, value in values.items()}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
