"""The command, on small films and sounds."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stav2a.cli.main import main
from tests.evaluation.folder_material import RATE, clicks, film, folders

TIMING = ["aa_align", "av_align"]


def run(root, output, *more, systems=("good", "bad"), metrics=TIMING):
    return main(
        [
            "evaluate",
            *("--references", str(root / "real"), "--generated"),
            *(f"{name}={root / name}" for name in systems),
            *("--metrics", *metrics, "--output", str(output), "--workers", "1", "--tracking-uri", "none"),
            *more,
        ]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two systems and two durations, scored once."""
    root = tmp_path_factory.mktemp("evaluate")
    folders(root)
    assert run(root, root / "out", "--duration", "1", "--duration", "2") == 0
    return root


def lines(output):
    with (output / "table.csv").open() as file:
        return list(csv.DictReader(file))


def figure(output, row, metric, crop="2", column="value"):
    (found,) = [
        float(line[column])
        for line in lines(output)
        if (line["row"], line["metric"], line["crop_s"]) == (row, metric, crop)
    ]
    return found


def test_the_aligned_system_scores_above_the_other_and_above_chance(made):
    out = made / "out"
    assert figure(out, "real sound", "aa_align") == 1.0
    assert figure(out, "good", "aa_align") > 0.75 > 0.25 > figure(out, "bad", "aa_align")
    assert figure(out, "good", "aa_align", column="corrected") > 0.7
    assert figure(out, "good", "av_align") > figure(out, "bad", "av_align")
    assert figure(out, "bad", "aa_align", column="difference_high") < 0
    assert {line["n"] for line in lines(out)} == {"4"}


def test_every_form_is_written(made):
    out = made / "out"
    for name, word in {
        "table.txt": "Systems by durations by metrics",
        "table.md": "| **good** |",
        "table.tex": r"\toprule",
        "report.html": '<video controls preload="metadata" playsinline aria-label="good: clip0"',
        "left_out.csv": "kind,clip,where,reason",
    }.items():
        assert word in (out / name).read_text()
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == ["1", "2"] and list(scores["2"]) == ["real sound", "good", "bad"]


def test_the_best_is_a_system_and_not_the_real_sound(made):
    rows = [line for line in (made / "out" / "table.md").read_text().splitlines() if "| 2 |" in line]
    real, good, bad = (line.split(" | ")[2] for line in rows)
    assert (real.startswith("**"), good.startswith("**"), bad.startswith("**")) == (False, True, False)


