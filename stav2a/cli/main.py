"""The program `stav2a`: its commands, each a function of its module's name, with EXAMPLES."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer import Option

from stav2a import __version__, run
from stav2a.cli import (
    ablation,
    components,
    convert,
    dashboard,
    demo,
    evaluate,
    export,
    fetch,
    generate,
    listen,
    new,
    prepare,
)
from stav2a.cli.options import register
from stav2a.utils.shipped import doc

MODULES = (
    run,
    ablation,
    dashboard,
    components,
    new,
    generate,
    demo,
    evaluate,
    listen,
    prepare,
    export,
    fetch,
    convert,
)
COMMANDS = {module.__name__.rpartition(".")[2]: module for module in MODULES}

app = typer.Typer(
    name="stav2a",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"stav2a COMMAND --help explains one command, with examples. Documentation: {doc('index.md')}",
)
for name, module in COMMANDS.items():
    register(app, name, getattr(module, name), module.EXAMPLES)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"stav2a {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Sound for silent video: train, compare and use STA-V2A, every part swappable by recipe."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 asked for in a wrong way, 130 stopped."""
    if hasattr(sys.stdout, "reconfigure"):  # a terminal of another encoding, a name that is no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=None if argv is None else list(argv), prog_name="stav2a")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
