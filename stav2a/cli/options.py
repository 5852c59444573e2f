"""What the commands' options have in common: one name, one meaning, one default."""

import argparse
from collections.abc import Callable
from pathlib import Path


def command(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """The parser of `stav2a NAME`; the examples stand below its help as they are written."""
    return argparse.ArgumentParser(
        prog=f"stav2a {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_binding(parser: argparse.ArgumentParser, what: str) -> None:
    """`--bind`, repeatable."""
    parser.add_argument(
        "--bind", action="append", default=[], metavar="'X.Y = 1'", help=f"{what}; may be repeated"
    )


def add_output(parser: argparse.ArgumentParser, holds: str) -> None:
    """`--output`, where everything lies that commands leave."""
    parser.add_argument(
        "--output", type=Path, default=Path("runs"), metavar="DIR", help=f"{holds} (default: runs)"
    )


def add_tracking_uri(parser: argparse.ArgumentParser, more: str = "") -> None:
    """`--tracking-uri`, see `tracking.connect`."""
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help=f"MLflow store (default: $MLFLOW_TRACKING_URI, else OUTPUT/mlflow.db){more}",
    )


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number.

    Example:
        >>> whole(1, 9)("7")
        7
    """

    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return number


def pair(text: str) -> tuple[str, str]:
    """The type of an option NAME=VALUE.

    Example:
        >>> pair("row=CN = 1")
        ('row', 'CN = 1')
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, was given {text!r}")
    return name, value
