"""The code of the two authoring guides does what they say; pages and notebooks name what is there."""

import doctest
import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from stav2a import recipe, registry
from stav2a.cli.main import main
from stav2a.experiments.contract import faults_of
from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import BLOCKS
from stav2a.recipe import parsing

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), flags=re.M | re.S)
    return [text for kind, text in found if kind == language]


PARTS = ("my_parts", "my_unet", "my_metric", "my_stage")  # the guide's files, in its order


@pytest.fixture
def my_parts(tmp_path, monkeypatch, scratch_registry):
    """The guide's components, as modules of somebody's own; the first is a local head."""
    modules = []
    for name, code in zip(PARTS, blocks("components.md", "python"), strict=True):
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        modules.append(module)
    monkeypatch.chdir(tmp_path)
    return modules[0]


@pytest.fixture
def my_recipes(my_parts, tmp_path):
    """The guide's recipes that can be laid over one another, by name; the denoiser's is text to audio."""
    smooth, *others, _ = blocks("components.md", "gin")
    for text in (smooth, *others):
        (tmp_path / text.split("\n")[0].removeprefix("# ")).write_text(text)
    return sorted(path.name for path in tmp_path.glob("*.gin") if path.stem != "frame_transformer")


def test_the_guides_parts_pass_the_dry_run(my_recipes, capsys):
    assert my_recipes == ["levels.gin", "loudness.gin", "smooth.gin"]
    recipes = [word for name in my_recipes for word in ("--gin", name)]
    assert main(["run", *recipes, "--gin", "recipes/scale/smoke.gin", "--strict", "--check"]) == 0
    shown = capsys.readouterr().out
    assert "run.metrics = [@metric.level_error, @metric.aa_align]" in shown and "needs numbers" not in shown


def test_the_guides_denoiser_passes_the_dry_run_and_keeps_to_the_rules(my_recipes, capsys):
    recipes = ["--gin", "frame_transformer.gin", "--gin", "recipes/scale/smoke.gin"]
    assert main(["run", *recipes, "--strict", "--check"]) == 0
    assert "run.unet = @unet.frame_transformer" in capsys.readouterr().out
    assert faults_of("unet.frame_transformer") == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_guides_parts_train_and_measure(my_recipes, capsys):
    recipes = [word for name in my_recipes for word in ("--gin", name)]
    assert main(["run", *recipes, "--gin", "recipes/scale/smoke.gin", "--tracking-uri", "none"]) == 0
    printed = capsys.readouterr()
    assert "Level error (dB)" in printed.out and "loudness: training" in printed.err


def test_the_guides_component_works(my_parts):
    assert doctest.testmod(my_parts) == (0, 1)
    with pytest.raises(ValueError, match="local_head.smooth.window = 4: take an odd number."):
        my_parts.SmoothHead(in_dim=8, length=10, window=4)


def test_the_guides_recipe_uses_it(my_parts, tmp_path):
    whole, *_, part = blocks("components.md", "gin")
    (tmp_path / "smooth.gin").write_text(whole)
    loaded = recipe.load("smooth.gin", [part], strict=True, root=Experiment)
    assert "local_head.smooth.window = 5\n" in loaded.snapshot()


def test_the_guides_entry_point_is_in_our_group():
    (text,) = blocks("components.md", "toml")
    assert tomllib.loads(text)["project"]["entry-points"] == {registry.PLUGINS: {"my_parts": "my_parts"}}


def test_the_primers_recipes_load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = []
    for text in blocks("recipes.md", "gin"):
        (tmp_path / "mine.gin").write_text(text)
        loaded.append(recipe.load("mine.gin", strict=True, root=Experiment))
    assert loaded[0].bindings["stage.joint.data_filter"].value.selector == "data_filter.none"
    assert list(loaded[1].build().blocks()) == [*BLOCKS, "temporal_encoder"]


def test_the_primers_mistake_is_told_as_shown(tmp_path, monkeypatch):
    text, *_ = blocks("recipes.md", "gin")
    (shown,) = blocks("recipes.md", "")
    (tmp_path / "mine.gin").write_text(text.replace("onset.windows", "onset.windws"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(parsing.RecipeError) as caught:
        recipe.load("mine.gin", root=Experiment)
    assert str(caught.value) == shown.strip()


@pytest.mark.parametrize("page", ["components.md", "recipes.md"])
def test_the_examples_from_python_hold(page):
    for text in blocks(page, "pycon"):
        test = doctest.DocTestParser().get_doctest(text, {}, page, None, 0)
        told: list[str] = []
        assert doctest.DocTestRunner().run(test, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize(
    "page", sorted([*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]), ids=lambda page: page.name
)
def test_every_path_that_a_page_names_exists(page):
    named = re.findall(r"(?<![\w/])(?:stav2a|tests|recipes|ablations|docs)/[\w./-]*\w/?", page.read_text())
    assert [path for path in named if not (DOCS.parent / path).exists()] == []


@pytest.mark.parametrize(
    "page", sorted([*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]), ids=lambda page: page.name
)
def test_every_module_that_a_page_names_exists(page):
    for name in re.findall(r"(?<![./\w])stav2a(?:\.[a-z_0-9]+)+", page.read_text()):
        *parents, last = name.split(".")
        found = importlib.util.find_spec(".".join(parents))
        assert found is not None, name
        module = importlib.import_module(".".join(parents))
        assert hasattr(module, last) or importlib.util.find_spec(name), name


@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_is_before_it_runs(path):
    """tests/experiments/test_run.py carries them out."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    text = "".join(line for cell in cells for line in cell["source"])
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", text)
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links and all((path.parent / link).is_file() for link in links)
    assert f"](notebooks/{path.name})" in (DOCS / "index.md").read_text()
