"""The base of all errors that a user is meant to read, and how commands end with them.

An *expected* error is a mistake of the input or of the machine: every `StaV2AError`, every error with an
`exit_code` of its own (for plugins) and every `OSError`. Commands print it in one `error: …` line or block,
without a traceback. All else is a bug, and keeps its traceback.
"""

import math
from typing import ClassVar

MAX_SEED = 2**32 - 1  # of NumPy
MAX_GUIDANCE = 1000.0  # far above any use; numbers without end give NaN
MAX_STEPS = 999  # one less than the noise levels: spread over all 1000, diffusers' steps leave the table
SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130


def printable(text: object) -> str:
    r"""Text on one line that any terminal and file takes: line ends and the like are written out.

    Example:
        >>> printable("two\nlines.mp4")
        'two\\nlines.mp4'
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return safe.encode("utf-8", "backslashreplace").decode()


class StaV2AError(ValueError):
    """An error with its facts as fields.

    Args:
        message: What came, and what was expected.
        place: The file and line at fault, where there is one.
        advice: What to do.
    """

    exit_code: ClassVar[int] = FAILURE
    separator: ClassVar[str] = " "

    def __init__(self, message: str, place: object = None, advice: str = "") -> None:
        super().__init__(message)
        self.message, self.place, self.advice = message, place, advice

    def __str__(self) -> str:
        parts = (self.message, str(self.place) if self.place else "", self.advice)
        return self.separator.join(part for part in parts if part)


class UsageError(StaV2AError):
    """The command was asked for something that cannot be: an unknown name, a missing file, a wrong value."""

    exit_code = USAGE


def check_bounds(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number outside of its bounds, and one that is none.

    Raises:
        UsageError: With the bounds.

    Example:
        >>> check_bounds("run.seed", -1, 0)
        Traceback (most recent call last):
        stav2a.utils.errors.UsageError: run.seed = -1: expected 0 or more.
    """
    if not (least <= value <= most and math.isfinite(value)):
        expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise UsageError(f"{name} = {value}: expected {expected}.")


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not above 0, and one without end.

    Raises:
        UsageError: With the bound.

    Example:
        >>> check_positive("scheduler.flow_match_euler.shift", 0)
        Traceback (most recent call last):
        stav2a.utils.errors.UsageError: scheduler.flow_match_euler.shift = 0: expected more than 0.
    """
    if not 0 < value < math.inf:
        raise UsageError(f"{name} = {value}: expected more than 0.")


def exit_code(error: BaseException) -> int | None:
    """Exit code of an expected error; None for a bug.

    Example:
        >>> exit_code(UsageError("no such run")), exit_code(FileNotFoundError("x")), exit_code(KeyError("x"))
        (2, 1, None)
    """
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    return FAILURE if isinstance(error, OSError) else None
