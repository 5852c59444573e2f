"""Options that several commands share (one name, one meaning, one default), and how a command ends.

A command is a function with annotated parameters that returns an exit code; `register` adds it.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer import Option
from typer.core import TyperCommand

from stav2a.utils.errors import FAILURE, INTERRUPTED, StaV2AError, exit_code, printable

SEVERAL = {"--checkpoint", "--generated", "--metrics", "--seeds", "--systems"}  # `--seeds 0 1 2`


class Pair(NamedTuple):
    """A name and a value, written NAME=VALUE."""

    name: str
    value: str


def pair(text: str) -> Pair:
    """Parse NAME=VALUE.

    Example:
        >>> pair("row=CN = 1")
        Pair(name='row', value='CN = 1')
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"expected NAME=VALUE, was given {text!r}")
    return Pair(name, value)


def number(fits: Callable[[float], bool], expected: str) -> Callable[[str], float]:
    """Parser of a number that `fits`; nan never does."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if fits(float(text)):
                return float(text)
        raise typer.BadParameter(f"{text!r} is no {expected}")

    return parse


Bind = Annotated[list[str], Option(metavar="'X.Y = 1'", help="override one parameter; may be repeated")]
Output = Annotated[Path, Option(metavar="DIR", help="run folders, store, tracking and reports")]
TrackingUri = Annotated[
    str | None,
    Option(
        metavar="URI",
        help="MLflow store, or none (default: $MLFLOW_TRACKING_URI, else OUTPUT/mlflow.db)",
    ),
]
Overwrite = Annotated[bool, Option("--overwrite", help="replace files that are there already")]
TrustRecipe = Annotated[bool, Option("--trust-recipe", help="let recipes import any module")]


class Command(TyperCommand):
    """A command whose options of `SEVERAL` take all their values at once, and whose recipes need `--gin`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(parameter.name == "gin" for parameter in self.params):
            for before, word in zip(["", *args], args, strict=False):
                if word.endswith(".gin") and not before.startswith("-"):
                    raise typer.BadParameter(f"{word}: write --gin {word}", ctx)
        return super().parse_args(ctx, list(_one_by_one(args)))


def _one_by_one(words: Sequence[str]) -> Iterator[str]:
    """The words with the option's name before each of its values.

    Example:
        >>> list(_one_by_one(["--seeds", "0", "1", "--plan"]))
        ['--seeds', '0', '--seeds', '1', '--plan']
    """
    option, values = "", 0
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d+", word):
            option, values = (word if word in SEVERAL else ""), 0
        elif option:
            values += 1
            if values > 1:
                yield option
        yield word


def register(app: typer.Typer, name: str, function: Callable[..., int], examples: str) -> None:
    """Add a command to the program, with the examples as written below its help.

    The function's docstring is the help, its annotated parameters are the arguments; it returns an exit code.
    """
    paragraphs = "\n\n".join(f"\b\n{part}" for part in f"examples:\n{examples}".strip("\n").split("\n\n"))
    app.command(name, cls=Command, epilog=paragraphs)(guarded(function))


def _output_fault(more: str = "") -> Exception | None:
    """Fault of the standard output, to which all that was printed is written; None where there is none."""
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except BrokenPipeError as error:
        return error
    except OSError as error:
        _drop_output()
        message = f"the standard output can't be written ({error.strerror}): what was printed is lost."
        return StaV2AError(message, advice="What was made is kept; the same command prints it again.")
    return None


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def guarded(function: Callable[..., int]) -> Callable[..., None]:
    """Turn expected errors of a command into one `error: …` on stderr, and all ends into exit codes.

    With STAV2A_TRACEBACK=1 in the environment errors keep their traceback, for authors of components.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = function(*args, **kwargs)
            if fault := _output_fault():
                raise fault
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            code = INTERRUPTED
        except BrokenPipeError:  # the reader of our output (head, less) has left
            _drop_output()
            code = FAILURE
        except Exception as error:
            if isinstance(error, OSError) and not error.filename:  # perhaps of a print: one more will tell
                error = _output_fault("\n") or error
            expected = exit_code(error)
            if expected is None or os.environ.get("STAV2A_TRACEBACK") == "1":
                raise
            print("\n".join(map(printable, f"error: {error}".split("\n"))), file=sys.stderr)
            code = expected
        raise typer.Exit(code)

    return run
