"""The whole command, from the recipe to the report, at a size of seconds."""

import contextlib
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from safetensors import safe_open

from stav2a.cli.main import main
from stav2a.data.media import read_audio
from stav2a.evaluation.scores import from_json
from stav2a.experiments.run_folder import RunFolder, RunFolderError, load
from stav2a.experiments.tracking import PARENT, open_store
from stav2a.reports.comparison_tables import scores_document
from stav2a.utils.files import is_locked

ROOT = Path(__file__).parents[2]
STEPS = 60
LONGER = ("--bind", f"stage.joint.steps = {STEPS}")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
# The same command with a checkpoint after every step, so that there is one to be stopped after.
CAREFUL = (
    "import sys; from stav2a.training import loop; loop.CHECKPOINT_S = 0.0; loop.SAVING = 1e9; "
    "import sys; from stav2a.cli.main import main; sys.exit(main(['run', *sys.argv[1:]]))"
)


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str
    output: Path

    @property
    def stages(self) -> dict[str, str]:
        """What was said of every stage: "training", or "from the store"."""
        lines = [
            line.split("  ")[1].split(": ") for line in self.stderr.splitlines() if line.startswith("stage ")
        ]
        return {name: said for name, said in lines}

    def folder(self, name: str) -> Path:
        (found,) = [path for path in self.output.glob(f"{name}-*") if str(path) in self.stdout]
        return found


def arguments(variant: str, output: Path, *more: str) -> list[str]:
    recipes = ["--gin", f"recipes/{variant}.gin", "--gin", "recipes/scale/smoke.gin"]
    return [*recipes, "--tracking-uri", "none", "--output", str(output), "--jobs", "1", *more]


def command(variant: str, output: Path, *more: str) -> Ended:
    line = [sys.executable, "-m", "stav2a.run", *arguments(variant, output, *more)]
    ended = subprocess.run(line, cwd=ROOT, env=ALONE, capture_output=True, text=True, timeout=280)
    return Ended(ended.returncode, ended.stdout, ended.stderr, output)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Ended:
    """One finished run of all stages, whose folder and store the tests share."""
    ended = command("cn_onset_gvf", tmp_path_factory.mktemp("runs"))
    assert ended.code == 0, ended.stderr
    return ended


@pytest.mark.slow
def test_a_run_ends_with_a_table_a_report_samples_and_weights(first):
    folder = first.folder("cn_onset_gvf")
    scores = from_json((folder / "scores.json").read_text())
    assert {"aa_align", "av_align", "onset_f1", "class_accuracy_vague"} <= {score.name for score in scores}
    table = scores_document(scores).text()
    assert table in first.stdout
    assert len(first.stdout.splitlines()) <= 55 and max(map(len, table.splitlines())) <= 110  # one screen
    assert str(folder / "report.html") in first.stdout
    assert "<html" in (folder / "report.html").read_text().lower()
    endings = sorted(path.name.split(".", 1)[1] for path in (folder / "samples").iterdir())
    assert endings == sorted(["mp4", "png", "reference.wav", "wav"] * 8 + ["json"])
    told = json.loads((folder / "samples" / "clips.json").read_text())
    assert len(told) == 8 and told[0]["duration_s"] == 2.56 and told[0]["onsets_s"]
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        prefixes = {name.split(".")[0] for name in weights.keys()}
    assert prefixes == {
        "feature_encoder", "text_encoder", "local_head", "global_pooler", "backbone", "autoencoder"
    }  # fmt: skip
    assert set(first.stages.values()) == {"training"} and len(first.stages) == 7
    leftovers = [path.name for path in first.output.rglob("*") if path.name.startswith(".")]
    assert leftovers == []


