"""The command line: help that teaches, errors that help, and nothing heavy on the way."""

import importlib
import subprocess
import sys

import pytest

import stav2a
from stav2a.cli.main import COMMANDS, main
from stav2a.data.media import MediaError
from stav2a.recipe import RecipeError
from stav2a.utils.errors import UsageError, exit_code, guarded


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command_with_an_example(flag, capsys):
    assert main([flag]) == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in text and command.summary in text and f"$ {command.example}" in text


def test_every_example_is_of_its_own_command():
    for name, command in COMMANDS.items():
        assert command.example.startswith(f"stav2a {name} ")


def test_no_command_shows_the_help_as_an_error(capsys):
    assert main([]) == 2
    assert "usage: stav2a COMMAND" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stav2a {stav2a.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "rnu",
            "error: there is no command 'rnu'. Did you mean run? "
            "Commands: run, ablation, dashboard, components, generate, evaluate, listen, prepare, convert",
        ),
        (
            "zzz",
            "error: there is no command 'zzz'. "
            "Commands: run, ablation, dashboard, components, generate, evaluate, listen, prepare, convert",
        ),
        (
            "--verison",
            "error: there is no option '--verison'. "
            "Commands: run, ablation, dashboard, components, generate, evaluate, listen, prepare, convert",
        ),
    ],
)
def test_an_unknown_command_gets_a_hint(typed, message, capsys):
    assert main([typed]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_help_imports_nothing_heavy():
    heavy = "torch numpy gin mlflow diffusers transformers librosa madmom av cv2 matplotlib".split()
    code = "import sys, stav2a.cli.main; stav2a.cli.main.main(['--help']); "
    code += f"sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    assert shell("-c", code).stderr.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_parser_that_bears_its_name(name):
    module = importlib.import_module(COMMANDS[name].module)
    assert callable(module.main)
    assert module.build_parser().prog == f"stav2a {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: stav2a {name}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_module_are_the_same(name):
    command, module = shell("-m", "stav2a", name, "--help"), shell("-m", f"stav2a.{name}", "--help")
    assert command.returncode == module.returncode == 0
    assert command.stdout == module.stdout != ""


class ClipError(UsageError):
    pass


class PluginError(RuntimeError):
    exit_code = 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no run at runs/x"), 2),
        (ClipError("no such clip"), 2),
        (PluginError("no such plugin"), 2),
        (PermissionError(13, "Permission denied", "out"), 1),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(error, code, capsys):
    def main(argv):
        raise error

    assert guarded(main)([]) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_error_kind_of_this_package_is_expected():
    assert exit_code(MediaError("not a video")) == 1
    assert exit_code(RecipeError("no such recipe")) == 2


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("shapes differ"), AssertionError()])
def test_a_bug_keeps_its_traceback(error):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        guarded(main)([])


def test_the_traceback_can_be_had(monkeypatch):
    def main(argv):
        raise UsageError("no run")

    monkeypatch.setenv("STAV2A_TRACEBACK", "1")
    with pytest.raises(UsageError):
        guarded(main)([])


def test_an_interrupt_is_no_crash(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert guarded(main)([]) == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_a_closed_pipe_is_quiet():
    code = "from stav2a.utils.errors import guarded\n"
    code += "@guarded\ndef main(argv):\n    [print('x' * 1000) for _ in range(10_000)]\nmain()"
    result = subprocess.run(
        f'{sys.executable} -c "$CODE" | head -1',
        shell=True,
        capture_output=True,
        text=True,
        env={"CODE": code, "PATH": "/usr/bin:/bin"},
    )
    assert result.stderr == ""
