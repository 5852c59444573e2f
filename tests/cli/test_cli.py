"""The command line: its commands, options and exit codes, help that teaches, nothing heavy on the way."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import stav2a
from stav2a.cli import options
from stav2a.cli.main import COMMANDS, main
from stav2a.cli.options import guarded
from stav2a.data.media import MediaError
from stav2a.recipe import RecipeError
from stav2a.utils.errors import UsageError, exit_code
from tests.commands import PROGRAM, parse

# What users type: `!` is required, `*` may be repeated, `+` takes several values, `?` may be left out.
INTERFACE = {
    "run": "--gin!* --bind* --output --jobs --tracking-uri --experiment --run-name --tag* --attach* "
    "--untracked* --check --strict --trust-recipe",
    "ablation": "--gin* --report --bind* --seeds+ --jobs --gpus-a-run --plan --again --output "
    "--tracking-uri --cluster --slurm* --trust-recipe",
    "dashboard": "study? --output --tracking-uri --port",
    "components": "what? --json",
    "new": "kind name --slot --output",
    "generate": "videos+ --output! --run --model --prompt --negative-prompt --seed --steps --guidance "
    "--device --keep-sound --gain --own-gain --duck --loudness --sample-rate --no-speech --no-music "
    "--variants --rank-by --shots --reencode --overwrite --trust-recipe",
    "demo": "--run* --model* --device --port --host --trust-recipe",
    "evaluate": "--references! --generated!+ --videos --captions --metrics+ --preset --gin* --bind* "
    "--weights-dir --device --released --duration* --detector --flow --baseline --output --overwrite "
    "--tracking-uri --workers --jobs --trust-recipe",
    "listen": "--systems+ --report --output --clips --seed --videos --port --overwrite --tracking-uri",
    "prepare": "--manifest! --videos! --output! --captions --split --validation --test --engine "
    "--workers --gin* --bind* --run --without* --retry-failed --shard-clips --export --trust-recipe",
    "export": "--run! --output --push --public --merge --trust-recipe",
    "fetch": "name? --output --accept-licence",
    "convert": "kind --checkpoint!+ --output! --unet --leave-out* --scale-factor",
}


NUMBERS = """ablation --jobs
run --jobs
ablation --seeds
convert --scale-factor
dashboard --port
demo --port
evaluate --duration
evaluate --workers
generate --guidance
generate --seed
generate --steps
listen --clips
listen --port
listen --seed
prepare --shard-clips
prepare --validation
prepare --test
prepare --workers"""


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def declared(parameter: Any) -> str:
    """A parameter of a command as `INTERFACE` writes it."""
    if parameter.param_type_name == "argument":
        return parameter.name + ("+" if parameter.nargs == -1 else "" if parameter.required else "?")
    option = max(parameter.opts, key=len)
    several = "+" if option in options.SEVERAL else "*"
    return option + "!" * parameter.required + (several if parameter.multiple else "")


@pytest.mark.parametrize("name", INTERFACE)
def test_the_options_of_a_command(name):
    assert " ".join(declared(each) for each in PROGRAM.commands[name].params) == INTERFACE[name]


@pytest.mark.parametrize(("command", "option"), [line.split() for line in NUMBERS.splitlines()])
@pytest.mark.parametrize("value", ["-1e300", "1e300", "99999999999999999999", "nan"])
def test_numbers_have_bounds(command, option, value, capsys):
    assert main([command, f"{option}={value}"]) == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


def test_there_are_these_commands():
    assert list(COMMANDS) == list(PROGRAM.commands) == list(INTERFACE)


def test_options_of_several_values_take_them_at_once():
    given = parse("ablation", ["--gin", "a.gin", "--seeds", "0", "1", "2", "--bind", "x.y = 1", "--plan"])
    assert given.params["seeds"] == [0, 1, 2] and given.params["plan"] is True
    once_more = parse("ablation", ["--gin", "a.gin", "--seeds", "0", "--seeds", "1"])
    assert once_more.params["seeds"] == [0, 1]
    with pytest.raises(typer.BadParameter, match="greater than or equal to 0"):  # a value, and no option
        parse("ablation", ["--gin", "a.gin", "--seeds", "0", "-2"])


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(flag, capsys):
    assert main([flag]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_examples(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: stav2a {name}" in text
    first = COMMANDS[name].EXAMPLES.strip().splitlines()[0]
    assert first in text and (f"stav2a {name}" in first or f"-m stav2a.{name}" in first)


def test_no_command_shows_the_help_as_an_error(capsys):
    assert main([]) == 2
    assert "Usage: stav2a" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stav2a {stav2a.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("rnu", "No such command 'rnu'. Did you mean 'run'?"),
        ("zzz", "No such command 'zzz'."),
        ("--verison", "No such option: --verison (Possible options: --version)"),
    ],
)
def test_an_unknown_command_gets_a_hint(typed, message, capsys):
    assert main([typed]) == 2
    assert message in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    heavy = "torch numpy gin mlflow diffusers transformers librosa madmom av cv2 matplotlib pandas".split()
    code = "import sys; from stav2a.cli.main import main\n"
    code += f"for name in {list(COMMANDS)}: main([name, '--help'])\n"
    code += f"sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    assert shell("-c", code).stderr.strip() == "[]"


@pytest.mark.slow
def test_the_front_door_is_the_command():
    command, module = shell("-m", "stav2a", "run", "--help"), shell("-m", "stav2a.run", "--help")
    assert command.returncode == module.returncode == 0
    assert command.stdout == module.stdout != ""


class ClipError(UsageError):
    pass


class PluginError(RuntimeError):
    exit_code = 2


def code_of(error: BaseException) -> int:
    """The exit code of a command that fails by this error."""

    def command() -> int:
        raise error

    with pytest.raises(typer.Exit) as end:
        guarded(command)()
    return end.value.exit_code


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
    assert code_of(error) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_error_kind_of_this_package_is_expected():
    assert exit_code(MediaError("not a video")) == 1
    assert exit_code(RecipeError("no such recipe")) == 2


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("shapes differ"), AssertionError()])
def test_a_bug_keeps_its_traceback(error):
    def command() -> int:
        raise error

    with pytest.raises(type(error)):
        guarded(command)()


def test_the_traceback_can_be_had(monkeypatch):
    def command() -> int:
        raise UsageError("no run")

    monkeypatch.setenv("STAV2A_TRACEBACK", "1")
    with pytest.raises(UsageError):
        guarded(command)()


def test_an_interrupt_is_no_crash(capsys):
    assert code_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_a_closed_pipe_is_quiet():
    result = subprocess.run(
        f"{sys.executable} -m stav2a components --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stderr == "" and result.stdout.strip() == "{"


def test_a_full_disk_under_the_standard_output_is_named():
    command = f"{sys.executable} -m stav2a components --json > /dev/full"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == (
        "error: the standard output can't be written (No space left on device): what was printed is lost. "
        "What was made is kept; the same command prints it again.\n"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_tables_are_printed_in_any_locale(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    code = "from stav2a.cli.main import main; main(['--version']); print('KAD \\u2193')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**environment, "PYTHONCOERCECLOCALE": "0"}
    )
    assert done.returncode == 0 and b"KAD \\u2193" in done.stdout


def test_texts_are_read_in_utf_8_whatever_the_locale():
    for path in sorted(Path(stav2a.__file__).parent.rglob("*.py")):
        assert ".read_text()" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "recipes/cn.gin"], "recipes/cn.gin: write --gin recipes/cn.gin"),
        (["run", "--gin", "recipes/cn.gin", "scale/smoke.gin"], "write --gin scale/smoke.gin"),
        (["run", "--gin", "cn", "--check"], "Did you mean cn.gin? Known: "),
        (["run", "--gin", "recipes/cn_onset", "--check"], "Did you mean recipes/cn_onset.gin? Known: "),
    ],
)
def test_a_recipe_given_in_a_wrong_way_is_told_the_right_one(arguments, told, capsys):
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_the_settings_of_a_run_are_listed(capsys):
    assert main(["components", "run"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "  classifier: Callable[..., Any] | None  (required)",
        "  num_inference_steps: int = 200",
        "      Weight w of the text in eq. 7.",
    ):
        assert line in shown.splitlines()


def test_what_a_component_requires_is_shown_first(capsys):
    assert main(["components", "dataset.manifest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("Parameters:") + 1] == "  file: str  (required)"
    written = lines.index("In a recipe:")
    assert lines[written + 2 : written + 4] == [
        "  dataset.manifest.file = '...'",
        "  dataset.manifest.videos = None",
    ]
    assert main(["components", "local_head.onset"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("  in_dim: int  (supplied by the assembly)") > lines.index(
        "  windows: tuple[int, ...] = (1, 2, 4, 8)"
    )
