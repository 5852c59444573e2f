"""A whole study, from its file to its table, with real child processes at a size of seconds."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stav2a.cli.main import main
from stav2a.experiments.tracking import NOTE, open_store

ROOT = Path(__file__).parents[3]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
# One factor: its levels are the rows.
DIVERGING = "'diverging': ('recipes/pretrained_t2a.gin', 'stage.autoencoder.learning_rate = 1e30'),"
STUDY = f"""include 'ablations/base.gin'
study.factors = {{
    'model': {{
        'Pretrained-T2A': 'recipes/pretrained_t2a.gin',
        {DIVERGING}
        'FineTuned-T2A': 'recipes/finetuned_t2a.gin',
    }},
}}
study.baseline = 'Pretrained-T2A'
study.seeds = (0,)
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str
    folder: Path

    def titles(self, word: str) -> list[str]:
        """Titles of the runs that were started, finished or failed."""
        lines = [line for line in self.stderr.splitlines() if line.startswith(f"{word} ")]
        return [line.removeprefix(word).split("  (")[0].strip() for line in lines]

    @property
    def figures(self) -> list[dict[str, str]]:
        """The comparison, but for the row that fails."""
        with (self.folder / "table.csv").open(newline="") as file:
            return [line for line in csv.DictReader(file) if line["row"] != "diverging"]


def command(output: Path, *more: str) -> list[str]:
    shared = ["--output", str(output), "--tracking-uri", f"sqlite:///{output}/mlflow.db"]
    return [sys.executable, "-m", "stav2a", "ablation", *more, *shared]


def run(output: Path, *more: str) -> Done:
    ended = subprocess.run(
        command(output, *more), cwd=ROOT, env=ALONE, capture_output=True, text=True, timeout=800
    )
    return Done(ended.returncode, ended.stdout, ended.stderr, output / "ablations" / "mine")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> list[str]:
    path = tmp_path_factory.mktemp("study") / "mine.gin"
    path.write_text(STUDY)
    return ["--gin", str(path), "--gin", "recipes/scale/smoke.gin", "--jobs", "1"]


@pytest.fixture(scope="module")
def first(study, tmp_path_factory) -> Done:
    """The study, run from nothing."""
    return run(tmp_path_factory.mktemp("runs"), *study)


def test_a_failing_row_is_printed_with_its_log_and_the_others_continue(first):
    assert first.code == 1, first.stderr
    assert first.titles("finished") == ["FineTuned-T2A, seed 0", "Pretrained-T2A, seed 0"]  # most to make
    assert first.titles("failed") == ["diverging, seed 0"]
    log = first.folder / "logs" / "diverging-seed0.log"
    assert f"its log is {log} and ends with\n" in first.stderr
    assert "Lower its learning rate" in first.stderr and "Lower its learning rate" in log.read_text()
    assert first.stderr.endswith("1 of 3 runs failed; the same command tries them again\n")
    assert "diverging, seed 0: it failed." in first.stdout


def test_a_study_ends_with_tables_a_page_and_where_to_look(first):
    assert "Differences to Pretrained-T2A" in first.stdout
    assert "/#/compare-runs?runs=" in first.stdout and "dashboard mine --tracking-uri sqlite:" in first.stdout
    assert str(first.folder / "report.html") in first.stdout
    markdown = (first.folder / "table.md").read_text()
    cost = markdown[markdown.index("## Cost") :]
    for title in ("parameters, M", "trained last, M", "training, s", "GFLOP a step", "s a sound"):
        assert title in cost
    assert markdown.startswith("# mine\n") and "| command | `stav2a ablation --gin " in markdown
    assert "\\begin{tabular}" in (first.folder / "table.tex").read_text()
    assert (first.folder / "report.html").read_text().count("<video") == 8 * 2
    diff = (first.folder / "diffs" / "FineTuned-T2A-seed0" / "diff.txt").read_text()
    assert diff.startswith("# FineTuned-T2A, against Pretrained-T2A\n") and "stage.t2a_finetune" in diff


def test_a_study_of_factors_has_their_effects_in_its_tables_its_page_and_the_tracking_store(first):
    with (first.folder / "effects.csv").open(newline="") as file:
        effects = [line for line in csv.DictReader(file) if line["level"] == "FineTuned-T2A"]
    figures = [line for line in first.figures if line["row"] == "FineTuned-T2A"]
    assert [line["factor"] for line in effects] == ["model"] * len(figures)
    for ours, row in zip(effects, figures, strict=True):
        for name in ("difference", "difference_low", "difference_high"):
            assert float(ours[name]) == pytest.approx(float(row[name]), abs=1e-8), row["metric"]
    assert "model: FineTuned-T2A − Pretrained-T2A" in first.stdout
    assert "can't be estimated, because there is one seed." in " ".join(first.stdout.split())
    assert "model: no row with scores has diverging." in first.stdout
    assert "Main effects on AA-Align: model: FineTuned-T2A − " in (first.folder / "report.html").read_text()
    store = open_store(f"sqlite:///{first.folder.parents[1]}/mlflow.db", first.folder)
    assert store.text(store.study("mine"), "effects.csv") == (first.folder / "effects.csv").read_text()


