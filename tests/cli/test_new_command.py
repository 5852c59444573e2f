"""`stav2a new`: what it writes passes untouched, in every slot, and as an installed package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.experiments.ablation import study
from stav2a.experiments.experiment import Experiment
from stav2a.utils.shipped import shipped_root
from tests.test_package import ROOT, pip

SLOTS = sorted(path.stem for path in (shipped_root("skeletons") / "component").glob("*.gin"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_in(folder: Path, *options: str, site: str = "") -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder, in a process that finds this clone and a folder of packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([site, str(ROOT)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


def test_a_recipe_is_a_difference_that_loads(capsys):
    assert main(["new", "recipe", "mine"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "mine.gin\n" and printed.err == "Next: stav2a run --gin ./mine.gin --check\n"
    loaded = recipe.load("mine.gin", strict=True, root=Experiment)
    assert loaded.bindings["global_pooler.attentive.tokens"].value == 8
    assert "# mine: say in a line what differs" in Path("mine.gin").read_text()


def test_a_study_loads():
    assert main(["new", "study", "mine", "--output", "studies"]) == 0
    loaded = study.load("studies/mine.gin", ["recipes/scale/smoke.gin"])
    assert [row.name for row in loaded.rows] == ["as it is", "8 tokens", "mean"]


TOGETHER = """
from stav2a.cli.main import main

def test_a_recipe_with_all_of_them_passes_the_dry_run():
    recipes = [word for slot in {slots} for word in ("--gin", f"my_{{slot}}.gin")]
    smoke = ["--gin", "recipes/scale/smoke.gin"]
    assert main(["run", *recipes, *smoke, "--check", "--strict", "--trust-recipe"]) == 0
"""


@pytest.mark.slow
def test_components_of_every_slot_pass_their_own_tests(here):
    for slot in SLOTS:
        assert main(["new", "component", f"my_{slot}", "--slot", slot]) == 0
    assert (here / "my_metric.gin").read_text().startswith("import my_metric  # beside this file")
    # One dry run for all but the local head, which the onset stage can't train: the plugin's, below.
    together = [slot for slot in SLOTS if slot != "local_head"]
    (here / "test_together.py").write_text(TOGETHER.format(slots=together))
    done = pytest_in(here, "-k", "not a_recipe_with_it")
    assert done.returncode == 0 and f"{2 * len(SLOTS) + 1} passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_a_plugin_is_installed_and_passes_its_own_tests(here):
    assert main(["new", "plugin", "smooth_parts"]) == 0
    assert "class SmoothParts(nn.Module):" in (here / "smooth_parts/smooth_parts/components.py").read_text()
    source, site = str(here / "smooth_parts"), str(here / "site")
    pip("install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", site, source)
    done = pytest_in(here / "smooth_parts", site=site)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["component", "Smooth"], "'Smooth' is no name: take lower-case letters, digits and underscores."),
        (["component", "class"], "'class' is no name"),
        (["component", "onset"], "local_head.onset is there already. Take another name."),
        (["plugin", "torch"], "a module named torch is there already. Take another name."),
        (["component", "a", "--slot", "unet"], "there is no skeleton for the slot 'unet'."),
        (["recipe", "taken"], "taken.gin is there already. Choose another name or --output."),
    ],
)
def test_what_can_not_be_is_refused(here, arguments, told, capsys):
    (here / "taken.gin").write_text("")
    assert main(["new", *arguments]) == 2
    assert told in capsys.readouterr().err and [path.name for path in here.iterdir()] == ["taken.gin"]
