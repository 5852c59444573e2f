"""Rules of components, the example, and a recipe; add tests of what yours promises."""

import doctest
from pathlib import Path

import my_name

from stav2a.cli.main import main
from stav2a.experiments.contract import faults_of

RECIPE = Path(__file__).parent / "my_name.gin"


def test_it_keeps_to_the_rules_of_components():
    assert faults_of("my_slot.my_name") == []


def test_its_example_runs():
    found = doctest.testmod(my_name)
    assert found.attempted and not found.failed


def test_a_recipe_with_it_passes_the_dry_run():
    recipe = ["--gin", str(RECIPE), "--gin", "recipes/scale/smoke.gin"]
    assert main(["run", *recipe, "--check", "--strict", "--trust-recipe"]) == 0
