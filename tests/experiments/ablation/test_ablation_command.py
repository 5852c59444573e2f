"""The command line of studies: what it refuses, and what it says before anything runs."""

import pytest

from stav2a.cli.main import main

SMOKE = ["--gin", "tests/experiments/ablation/two_rows.gin", "--gin", "recipes/scale/smoke.gin"]


def test_the_plan_is_printed_and_nothing_is_made(tmp_path, capsys):
    output = tmp_path / "runs"
    assert main(["ablation", *SMOKE, "--seeds", "3", "--plan", "--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith("two_rows: 2 rows × 1 seed (3), compared with none\n")
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gin", "ablations/tabel3.gin"], 'error: There is no study "ablations/tabel3.gin". Looked in'),
        (["--gin", "recipes/cn.gin"], "error: 'run.dataset' is a setting of a recipe, but a study was"),
        ([*SMOKE, "--seeds", "1", "1"], "error: --seeds holds 1 twice."),
        ([*SMOKE, "--jobs", "0"], "Invalid value for '--jobs': Input should be greater than or equal to 1"),
        ([*SMOKE, "--tracking-uri", "none"], "error: --tracking-uri none: a study is compared from what its"),
        ([*SMOKE, "--bind", "run.seed = 1"], "error: --bind 'run.seed = 1': a study sets the seeds."),
        (
            [*SMOKE, "--bind", "run.sed = 1"],
            "error: Configurable 'run' doesn't have a parameter named 'sed'.",
        ),
        ([*SMOKE, "--slurm", "partition=gpu"], "error: --slurm sets nothing without --cluster slurm."),
        (["--report", "tabel3"], "error: the default store is sqlite:///"),
    ],
)
def test_what_can_not_be_is_told_before_anything_runs(tmp_path, capsys, arguments, told):
    output = tmp_path / "runs"
    assert main(["ablation", *arguments, "--output", str(output)]) in (1, 2)
    assert told in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: give either --gin FILE, to run a study, or --report STUDY."),
        (["--gin", "a.gin", "--report", "a"], "error: give either --gin FILE"),
        (["--slurm", "gpu"], "Invalid value for '--slurm': expected NAME=VALUE, was given 'gpu'"),
    ],
)
def test_a_wrong_command_is_an_error_of_usage(arguments, message, capsys):
    assert main(["ablation", *arguments]) == 2
    assert message in capsys.readouterr().err
