"""The wheel: what is in it, and that it works away from the clone."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import stav2a

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(
        "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder), "."
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment, timeout=240
    )


@pytest.mark.slow
def test_the_wheel_carries_what_the_clone_has(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"stav2a/py.typed"}
    for source, shipped in (
        ("stav2a", "stav2a"),
        ("recipes", "stav2a/_recipes"),
        ("ablations", "stav2a/_ablations"),
        ("docs", "stav2a/_docs"),
        ("skeletons", "stav2a/_skeletons"),
    ):
        kinds = {".py", ".gin", ".csv", ".md", ".toml"}
        files = [path for path in (ROOT / source).rglob("*") if path.suffix in kinds]
        expected |= {f"{shipped}/{path.relative_to(ROOT / source).as_posix()}" for path in files}
    assert any(name.startswith("stav2a/_recipes/") for name in expected)
    assert expected - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "docs", "runs"))]


@pytest.mark.slow
def test_the_installed_package_finds_its_recipes(installed, tmp_path):
    result = python(installed, tmp_path, "-m", "stav2a.run", "--gin", "recipes/cn_onset_gvf.gin", "--check")
    assert result.returncode == 0, result.stderr
    where = python(installed, tmp_path, "-c", "import stav2a; print(stav2a.__file__)").stdout.strip()
    assert Path(where).is_relative_to(installed)
    assert list(tmp_path.iterdir()) == [], "checking a recipe leaves nothing behind"


@pytest.mark.slow
def test_a_page_that_a_message_names_is_in_the_wheel(installed, tmp_path):
    result = python(
        installed,
        tmp_path,
        *("-m", "stav2a", "convert", "cavp", "--checkpoint", "a.ckpt", "--output", "new"),
    )
    (named,) = re.findall(r"see (\S+\.md)\.$", result.stderr, flags=re.M)
    assert Path(named).is_file() and Path(named).is_relative_to(installed)


@pytest.mark.slow
def test_the_console_script_is_the_command_line(wheel):
    (entry,) = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("entry_points.txt")]
    assert "stav2a = stav2a.cli.main:main" in zipfile.ZipFile(wheel).read(entry).decode()


def test_the_version_is_a_plain_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", stav2a.__version__)
    assert f"## {stav2a.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    wanted = PROJECT["dependencies"] + [
        r for extra in PROJECT["optional-dependencies"].values() for r in extra
    ]
    assert [r for r in wanted if name_of(r) not in pinned] == []
    assert not [version for version in pins.values() if "+" in version], (
        "a local suffix ties users to one build"
    )


def test_every_dependency_has_a_floor():
    assert [r for r in PROJECT["dependencies"] if ">=" not in r] == []


def test_nothing_but_the_version_is_needed_to_import_the_package():
    code = "import sys; before = set(sys.modules); import stav2a; print(set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "{'stav2a'}\n"
