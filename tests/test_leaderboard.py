"""The leaderboard: its files keep to the rules, its page shows them, and the baselines are what they say."""

import csv
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmark import baselines, leaderboard, scoring
from benchmark.baselines import BASELINES, Material
from benchmark.leaderboard import (
    CLIPS,
    METRICS,
    SEED,
    VERSION,
    Submission,
    SubmissionError,
    of_study,
    read,
    read_all,
)
from benchmark.scoring import Scorer
from stav2a import recipe
from stav2a.data.media import write_flac
from stav2a.experiments.ablation import planning, study
from stav2a.experiments.experiment import Experiment
from stav2a.metrics.alignment import aa_align
from stav2a.registry import name_of
from stav2a.utils.errors import UsageError

FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6, "clips": CLIPS}
MINE = Submission(
    name="Mine",
    description="a model",
    benchmark={"version": VERSION, "level": "standard", "seed": SEED, "clips": CLIPS},
    seeds=[0, 1],
    metrics={"aa_align": FIGURE, "class_accuracy_vague": FIGURE | {"clips": 69}, "fd": FIGURE},
    licence="MIT",
    date="2026-12-01",
    versions={"stav2a": "0.1.0"},
    command="make mine",
)


def test_the_page_shows_the_committed_files():
    page = leaderboard.PAGE.read_text()
    assert leaderboard.with_table(page, read_all()) == page
    assert {baseline.name for baseline in BASELINES} <= {each.name for each in read_all()}


def test_check_says_whether_the_page_shows_the_files(tmp_path, monkeypatch, capsys):
    page = tmp_path / "leaderboard.md"
    page.write_text(leaderboard.PAGE.read_text().replace("| Silence |", "| Quiet |"))
    monkeypatch.setattr(leaderboard, "PAGE", page)
    assert leaderboard.main(["check"]) == 1
    assert "leaderboard.md shows another table than that of the files; write it: " in capsys.readouterr().err
    assert leaderboard.main(["check", "--write"]) == 0 and "| Silence |" in page.read_text()
    assert leaderboard.main(["check"]) == 0
    assert f"{len(read_all())} files keep to the rules" in capsys.readouterr().err


def test_clips_and_metrics_are_those_of_the_laptop_scale():
    experiment = recipe.load("recipes/cn.gin", root=Experiment).build()
    assert set(METRICS) == {name_of(metric) for metric in experiment.metrics}
    assert experiment.dataset().counts["test"] == CLIPS and experiment.dataset().seed == SEED