@pytest.mark.slow
def test_every_sound_is_kept_and_other_metrics_measure_it_without_sampling(first):
    folder = first.folder("cn_onset_gvf")
    clips = json.loads((folder / "samples" / "clips.json").read_text())
    sounds = {path.stem: path for path in (folder / "sounds").iterdir()}
    assert {clip["id"] for clip in clips} <= set(sounds) and "sampling" in first.stderr
    for clip in clips:
        sample = read_audio(folder / "samples" / f"{clip['id']}.wav", 16_000)
        assert np.abs(read_audio(sounds[clip["id"]], 16_000) - sample).max() < 2**-14
    again = command("cn_onset_gvf", first.output, "--bind", "run.metrics = [@metric.aa_align]")
    assert again.code == 0 and "sampling" not in again.stderr and "training" not in again.stderr
    (aa_align,) = from_json((again.folder("cn_onset_gvf") / "scores.json").read_text())
    before = from_json((folder / "scores.json").read_text())
    assert aa_align == next(score for score in before if score.name == "aa_align")


@pytest.fixture(scope="module")
def variant(first) -> Ended:
    """Another variant in the same store, with a joint stage that is long enough to be killed in."""
    ended = command("cn_onset", first.output, *LONGER)
    assert ended.code == 0, ended.stderr
    return ended


@pytest.mark.slow
def test_the_same_command_answers_from_the_folder(first, capsys):
    report = first.folder("cn_onset_gvf") / "report.html"
    written = report.stat().st_mtime_ns
    assert main(["run", *arguments("cn_onset_gvf", first.output)]) == 0
    printed = capsys.readouterr()
    assert printed.out == first.stdout
    assert "stage " not in printed.err and report.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_finished_run_is_tracked_from_its_folder_where_it_is_not_yet(first, tmp_path, capsys):
    """As the child of another run, with tags, a file beside it, and the losses of all its stages."""
    (tmp_path / "diff.txt").write_text("what is new")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    how = ["--experiment", "table3", "--run-name", "CN, seed 0", "--tag", "row=CN=1"]
    more = [*how, "--tag", f"{PARENT}=abc", "--attach", str(tmp_path / "diff.txt"), "--tracking-uri", uri]
    more += ["--untracked", "local_head.onset.windows"]
    for _ in range(2):  # the second time it is there already
        assert main(["run", *arguments("cn_onset_gvf", first.output, *more)]) == 0
        assert "stage " not in capsys.readouterr().err
    kept = open_store(uri, tmp_path)
    (child,) = kept.children("abc")
    assert (child.name, child.status, child.tags["row"]) == ("CN, seed 0", "FINISHED", "CN=1")
    scores = from_json(kept.text(child, "scores.json"))
    aa = next(score for score in scores if score.name == "aa_align")
    assert child.metrics["aa_align"] == pytest.approx(aa.value)
    table = json.loads(kept.text(child, "per_clip.json"))
    assert table["columns"][:2] == ["clip", "aa_align"] and len(table["data"]) == 20
    assert kept.text(child, "diff.txt") == "what is new"
    assert "samples/clips.json" in kept.files(child, "samples")
    losses = json.loads((first.folder("cn_onset_gvf") / "losses.json").read_text())
    facts = json.loads((first.folder("cn_onset_gvf") / "run.json").read_text())
    assert child.seconds == pytest.approx(facts["seconds"], abs=0.01)  # not those of the tracking
    assert child.metrics["seconds"] == facts["seconds"]
    assert child.metrics["seconds.joint"] == facts["stage_seconds"]["joint"]
    with safe_open(first.folder("cn_onset_gvf") / "model.safetensors", framework="pt") as weights:
        unet = sum(
            math.prod(weights.get_slice(name).get_shape())
            for name in weights.keys()
            if name.startswith("backbone.unet.")
        )
    assert child.metrics["parameters.unet"] == unet < child.metrics["parameters"]
    assert child.params["version.threads"] == "1"
    assert (
        child.tags["judge.fd"] == "struck_objects classifier" and "SuperFlux" in child.tags["judge.aa_align"]
    )
    assert "run.seed" in child.params and "local_head.onset.windows" not in child.params
    logged = kept.history(child, "training/joint/validation_loss")
    assert logged == [(step, pytest.approx(value)) for step, value in losses["joint"]["validation_loss"]]


