"""What a command says, and returns, when something goes wrong.

An *expected* error is a mistake of the input or of the machine, and is told in the words of whoever raised
it, without a traceback: every `ValueError` kind that this package defines, every error with an `exit_code`
of its own (for plugins), and every `OSError`. All else is a bug, and keeps its traceback.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Sequence

SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130

# By name, so that telling an error imports nothing.
USAGE_ERRORS = frozenset({"UsageError", "RecipeError", "RegistryError"})
Main = Callable[..., int]  # main(argv: Sequence[str] | None = None) -> exit code


class UsageError(ValueError):
    """The command was asked for something that cannot be: an unknown name, a missing file, a wrong value."""


def exit_code(error: BaseException) -> int | None:
    """The exit code of an expected error; None for a bug.

    Example:
        >>> exit_code(UsageError("no such run")), exit_code(FileNotFoundError("x")), exit_code(KeyError("x"))
        (2, 1, None)
    """
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    ours = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("stav2a.")}
    if ours & USAGE_ERRORS:
        return USAGE
    told = isinstance(error, OSError) or (isinstance(error, ValueError) and ours)
    return FAILURE if told else None


def told(error: BaseException) -> str:
    """The error's own words, without those that gin adds of where a component was called.

    Example:
        >>> told(UsageError("no such run\\n  In call to configurable 'cavp' (<class 'CAVP'>)"))
        'no such run'
    """
    return re.sub(r"\n  In call to configurable .*", "", str(error))


def guarded(main: Main) -> Main:
    """Turn expected errors of a command's `main` into one `error: …` on stderr, and an exit code.

    With STAV2A_TRACEBACK=1 in the environment errors keep their traceback: for the authors of components.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # the reader of our output (head, less) has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILURE
        except Exception as error:
            code = exit_code(error)
            if code is None or os.environ.get("STAV2A_TRACEBACK") == "1":
                raise
            print(f"error: {told(error)}", file=sys.stderr)
            return code

    return run
