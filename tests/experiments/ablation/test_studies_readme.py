"""What ablations/README.md shows does what it says."""

import re
import shlex
from pathlib import Path

import pytest

from stav2a.cli.main import main
from stav2a.experiments.ablation.planning import plan
from stav2a.experiments.ablation.study import load
from tests.commands import parse

ROOT = Path(__file__).parents[3]
README = (ROOT / "ablations" / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```gin\n(.*?)^```", README, flags=re.M | re.S)


@pytest.fixture
def example(tmp_path, monkeypatch) -> str:
    """The study of rows in the document, in a folder of its own."""
    text, _ = EXAMPLES
    (tmp_path / "big_pooler.gin").write_text(text)
    monkeypatch.chdir(tmp_path)
    return text


def test_a_study_of_two_rows_needs_fewer_than_ten_lines(example):
    assert len(example.splitlines()) < 10


def test_the_example_can_be_planned(example, tmp_path, capsys):
    assert main(["ablation", "--gin", "big_pooler.gin", "--plan"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "big_pooler: 2 rows × 2 seeds (0, 1), compared with K = 4"
    assert told[2] == "  K = 32  trains 2 × joint"
    assert [path.name for path in tmp_path.iterdir()] == ["big_pooler.gin"]


def test_the_example_of_factors_has_all_combinations(tmp_path):
    _, text = EXAMPLES
    (tmp_path / "pooler_and_fuser.gin").write_text(text)
    names = ["mean + concat", "mean + sum", "attentive + concat", "attentive + sum"]
    planned = plan(load(tmp_path / "pooler_and_fuser.gin", seeds=[0]), tmp_path / "runs")
    assert [run.row.name for run in planned.runs] == names


def test_every_command_parses():
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.M | re.S)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    for program, command, *arguments in lines:
        assert program == "stav2a"
        parse(command, arguments)
    assert len(lines) == 7


def test_every_study_stands_in_the_table():
    listed = set(re.findall(r"^\| `(\w+\.gin)` \|", README, flags=re.M))
    assert listed == {path.name for path in (ROOT / "ablations").glob("*.gin")} - {"base.gin"}
