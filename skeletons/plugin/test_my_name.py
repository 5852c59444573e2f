"""Rules of components, the example, a recipe and a study; add tests of what yours promises."""

import doctest
from importlib.metadata import entry_points
from pathlib import Path

from my_name import components

from stav2a.cli.main import main
from stav2a.experiments.contract import faults_of
from stav2a.registry import PLUGINS

RECIPES = Path(__file__).parents[1] / "recipes"
SMOKE = ["--gin", "recipes/scale/smoke.gin"]


def test_every_command_finds_it():
    found = [each.value for each in entry_points(group=PLUGINS)]
    assert "my_name.components" in found, "pip install -e . once, in the folder of this package"


def test_it_keeps_to_the_rules_of_components():
    assert faults_of("my_slot.my_name") == []


def test_its_example_runs():
    found = doctest.testmod(components)
    assert found.attempted and not found.failed


def test_a_recipe_with_it_passes_the_dry_run():
    assert main(["run", "--gin", str(RECIPES / "my_name.gin"), *SMOKE, "--check", "--strict"]) == 0


def test_the_study_has_a_plan(tmp_path):
    study = ["--gin", str(RECIPES / "study.gin"), *SMOKE]
    assert main(["ablation", *study, "--plan", "--output", str(tmp_path)]) == 0
