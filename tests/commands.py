"""The command line as tests use it."""

from collections.abc import Sequence
from typing import Any

import typer

from stav2a.cli.main import app

PROGRAM: Any = typer.main.get_command(app)


def parse(name: str, arguments: Sequence[str]) -> Any:
    """Parse the arguments of a command without running it; an error of usage is raised as typer has it."""
    return PROGRAM.commands[name].make_context(name, list(arguments))