def test_the_second_time_answers_from_what_was_heard_to_the_last_bit(made, monkeypatch):
    first = (made / "out" / "table.csv").read_text()

    def not_again(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("stav2a.evaluation.folders.features.read_audio", not_again)
    monkeypatch.setattr("stav2a.evaluation.folders.features.read_video", not_again)
    assert run(made, made / "out", "--duration", "1", "--duration", "2") == 0
    assert (made / "out" / "table.csv").read_text() == first


def test_what_was_heard_goes_by_content_not_by_name(made, tmp_path):
    shutil.copytree(made / "real", tmp_path / "real")
    shutil.copytree(made / "good", tmp_path / "good")
    assert run(tmp_path, tmp_path / "out", systems=["good"], metrics=["aa_align"]) == 0
    before = figure(tmp_path / "out", "good", "aa_align", "whole")
    shutil.copy(made / "bad" / "clip0.wav", tmp_path / "good" / "clip0.wav")
    assert run(tmp_path, tmp_path / "out", systems=["good"], metrics=["aa_align"]) == 0
    assert figure(tmp_path / "out", "good", "aa_align", "whole") < before


def test_stereo_and_other_rates_are_heard_as_mono_at_the_ears_rate(tmp_path):
    folders(tmp_path, clips=2)
    for i in range(2):
        audio, _ = soundfile.read(tmp_path / "good" / f"clip{i}.wav")
        twice = np.repeat(audio, 2)  # 32 kHz, roughly
        soundfile.write(tmp_path / "good" / f"clip{i}.wav", np.stack([twice, twice], axis=1), 2 * RATE)
    assert run(tmp_path, tmp_path / "out", systems=["good"], metrics=["aa_align"]) == 0
    assert figure(tmp_path / "out", "good", "aa_align", "whole") > 0.8


def test_nothing_is_left_out_in_silence(tmp_path, capsys):
    folders(tmp_path, clips=8)
    good = tmp_path / "good"
    (good / "clip0.wav").unlink()
    (good / "clip1.wav").write_bytes(b"RIFF" + b"\0" * 400)
    soundfile.write(good / "clip2.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(good / "clip3.wav", np.zeros(2 * RATE), RATE)
    soundfile.write(good / "clip4.wav", clicks(0.3, duration_s=0.8), RATE)
    film(tmp_path / "real" / "clip5.mp4", [0.1], frames=2, fps=1)
    (good / "clip6.wav").write_bytes((good / "clip6.wav").read_bytes()[:60])
    assert run(tmp_path, tmp_path / "out", "--duration", "1.5", systems=["good"]) == 0
    with (tmp_path / "out" / "left_out.csv").open() as file:
        told = {(line["kind"], line["clip"], line["where"]): line["reason"] for line in csv.DictReader(file)}
    assert told["left out", "clip0", "good"].startswith("no such file in")
    assert "clip1.wav: not a readable" in told["left out", "clip1", "good"]
    assert "clip2.wav: its sound holds samples that are not finite" in told["left out", "clip2", "good"]
    assert told["noticed", "clip3", "good"] == "silent: no sample above -80 dB"
    assert told["left out", "clip4", "first 1.5 s"] == "lasts 0.80 s, less than 95% of it"
    assert told["left out", "clip5", "AV-Align"].startswith("AV-Align was given 2 frames")
    assert ("left out", "clip6", "good") in told or ("left out", "clip6", "first 1.5 s") in told
    printed = " ".join(capsys.readouterr().out.split())
    assert "clip2.wav: its sound holds samples that are not finite" in printed


def test_sounds_of_different_length_are_cut_to_the_shortest_and_it_is_told(tmp_path):
    folders(tmp_path, clips=2)
    soundfile.write(tmp_path / "good" / "clip0.wav", clicks(0.3, duration_s=1.0), RATE)
    assert run(tmp_path, tmp_path / "out", metrics=["aa_align"]) == 0
    told = (tmp_path / "out" / "left_out.csv").read_text()
    assert 'noticed,clip0,bad,"lasts 2.00 s, another 1.00 s: cut to that"' in told


def test_another_flow_is_another_measure(made, tmp_path):
    assert (
        run(made, tmp_path / "out", "--flow", "sparse_farneback", systems=["good"], metrics=["av_align"]) == 0
    )
    (found,) = [line["definition"] for line in lines(tmp_path / "out") if line["row"] == "good"]
    (exact,) = [
        line["definition"]
        for line in lines(made / "out")
        if (line["row"], line["metric"], line["crop_s"]) == ("good", "av_align", "2")
    ]
    assert "flow: Farneback at the native size" in exact
    assert "flow: Farneback at the native size" not in found


def test_one_clip_has_figures_without_intervals(tmp_path):
    folders(tmp_path, clips=1)
    assert run(tmp_path, tmp_path / "out", metrics=["aa_align", "is"]) == 0
    (line,) = [
        line for line in lines(tmp_path / "out") if (line["row"], line["metric"]) == ("good", "aa_align")
    ]
    assert (line["n"], line["low"], line["chance"]) == ("1", "", "")


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--metrics", "aa_aline"], 2, "there is no metric 'aa_aline'. Did you mean aa_align?"),
        (["--metrics", "fd_released"], 2, "fd has one form alone, the paper's too. Write fd."),
        (["--baseline", "ours"], 2, "--baseline ours is no system. The systems are: good, bad."),
        (["--generated", "good=elsewhere"], 2, "two systems have one name"),
        (
            ["--generated", "real sound=bad"],
            2,
            "a system is named 'real sound'. Take letters, digits, spaces",
        ),
        (["--generated", "a/b=bad"], 2, "a system is named 'a/b'. Take letters, digits, spaces"),
        (["--detector", "extractors"], 2, "No onset_detector named 'extractors'"),
        (["--flow", "river"], 2, "No optical_flow named 'river'"),
        (["--duration", "1e-9"], 2, "'1e-9' is no number of seconds from 0.03 to 86400"),
        (["--duration", "60"], 2, "no clip can be scored: lasts 2.00 s, less than 95% of it"),
        (["--videos", "nowhere"], 2, "--videos: no such folder: nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(made, tmp_path, capsys, more, code, told):
    assert run(made, tmp_path / "out", *more) == code
    assert told in capsys.readouterr().err


def test_a_metric_without_its_weights_is_absent_and_the_others_are_there(made, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    weights = tmp_path / "weights"
    assert run(made, tmp_path / "out", "--weights-dir", str(weights), metrics=["fad", "aa_align"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "weights of VGGish not found: put vggish-10086976.pth, from github.com/" in told
    assert f"here: {weights / 'vggish-10086976.pth'}" in told
    assert {line["metric"] for line in lines(tmp_path / "out") if line["value"]} == {"aa_align"}


def test_an_evaluation_that_measured_nothing_is_an_error(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STAV2A_WEIGHTS", str(tmp_path / "none"))
    assert run(made, tmp_path / "out", metrics=["kl", "pam"]) == 1
    told = capsys.readouterr()
    (line,) = [each for each in told.err.splitlines() if each.startswith("error: ")]
    assert line == (
        "error: nothing was measured: no system has a figure of KL, PAM. The reasons are above, under "
        "Missing. Mend one, or give other --metrics."
    )
    assert "Missing:" in told.out and (tmp_path / "out" / "table.csv").is_file()


@pytest.mark.slow
def test_weights_of_another_model_end_it_before_anything_is_scored(made, tmp_path, capsys):
    torch.save({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "vggish-10086976.pth")
    assert run(made, tmp_path / "out", "--weights-dir", str(tmp_path), metrics=["fad", "aa_align"]) == 1
    assert "weights of VGGish does not fit this model: missing" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table.csv").exists()


@pytest.mark.slow
def test_figures_are_tracked(tmp_path):
    import mlflow

    folders(tmp_path, clips=2)
    store = f"sqlite:///{tmp_path / 'store.db'}"
    metrics = ["aa_align", "aa_align_released"]
    assert run(tmp_path, tmp_path / "out", "--tracking-uri", store, systems=["good"], metrics=metrics) == 0
    client = mlflow.MlflowClient(store)
    (kept,) = client.search_runs([client.get_experiment_by_name("evaluation").experiment_id])
    assert kept.data.metrics["good/whole/aa_align"] == figure(tmp_path / "out", "good", "aa_align", "whole")
    assert {"good/whole/aa_align_chance", "real sound/whole/aa_align_released"} <= set(kept.data.metrics)
    assert "matched one to one" in kept.data.params["good/whole/aa_align"]
    names = {file.path for file in client.list_artifacts(kept.info.run_id)}
    assert {"table.csv", "scores.json", "left_out.csv", "report.html"} <= names


def test_the_papers_figures_stand_beside_the_released_forms_of_the_same_duration(tmp_path):
    folders(tmp_path, clips=2)
    (tmp_path / "good").rename(tmp_path / "sta_v2a")
    for folder in ("real", "sta_v2a"):
        for i in range(2):
            sound = clicks(0.5, 1.0, duration_s=4.0)
            soundfile.write(tmp_path / folder / f"clip{i}.wav", sound, RATE)
    metrics = ["aa_align", "aa_align_released"]
    assert run(tmp_path, tmp_path / "out", "--duration", "4", systems=["sta_v2a"], metrics=metrics) == 0
    assert figure(tmp_path / "out", "sta_v2a", "aa_align_released", "4", "paper") == 0.740
    beside = {line["row"]: line["paper"] for line in lines(tmp_path / "out") if line["metric"] == "aa_align"}
    assert beside == {"real sound": "", "sta_v2a": ""}


@pytest.mark.slow
def test_processes_of_torchrun_share_the_clips_and_one_writes(made, tmp_path):
    """Two on the CPU; the second finds its half of the features on disk alone."""
    root = Path(__file__).parents[2]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "stav2a"]
    asked = [
        *("evaluate", "--references", made / "real", "--generated"),
        *(f"{name}={made / name}" for name in ("good", "bad")),
        *("--metrics", *TIMING, "--duration", "1", "--duration", "2", "--tracking-uri", "none"),
    ]

    def start(output, *more):
        return subprocess.run(
            [sys.executable, *launcher, *map(str, asked), "--output", str(output), *more],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    done = start(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("AA-Align") == (made / "out" / "table.txt").read_text().count("AA-Align") > 0
    assert lines(tmp_path / "out") == lines(made / "out")
