"""The documentation site builds without a warning, and its pages of code keep to the code."""

import ast
import doctest
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from stav2a import recipe, registry
from stav2a.cli.main import main
from stav2a.experiments import listing
from stav2a.experiments.ablation import study
from stav2a.experiments.contract import faults_of
from stav2a.experiments.experiment import Experiment
from stav2a.slots import SLOTS

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "docs/paper.md").read_text()
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory, monkeypatch_module):
    """The site, built strictly: a warning, a dead link or a request to another server ends the build."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    monkeypatch_module.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.slow
def test_the_site_has_every_component_and_the_public_names(site):
    for slot in SLOTS:
        page = (site / f"gallery/{slot}.html").read_text()
        names = {
            each.name for each in registry.available(slot) if each.factory.__module__.startswith("stav2a.")
        }
        assert names <= set(re.findall(r'<h2 id="(\w+)"', page)), slot
    onset = (site / "gallery/local_head.html").read_text()
    assert 'href="../source/stav2a/components/local_heads.py.html#__codelineno-0-' in onset
    assert 'href="../source/recipes/cn_onset.gin.html#__codelineno-0-' in onset
    assert 'id="stav2a.pipeline.VideoToAudioPipeline"' in (site / "api/pipeline.html").read_text()
    assert 'id="stav2a.slots.GlobalPooler"' in (site / "api/slots.html").read_text()


@pytest.mark.slow
def test_pages_of_the_repository_are_in_the_order_of_the_index(site):
    page = (site / "contents.html").read_text()
    places = [page.index(f'href="{name}.html"') for name in ("tutorial", "paper", "components", "CHANGELOG")]
    assert places == sorted(places)


FAULTS = {
    '<a href="other.html">': "links to other.html, which is not there",
    '<a href="#nowhere">': "links to page.html#nowhere, which has no such heading",
    '<script src="https://example.org/x.js">': "loads https://example.org/x.js",
    '<link rel="stylesheet" href="https://example.org/x.css">': "loads https://example.org/x.css",
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.items())
def test_faults_of_a_built_page_are_found(tmp_path, monkeypatch, text, fault):
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.exceptions import PluginError

    monkeypatch.syspath_prepend(ROOT / "website")
    hooks = importlib.import_module("hooks")
    config = MkDocsConfig()
    config.site_dir = str(tmp_path)
    page = tmp_path / "page.html"
    page.write_text('<h1 id="here"></h1><a href="#here"></a><a href="https://example.org"></a>')
    hooks.on_post_build(config)
    page.write_text(text)
    with pytest.raises(PluginError, match=re.escape(f"page.html {fault}")):
        hooks.on_post_build(config)


def test_every_name_that_the_paper_page_links_is_defined_in_its_file():
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./(stav2a/[\w/]+\.py)\)", PAPER)
    assert len(links) > 20
    for name, path in links:
        body = ast.parse((ROOT / path).read_text()).body
        for part in name.split("."):
            found = [each for each in body if getattr(each, "name", None) == part]
            assert found, f"{name} is not defined in {path}"
            body = found[0].body


def test_every_component_and_parameter_of_the_paper_page_exists():
    registry.load()
    named = re.findall(r"`((?:run|" + "|".join(SLOTS) + r")\.[a-z_0-9.]+)`", PAPER)
    assert len(named) > 30
    for name in named:
        if name.startswith("run."):
            assert name.removeprefix("run.") in listing.ROOT.settable, name
        else:
            slot, component, *parameter = name.split(".")
            assert set(parameter) <= registry.get(slot, component).settable.keys(), name


def test_the_paper_page_has_all_equations():
    assert re.findall(r"^### Eq. (\d): ", PAPER, flags=re.M) == list("12345678")


def code(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, flags=re.M | re.S)


def test_the_tutorials_component_recipe_and_study_keep_to_the_rules(tmp_path, monkeypatch, scratch_registry):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "component", "smooth", "--slot", "local_head"]) == 0
    written, replaced = (tmp_path / "smooth.py").read_text(), code("python")[0]
    (tmp_path / "smooth.py").write_text(written[: written.index("@register")] + replaced)
    for name, text in zip(("smooth.gin", "smooth_study.gin"), code("gin"), strict=True):
        (tmp_path / name).write_text(text)
    spec = importlib.util.spec_from_file_location("smooth", tmp_path / "smooth.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smooth", module)
    spec.loader.exec_module(module)
    assert faults_of("local_head.smooth") == []
    assert doctest.testmod(module) == (0, 2)
    rows = study.load("smooth_study.gin", trust=True).rows
    assert [row.name for row in rows] == ["linear", "smooth", "smooth, 9 frames"]
    assert (
        "local_head.smooth.window = 3\n" in recipe.load("smooth.gin", root=Experiment, trust=True).snapshot()
    )