@pytest.mark.slow
def test_what_a_store_did_not_take_is_tracked_by_the_same_command(first, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    line = ["run", *arguments("cn_onset_gvf", first.output, "--tracking-uri", uri)]
    with monkeypatch.context() as patch:
        patch.setattr("stav2a.experiments.tracking.tracker.RETRY_AFTER_S", ())
        patch.setattr("mlflow.MlflowClient.log_artifact", fail)
        assert main(line) == 0
    assert main(line) == 0
    kept = open_store(uri, tmp_path)
    (run,) = kept.runs({"recipe": "cn_onset_gvf"})
    assert from_json(kept.text(run, "scores.json")) and "samples/clips.json" in kept.files(run, "samples")
    assert len(json.loads(kept.text(run, "per_clip.json"))["data"]) == 20
    losses = json.loads((first.folder("cn_onset_gvf") / "losses.json").read_text())
    points = kept.client.get_metric_history(run.run_id, "training/joint/validation_loss")
    assert len(points) == len(losses["joint"]["validation_loss"])


@pytest.mark.slow
def test_a_run_whose_database_is_gone_is_tracked_again(first, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    runs = []
    for _ in range(2):
        ended = command("cn_onset_gvf", first.output, "--tracking-uri", uri)  # MLflow keeps a file open
        assert ended.code == 0 and ended.stages == {}
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            runs += database.execute("SELECT run_uuid, status FROM runs").fetchall()
            logged = database.execute("SELECT COUNT(*) FROM latest_metrics WHERE key = 'aa_align'")
            assert logged.fetchone() == (1,)
        (tmp_path / "mlflow.db").write_bytes(b"scribbled over" * 1000)
        refused = command("cn_onset_gvf", first.output, "--tracking-uri", uri)
        assert refused.code == 1 and "the file is not an SQLite database." in refused.stderr
        assert "Move it away, and all is tracked anew" in refused.stderr
        (tmp_path / "mlflow.db").unlink()
    assert [status for _, status in runs] == ["FINISHED"] * 2 and len(set(runs)) == 2


@pytest.mark.slow
def test_another_variant_trains_only_what_it_does_not_share(first, variant):
    assert variant.stages == {name: "from the store" for name in first.stages} | {"joint": "training"}
    assert variant.folder("cn_onset") != first.folder("cn_onset_gvf")


RUN_DAMAGES = {
    "scores.json": lambda path: path.unlink(),
    "report.html": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "model.safetensors": lambda path: path.write_bytes(b""),
    "samples/clips.json": lambda path: path.write_text("[]"),
    "run.json": lambda path: path.write_text('{"half'),
}


@pytest.mark.slow
def test_what_is_damaged_in_a_finished_run_is_noticed(first, tmp_path, caplog):
    for name, damage in RUN_DAMAGES.items():
        folder = RunFolder(tmp_path / name.replace("/", "-"))
        shutil.copytree(first.folder("cn_onset_gvf"), folder.path)
        assert folder.whole()
        damage(folder.path / name)
        assert not folder.whole()
        told = caplog.records[-1].getMessage()
        assert str(folder.path) in told and name in told and "made again" in told


@pytest.mark.slow
def test_what_is_damaged_in_a_finished_run_is_made_again(first, capsys):
    folder = first.folder("cn_onset_gvf")
    kept = [folder / name for name in ("scores.json", "model.safetensors", "samples/clips.json")]
    written = [path.read_bytes() for path in kept]
    for name, damage in RUN_DAMAGES.items():
        damage(folder / name)
    assert main(["run", *arguments("cn_onset_gvf", first.output)]) == 0
    printed = capsys.readouterr()
    assert printed.out == first.stdout and "training" not in printed.err
    assert [path.read_bytes() for path in kept] == written


@pytest.mark.slow
def test_weights_that_are_not_what_was_written_make_no_sound(first, tmp_path):
    folder = shutil.copytree(first.folder("cn_onset_gvf"), tmp_path / "run")
    load(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(RunFolderError, match="it is damaged"):
        load(folder)


@pytest.mark.slow
def test_a_runs_snapshot_is_the_recipe_of_the_run(first, capsys):
    folder = first.folder("cn_onset_gvf")
    assert main(["run", "--gin", str(folder / "snapshot.gin"), "--check"]) == 0
    signature = json.loads((folder / "run.json").read_text())["signature"]
    assert f"# signature {signature}\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_in_the_joint_stage_ends_with_the_same_bits(variant, tmp_path):
    store = variant.output / "store"
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("stage-joint-*"))
    line = [sys.executable, "-c", CAREFUL, *arguments("cn_onset", tmp_path, *LONGER)]
    with subprocess.Popen(
        line, cwd=ROOT, env=ALONE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        checkpoint = first_checkpoint(tmp_path / "store", child)
        child.kill()
    with safe_open(checkpoint, framework="pt") as saved:
        reached = json.loads(saved.metadata()["facts"])["progress"]["step"]
    assert 0 < reached < STEPS

    again = command("cn_onset", tmp_path, *LONGER)
    assert again.code == 0, again.stderr
    assert again.stages == variant.stages
    weights = [ended.folder("cn_onset") / "model.safetensors" for ended in (again, variant)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_that_were_killed_and_started_again_end_with_the_bits_of_one(first, tmp_path):
    for name in ("dataset", "clips", "filter"):
        for folder in (first.output / "store").glob(f"{name}-*"):
            shutil.copytree(folder, tmp_path / "store" / folder.name)
    line = [sys.executable, "-c", CAREFUL, *arguments("cn_onset_gvf", tmp_path, "--jobs", "2")]
    with subprocess.Popen(
        line, cwd=ROOT, env=ALONE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        first_checkpoint(tmp_path / "store", child, "t2a_pretrain")
        child.kill()
    deadline = time.monotonic() + 30
    while any(map(is_locked, (tmp_path / "store" / "locks").iterdir())):  # by the other process
        assert time.monotonic() < deadline
        time.sleep(0.1)

    again = command("cn_onset_gvf", tmp_path, "--jobs", "2")
    assert again.code == 0 and "2 processes train and sample side by side" in again.stderr, again.stderr
    folders = [ended.folder("cn_onset_gvf") for ended in (first, again)]
    for name in ("model.safetensors", "scores.json", "losses.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def first_checkpoint(store: Path, child: subprocess.Popen, stage: str = "joint") -> Path:
    """Wait until a stage has written one."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and child.poll() is None:
        for found in store.glob(f"partial/stage-*/{stage}.safetensors"):
            return found
        time.sleep(0.02)
    child.kill()
    raise AssertionError(f"no checkpoint was written: {child.stderr.read().decode() if child.stderr else ''}")


def test_checking_prints_the_whole_recipe_and_runs_nothing(tmp_path, capsys):
    assert main(["run", *arguments("cn_onset_gvf", tmp_path / "runs"), "--check"]) == 0
    out = capsys.readouterr().out
    lineage, signature, _, snapshot = out.split("\n", 3)
    assert lineage.startswith("# ") and "cn_onset.gin" in lineage and "smoke.gin" in lineage
    assert signature.startswith("# signature ")
    assert "run.local_head = @local_head.onset" in snapshot
    assert "stage.joint.steps = 2" in snapshot
    assert not (tmp_path / "runs").exists()


def test_an_output_that_can_not_be_written_is_told_before_anything_runs(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert main(["run", *arguments("cn", tmp_path / "file")]) == 2
    ended = capsys.readouterr()
    assert ended.err == (
        f"error: --output {tmp_path / 'file'} can't be written (File exists). Choose a folder of your own.\n"
    )
    assert ended.out == "" and (tmp_path / "file").read_text() == "kept"


def test_a_folder_of_another_run_is_not_written_over(tmp_path, capsys):
    assert main(["run", *arguments("cn", tmp_path), "--check"]) == 0
    signature = capsys.readouterr().out.split("# signature ")[1].split()[0]
    folder = tmp_path / f"cn-{signature[:8]}"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"format": 1, "signature": "f" * 64}))
    assert main(["run", *arguments("cn", tmp_path)]) == 2
    assert "holds a run of another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("run.duration_s = 2.5", "Choose a multiple of"),
        ("run.duration_s = -1.0", "expected more than 0 seconds"),
        ("run.duration_s = 1e9", "run.duration_s = 1000000000.0: expected more than 0 seconds, and at most"),
        ("run.num_inference_steps = 0", "expected 1 to 999"),
        (
            "run.seed = 10000000000000000000000",
            "run.seed = 10000000000000000000000: expected 0 to 4294967295",
        ),
        ("run.guidance_scale = -1.0", "run.guidance_scale = -1.0: expected 0 to 1000.0"),
        ("stage.joint.steps = -1", "stage.joint.steps = -1: expected 0 or more"),
        ("stage.joint.batch_size = 0", "stage.joint.batch_size = 0: expected 1 or more"),
        ("classifier.mel_cnn.batch_size = 0", "classifier.mel_cnn.batch_size = 0: expected 1 or more"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_values_that_can_not_be_are_told_without_a_traceback(tmp_path, capsys, binding, told, check):
    code = main(["run", *arguments("cn", tmp_path, "--bind", binding, *(["--check"] if check else []))])
    assert code == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.glob("store/stage-*"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--tag", "row"), "expected NAME=VALUE, was given 'row'"),
        (("--attach", "nowhere.txt"), "error: --attach nowhere.txt: there is no such file."),
    ],
)
def test_options_of_tracking_are_checked_first(tmp_path, capsys, more, told):
    assert main(["run", *arguments("cn", tmp_path, *more)]) == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.fixture
def notebook(first, tmp_path, monkeypatch) -> Callable[[str], list[str]]:
    """Function that carries out a notebook in a clone's folders, and gives what each cell of code shows.

    There is one finished run, whose stages a study shares.
    """
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "smoke").symlink_to(first.output)
    (tmp_path / "runs" / "run").symlink_to(first.folder("cn_onset_gvf"))
    shutil.copytree(ROOT / "docs" / "notebooks", tmp_path / "docs" / "notebooks")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def carry_out(name: str) -> list[str]:
        path = tmp_path / "docs" / "notebooks" / f"{name}.ipynb"
        opened = nbformat.read(path, as_version=4)
        NotebookClient(opened, timeout=200, resources={"metadata": {"path": str(path.parent)}}).execute()
        return [str(cell.outputs) for cell in opened.cells if cell.cell_type == "code"]

    return carry_out


@pytest.mark.slow
def test_the_notebook_on_a_model_shows_a_film_sounds_and_spectrograms(notebook):
    loaded, film, made, heard, drawn, variants = notebook("use_a_model")
    assert "run: 2 steps, guidance" in loaded and "<video" in film and made.count("(40960,)") == 3
    assert heard.count("<audio") == 3 and "image/png" in drawn and variants.count("81964") == 3


@pytest.mark.slow
def test_the_notebook_on_an_ablation_runs_it_and_reads_its_intervals(notebook, first):
    _, study, table, real, drawn, verdicts = notebook("run_an_ablation")
    assert "reused:  data" in study and "Differences to as trained" in study
    assert "aa_align" in table and "difference_low" in table and "w = 1" in table
    assert "CN+Onset+GVF" in real and "image/png" in drawn
    assert "CN+Onset+GVF" in verdicts
