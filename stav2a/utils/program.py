"""Commands as they are printed: with the program's name by which they run in the user's shell."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def command(*words: str | Path) -> str:
    """A `stav2a` command that runs as it is printed, from the current folder.

    Example:
        >>> command("listen", "--report", "my test").endswith("listen --report 'my test'")
        True
    """
    return shlex.join([*_program(), *(nearby(word) if isinstance(word, Path) else word for word in words)])


def module_command(*words: str) -> str:
    """A command of a module of this environment, such as mlflow, whose program may not be on the path."""
    return shlex.join([nearby(Path(sys.executable)), "-m", *words])


def nearby(path: Path) -> str:
    """A path from the current folder where it lies below it, else as a whole."""
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole)


def _program() -> Sequence[str]:
    """`stav2a` where the shell finds this environment's; else its path, or the module."""
    beside = Path(sys.executable).with_name("stav2a")
    found = shutil.which("stav2a")
    if found is not None and Path(found).absolute() == beside.absolute():
        return ["stav2a"]
    return [nearby(beside)] if os.access(beside, os.X_OK) else [nearby(Path(sys.executable)), "-m", "stav2a"]