FAULTS = [
    ({"name": " "}, "name is ' '; expected a text"),
    ({"name": "a|b"}, "name is 'a|b'; expected at most 40 characters without | < > [ ] `"),
    (
        {"benchmark": {**MINE.benchmark, "version": "0", "clips": 64}},
        f"benchmark.version is '0'; expected {VERSION!r}\nbenchmark.clips is 64; expected 128",
    ),
    (
        {"benchmark": {**MINE.benchmark, "level": "x"}},
        "benchmark.level is 'x'; expected 'easy' or 'standard'",
    ),
    ({"seeds": [0, 0]}, "seeds is [0, 0]; expected each seed once"),
    ({"seeds": []}, "seeds is []; expected a list of whole numbers"),
    ({"metrics": {"fd": FIGURE}}, "metrics lacks aa_align, class_accuracy_vague"),
    ({"metrics": {**MINE.metrics, "fid": FIGURE}}, "metrics.fid is unknown; expected aa_align"),
    (
        {"metrics": {**MINE.metrics, "fd": FIGURE | {"value": 0.7}}},
        "metrics.fd is 0.7 [0.4, 0.6]; expected the value within its interval",
    ),
    (
        {"metrics": {**MINE.metrics, "aa_align": FIGURE | {"value": 1.5, "high": 2}}},
        "metrics.aa_align.value is 1.5; expected 0 to 1",
    ),
    ({"metrics": {**MINE.metrics, "fd": FIGURE | {"clips": 69}}}, "metrics.fd.clips is 69; expected 128"),
    ({"metrics": {**MINE.metrics, "fd": FIGURE | {"low": None}}}, "or null at both ends"),
    ({"metrics": {**MINE.metrics, "fd": FIGURE | {"value": True}}}, "expected numbers"),
    ({"date": "yesterday"}, "date is 'yesterday'; expected a day such as 2026-12-01"),
    ({"versions": {"torch": "2"}}, "versions has torch; expected stav2a among them"),
    ({"command": ""}, "command is '' and link ''; expected a text in at least one of them"),
    ({"link": "ftp://x"}, "link is 'ftp://x'; expected an address that begins with https://"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS)
def test_a_fault_is_told_with_what_was_expected(change, told):
    with pytest.raises(SubmissionError) as caught:
        replace(MINE, **change)
    assert told in caught.value.message
    assert "docs/leaderboard.md" in str(caught.value)


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = replace(MINE, name="CN+Onset w/o T").write(tmp_path)
    assert path.name == "cn-plus-onset-w-o-t-standard.json"
    assert read(path) == replace(MINE, name="CN+Onset w/o T")


def test_faults_of_all_files_are_told_at_once(tmp_path):
    MINE.write(tmp_path)
    known = json.loads((tmp_path / "mine-standard.json").read_text())
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(json.dumps(known | {"prize": 1}))
    (tmp_path / "c.json").write_text(json.dumps({key: known[key] for key in known if key != "licence"}))
    (tmp_path / "d.json").write_text(json.dumps(known))
    with pytest.raises(SubmissionError) as caught:
        read_all(tmp_path)
    told = caught.value.message.splitlines()
    assert told[0].startswith("a.json: no JSON")
    assert told[1].startswith("b.json: unknown fields: prize; expected name, ")
    assert told[2:] == [
        "c.json: missing fields: licence",
        "d.json: the file is named d.json; expected mine-standard.json",
    ]


def test_the_table_is_by_level_and_begins_with_the_best():
    better = replace(
        MINE,
        name="Better",
        link="https://example.org",
        metrics={**MINE.metrics, "aa_align": {"value": 0.8, "low": None, "high": None, "clips": CLIPS}},
    )
    easy = replace(MINE, name="Easy", benchmark={**MINE.benchmark, "level": "easy"})
    lines = leaderboard.table([MINE, better, easy]).splitlines()
    names = [line.split(" | ")[0] for line in lines if line.startswith("|") and "---" not in line]
    assert names == ["| system", "| Easy", "| system", "| [Better](https://example.org)", "| Mine"]
    assert (
        "| [Better](https://example.org) | 0.80 | 0.50 [0.40,&nbsp;0.60] | 0.5 [0.4,&nbsp;0.6] | 2 |"
        in "\n".join(lines)
    )


def study_files(folder: Path, row: str) -> tuple[Path, Path]:
    """Figures of one row of Table III, and the keys of its runs as they are today."""
    with open(folder / "table.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "metric", "direction", "value", "low", "high", "seeds", "clips"])
        for name, figure in MINE.metrics.items():
            ends = (figure[each] for each in ("value", "low", "high"))
            table.writerow([row, name, "", *ends, "0 1", CLIPS])
        table.writerow([row, "fad", "lower", 3.0, "", "", "0 1", CLIPS])
        table.writerow([row, "kl", "lower", "", "", "", "0 1", CLIPS])
    runs = planning.plan(study.load("ablations/table3.gin", seeds=[0, 1]), folder).runs
    lines = [f"{run.row.name},{run.seed},{run.sounds_key}\n" for run in runs]
    (folder / "runs.csv").write_text("row,seed,sounds_key\n" + "".join(lines))
    return folder / "table.csv", folder / "runs.csv"


def test_rows_of_a_study_become_submissions(tmp_path):
    make = partial(of_study, "ablations/table3.gin", licence="MIT", day="2026-12-01")
    (made,) = make(*study_files(tmp_path, "CN+Onset"))
    assert made.benchmark == MINE.benchmark and made.seeds == [0, 1]
    recipes = "recipes/cn_onset.gin, recipes/evaluation/three_waveforms.gin"
    assert made.description == f"row of ablations/table3.gin: {recipes}"
    assert made.metrics == {name: {**figure, "clips": CLIPS} for name, figure in MINE.metrics.items()}


def test_other_results_than_the_studys_of_today_are_refused(tmp_path):
    make = partial(of_study, "ablations/table3.gin", licence="MIT", day="2026-12-01")
    results, runs = study_files(tmp_path, "rnu")
    with pytest.raises(UsageError, match="has the rows rnu, which ablations/table3.gin lacks"):
        make(results, runs)
    results, runs = study_files(tmp_path, "CN")
    runs.write_text(runs.read_text().replace("CN,1,", "CN,1,0"))
    with pytest.raises(UsageError) as caught:
        make(results, runs)
    told = "1 of 2 runs of {} made other sounds than ablations/table3.gin does today, first CN, seed 1."
    assert caught.value.message == told.format(results)
    with pytest.raises(UsageError, match="lacks the columns row, seed, sounds_key"):
        make(results, Path("recipes/cn.gin"))
    with pytest.raises(UsageError, match="nowhere.csv: there is no such file"):
        make(Path("nowhere.csv"), runs)


@pytest.mark.parametrize(
    ("name", "told"),
    [("a|b", "error: name is 'a|b'; expected at most 40"), ("a", "error: --sounds: no such folder: nowhere")],
)
def test_scoring_refuses_before_it_makes_the_clips(name, told, tmp_path, capsys):
    facts = ["--name", name, "--description", "a model", "--licence", "MIT", "--link", "https://example.org"]
    assert scoring.main([*facts, "--sounds", "nowhere", "--output", str(tmp_path / "runs")]) > 0
    assert capsys.readouterr().err.startswith(told)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """The clips of a small benchmark, and a hardly trained judge."""
    counts = {"train_clips": 16, "validation_clips": 8, "test_clips": 8}
    bindings = [f"dataset.struck_objects.{name} = {count}" for name, count in counts.items()]
    bindings += ["run.stages = [@stage.autoencoder]", "run.metrics = [@metric.aa_align, @metric.fd]"]
    folder = tmp_path_factory.mktemp("leaderboard")
    return Material(Scorer.prepared(folder, recipes=["recipes/scale/smoke.gin"], bindings=bindings))


def scores(material: Material, sounds: np.ndarray, folder: Path) -> dict[str, float]:
    for row, sound in zip(material.corpus.test_rows, sounds, strict=True):
        write_flac(folder / f"{material.corpus.clips[row].id}.flac", sound, 16_000)
    return {score.name: score.value for score in material.scorer.score(folder)}


@pytest.mark.slow
def test_every_baseline_makes_a_sound_of_every_clip(material):
    for baseline in BASELINES:
        sounds = baseline.make(material, 0)
        assert sounds.shape == (8, 40_960) and np.isfinite(sounds).all(), baseline.name
        assert (baseline.make(material, 0) == sounds).all(), baseline.name
        drawn = not np.array_equal(baseline.make(material, 1), sounds)
        assert drawn == (len(baseline.seeds) > 1), baseline.name


@pytest.mark.slow
def test_silence_scores_zero_and_the_real_sound_one(material, tmp_path):
    real = material.corpus.audio(material.corpus.test_rows)
    assert scores(material, baselines.silence(material, 0), tmp_path)["aa_align"] == 0
    found = scores(material, real, tmp_path)
    assert found["aa_align"] == 1 and found["fd"] == pytest.approx(0, abs=0.1)


@pytest.mark.slow
def test_no_clip_gets_its_own_sound(material):
    real = material.corpus.audio(material.corpus.test_rows)
    for seed in range(5):
        other = baselines.other_clip(material, seed)
        own = [int(np.flatnonzero((real == sound).all(axis=1))[0]) for sound in other]
        assert sorted(own) == list(range(8)) and all(i != j for i, j in enumerate(own))


@pytest.mark.slow
def test_strikes_sound_at_the_peaks(material):
    times_s = [np.array([0.5, 1.5])] * 8
    guess = lambda material, rng: ["wood"] * 8  # noqa: E731
    sounds = baselines.at_peaks(material, 0, find=lambda material: times_s, guess=guess)
    detect = material.scorer.steps.experiment.onset_detector()
    found = [aa_align(detect(sound, 16_000), times_s[0]) for sound in sounds]
    assert np.mean(found) > 0.7


@pytest.mark.slow
def test_baselines_are_compared_with_a_row_over_its_seeds(material, tmp_path):
    silent = next(each for each in BASELINES if each.name == "Silence")
    runs = baselines.scores_of(material.scorer, silent, [5, 6], tmp_path / "row")
    lines = list(baselines.table(baselines.differences(material.scorer, "CN", runs, tmp_path), "CN"))
    assert lines[0] == "| figure: less CN's | AA-Align ↑ | FD ↓ |" and len(lines) == 2 + len(BASELINES)
    assert "| Silence | 0.000: +0.000 [+0.000, +0.000] | " in "\n".join(lines)
    drawn = {each.name: sorted(path.name for path in (tmp_path / each.name).iterdir()) for each in BASELINES}
    assert drawn["Another clip"] == ["5", "6"] and drawn["Silence"] == ["5"]


def test_a_row_to_compare_with_needs_its_runs(tmp_path, capsys):
    for row, told in (
        ("XY", "has no row 'XY'; it has Pretrained-T2A, "),
        ("CN", "CN, seed 5 has no scores in "),
    ):
        given = ["--against", "ablations/table3.gin", row, "--seeds", "5", "--output", str(tmp_path)]
        assert baselines.main(given) == 2
        assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        baselines.main(["--seeds", "5"])
    assert "--seeds are those of the runs of --against" in capsys.readouterr().err


@pytest.mark.slow
def test_a_clip_without_a_sound_or_with_a_short_one_is_refused(material, tmp_path):
    scores(material, baselines.silence(material, 0), tmp_path)
    write_flac(tmp_path / "test_00003.flac", np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(UsageError, match="test_00003.flac lasts 1.00 s; expected the clip's 2.56 s"):
        material.scorer.score(tmp_path)
    (tmp_path / "test_00003.flac").unlink()
    with pytest.raises(UsageError, match="1 of 8 test clips have no sound, such as test_00003"):
        material.scorer.score(tmp_path)


@pytest.mark.slow
def test_scores_of_other_clips_are_no_submission(material, tmp_path):
    scores(material, baselines.silence(material, 0), tmp_path)
    found = {0: material.scorer.score(tmp_path)}
    facts = {
        name: value for name, value in asdict(MINE).items() if name in ("name", "description", "licence")
    }
    with pytest.raises(SubmissionError, match="benchmark.clips is 8; expected 128"):
        material.scorer.submission(found, **facts, command="make mine")
