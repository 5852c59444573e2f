"""Every command and every link in the documents is checked against what is there."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from stav2a.cli.main import COMMANDS
from tests.commands import parse

ROOT = Path(__file__).parents[1]
NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ablations/README.md")
DOCUMENTS = [ROOT / name for name in NAMED] + sorted((ROOT / "docs").glob("**/*.md"))
OTHER_PROGRAMS = {"cd", "cp", "git", "mkdir", "pip", "pre-commit", "pytest"}  # not ours to check
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def commands(text: str) -> Iterator[str]:
    """The commands of all shell blocks: continued lines joined, comments and prompts off."""
    for block in re.findall(r"^```(?:sh|shell|bash)\n(.*?)^```", text, flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line.strip().removeprefix("$ "), comments=True):
                yield shlex.join(words)


def cases() -> list:
    return [
        pytest.param(command, id=f"{path.name}: {command}")
        for path in DOCUMENTS
        if path.exists()
        for command in dict.fromkeys(commands(path.read_text()))
    ]


def check(words: list[str]) -> None:
    while re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):  # VARIABLE=value program …
        words = words[1:]
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    for word in arguments:
        if re.fullmatch(r"(recipes|ablations)/.*", word.split("=", 1)[-1]):
            assert (ROOT / word.split("=", 1)[-1]).exists(), f"{word} is not there"
    if program == "make":
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        assert set(targets) <= MAKE_TARGETS, f"no make target {set(targets) - MAKE_TARGETS}"
    elif program == "stav2a":
        assert arguments[0] in {*COMMANDS, "--help", "--version"}, f"no command {arguments[0]}"
        if arguments[0] in COMMANDS:
            parse(arguments[0], arguments[1:])
    elif program.startswith("python") and arguments[:1] == ["-m"]:
        module = arguments[1]
        if module in ("stav2a", "stav2a.run"):
            check([*module.split("."), *arguments[2:]])
        elif module == "mlflow":
            check(arguments[1:])
        elif module.startswith("benchmark."):
            assert importlib.util.find_spec(module), f"no module {module}"
        else:
            assert module in {"pytest", "pip", "venv"}, f"unknown module {module}"
    elif program == "torchrun":
        check(["python", *arguments[arguments.index("-m") :]])
    elif program == "mlflow":
        group = importlib.import_module("mlflow.cli").cli
        command = group.get_command(click.Context(group), arguments[0])
        assert command, f"mlflow has no command {arguments[0]}"
        command.make_context(arguments[0], arguments[1:])
    elif program.startswith("."):
        assert (ROOT / program).exists(), f"{program} is not there"
    else:
        assert program in OTHER_PROGRAMS, f"unknown program {program}"


@pytest.mark.parametrize("command", cases())
def test_a_documented_command_parses(command):
    try:
        check(shlex.split(command))
    except typer.Exit as end:  # --help
        assert end.exit_code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        "make rnu",
        "stav2a rnu",
        "python -m stav2a.rnu",
        "python -m benchmark.rnu",
        "rnu",
        "make run GIN=recipes/rnu.gin",
    ],
)
def test_a_wrong_command_is_found(wrong):
    with pytest.raises(AssertionError):
        check(shlex.split(wrong))


def test_the_readme_starts_with_the_two_commands():
    assert list(commands((ROOT / "README.md").read_text()))[:2] == ["make run", "make test"]


def test_commands_are_found_in_shell_blocks_only():
    text = "```sh\n# note\n$ make run \\\n  GIN=x\n\nmake test\n```\n```python\nmake = 1\n```\n"
    assert list(commands(text)) == ["make run GIN=x", "make test"]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.exists()], ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_every_recipe_of_the_readme_is_there():
    named = re.findall(r"`(recipes/[\w/]+\.gin)`", (ROOT / "README.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_component_of_the_readme_works(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    (block,) = (block for block in blocks if "@register" in block)
    use = "import torch\nfrom stav2a import registry\n"
    use += "pooler = registry.get('global_pooler', 'median').factory(in_dim=8, cond_dim=6)\n"
    use += "print(tuple(pooler(torch.zeros(2, 5, 8)).shape))\n"
    script = tmp_path / "mine.py"
    script.write_text(block + use)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert result.stdout == "(2, 1, 6)\n", result.stderr