def test_the_table_is_recomputed_from_the_values_of_single_clips(first):
    with (first.folder / "clips.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len({line["clip"] for line in lines if line["clip"]}) == 20
    for figure in first.figures:
        values = [
            float(x[figure["metric"]]) for x in lines if x["row"] == figure["row"] and x[figure["metric"]]
        ]
        assert float(figure["value"]) == pytest.approx(np.mean(values), abs=1e-12), figure
        assert len(values) == (1 if figure["metric"] in ("fd", "is") else int(figure["clips"]))


def test_a_second_attempt_runs_only_what_failed_or_lost_its_files_and_says_the_same(first, study):
    lost = next(first.folder.parents[1].glob("pretrained_t2a-*/scores.json"))
    scores = lost.read_bytes()
    lost.unlink()
    again = run(first.folder.parents[1], *study)
    assert again.code == 1
    assert "1 of 3 runs are finished and tracked already" in again.stderr
    assert again.titles("started") == ["diverging, seed 0", "Pretrained-T2A, seed 0"]
    assert again.titles("finished") == ["Pretrained-T2A, seed 0"] and lost.read_bytes() == scores
    assert again.titles("failed") == ["diverging, seed 0"]
    assert again.figures == first.figures
    attempts = json.loads((first.folder / "study.json").read_text())["attempts"]
    assert [attempt["runs"] for attempt in attempts] == [3, 2]


def test_the_study_s_own_run_has_the_rows_figures(first):
    store = open_store(f"sqlite:///{first.folder.parents[1]}/mlflow.db", first.folder)
    parent = store.study("mine")
    for figure in first.figures:
        name = f"{figure['metric']}/{figure['row']}"
        assert parent.metrics[name] == pytest.approx(float(figure["value"]))
        if figure["low"]:
            assert parent.metrics[f"{name}_low"] == pytest.approx(float(figure["low"]))
    rows = [run for run in store.children(parent.run_id) if run.status == "FINISHED"]
    note = store.client.get_run(parent.run_id).data.tags[NOTE]
    assert "| **FineTuned-T2A** |" in note and "[Compare all runs](#/compare-runs?runs=" in note
    experiment = store.client.get_experiment(parent.experiment_id)
    assert experiment.tags[NOTE] == note and "viewStateShareKey=" in store.children_url(parent)
    (tuned,) = (run.run_id for run in rows if run.tags["row"] == "FineTuned-T2A")
    assert "Run of the recipe `finetuned_t2a`" in store.client.get_run(tuned).data.tags[NOTE]
    names = {name for run in rows for name in run.params}
    assert {name for name in names if any(name not in run.params for run in rows)} == set()
    assert {name for name in names if len({run.params[name] for run in rows}) > 1} == {"run.stages"}


def test_the_report_comes_from_the_tracking_store_alone(first, tmp_path):
    uri = f"sqlite:///{first.folder.parents[1]}/mlflow.db"
    assert main(["ablation", "--report", "mine", "--output", str(tmp_path), "--tracking-uri", uri]) == 0
    written = tmp_path / "ablations" / "mine"
    assert (written / "table.csv").read_text() == (first.folder / "table.csv").read_text()
    assert (written / "report.html").stat().st_size > 100_000


def test_killed_half_way_and_started_again_it_comes_to_the_same(first, study, tmp_path):
    """With the first row's run finished, so that the second one is killed; without the row that fails."""
    (tmp_path / "mine.gin").write_text(STUDY.replace(DIVERGING, ""))
    study = [study[0], str(tmp_path / "mine.gin"), *study[2:]]
    (pretrained,) = first.folder.parents[1].glob("pretrained_t2a-*/model.safetensors")
    for folder in (first.folder.parents[1] / "store", pretrained.parent):
        shutil.copytree(folder, tmp_path / folder.name)
    with subprocess.Popen(
        command(tmp_path, *study), cwd=ROOT, env=ALONE, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    ) as runner:  # fmt: skip
        for line in runner.stderr:
            if line.startswith("started   FineTuned-T2A"):
                break
        children = children_of(runner.pid)
        assert len(children) == 1
        runner.kill()
        for child in children:
            os.killpg(child, signal.SIGKILL)
    again = run(tmp_path, *study)
    assert "Pretrained-T2A, seed 0" not in again.titles("started")
    assert again.titles("finished") == ["FineTuned-T2A, seed 0"]
    assert again.figures == first.figures


def test_again_makes_everything_anew_and_throws_nothing_away(first, study, tmp_path):
    for name in ("store", "mlflow.db", "mlartifacts", "ablations"):
        source = first.folder.parents[1] / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    with subprocess.Popen(
        command(tmp_path, *study, "--again"), cwd=ROOT, env=ALONE, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    ) as runner:  # fmt: skip
        for line in runner.stderr:
            if line.startswith("started "):
                break
        runner.send_signal(signal.SIGINT)
        rest = runner.stderr.read()
        assert runner.wait(timeout=120) == 130
    assert "stopped; what is finished is kept, and the same command continues from there" in rest
    (aside,) = (tmp_path / "set-aside").iterdir()
    names = {path.name[4:].rpartition("-")[0] for path in aside.iterdir()}
    assert {"clips", "stage-autoencoder", "classifier", "flows", "latents", "features"} <= names
    assert not list((tmp_path / "store").glob("stage-*"))


def children_of(pid: int, wait_s: float = 10.0) -> list[int]:
    """The processes that a process has started."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
        if found:
            return found
        time.sleep(0.05)
    return []
