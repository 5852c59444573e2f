"""The command `stav2a`: `stav2a X …` is `python -m stav2a.X …`.

Nothing but the command asked for is imported, so help comes at once.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from stav2a import __version__
from stav2a.utils.errors import SUCCESS, USAGE, UsageError, guarded


@dataclass(frozen=True)
class Command:
    """One sub-command: the module with its `main(argv)` and `build_parser()`, and two lines of help."""

    module: str
    summary: str
    example: str


COMMANDS: dict[str, Command] = {
    "run": Command(
        "stav2a.run",
        "Train, sample, evaluate and track what a recipe describes.",
        "stav2a run --gin recipes/cn_onset_gvf.gin",
    ),
    "ablation": Command(
        "stav2a.cli.ablation",
        "Run the rows of a study over several seeds, and compare them.",
        "stav2a ablation --gin ablations/table3.gin",
    ),
    "dashboard": Command(
        "stav2a.cli.dashboard",
        "Open MLflow's pages of what was tracked, at a study.",
        "stav2a dashboard table3",
    ),
    "components": Command(
        "stav2a.cli.components",
        "List what can be put into each slot, or explain one component.",
        "stav2a components local_head.onset",
    ),
    "generate": Command(
        "stav2a.cli.generate",
        "Put sound on videos with a finished run.",
        "stav2a generate clip.mp4 --run RUN_DIR --output sounds",
    ),
    "evaluate": Command(
        "stav2a.cli.evaluate",
        "Score any system's sounds, from folders, against the real ones.",
        "stav2a evaluate --references real --generated ours=sounds",
    ),
    "listen": Command(
        "stav2a.cli.listen",
        "Rate the sound of several systems blindly, and make a table of it.",
        "stav2a listen --systems gt=sounds/gt mine=sounds/mine --clips 20 --output test",
    ),
    "prepare": Command(
        "stav2a.cli.prepare",
        "Turn videos into a dataset: filtered, labelled, encoded, cached.",
        "stav2a prepare --manifest vggsound.csv --videos clips --output data/vggsound",
    ),
    "convert": Command(
        "stav2a.cli.convert",
        "Make the folders of weights that components load out of published checkpoints.",
        "stav2a convert cavp --checkpoint cavp_epoch66.ckpt --output checkpoints/cavp",
    ),
}


def help_text() -> str:
    """What `stav2a --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: stav2a COMMAND [ARGUMENTS]",
        "",
        "Sound for silent video: train, compare and use STA-V2A, every part swappable by recipe.",
        "",
        "commands:",
    ]
    for name, command in COMMANDS.items():
        lines += [f"  {name:{width}}  {command.summary}", f"  {'':{width}}  $ {command.example}"]
    lines += [
        "",
        "options:",
        "  -h, --help  Show this text; `stav2a COMMAND --help` explains one command.",
        "  --version   Show the version.",
    ]
    return "\n".join(lines)


def find(name: str) -> Command:
    """The command of this name.

    Raises:
        UsageError: There is none; names the nearest.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    kind = "option" if name.startswith("-") else "command"
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"there is no {kind} {name!r}.{hint} Commands: {', '.join(COMMANDS)}; see stav2a --help."
    )


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code: 0 done, 1 failed, 2 asked for in a wrong way."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(help_text(), file=sys.stderr)
        return USAGE
    name, *rest = arguments
    if name in ("-h", "--help", "--version"):
        print(f"stav2a {__version__}" if name == "--version" else help_text())
        return SUCCESS
    return importlib.import_module(find(name).module).main(rest)


if __name__ == "__main__":
    sys.exit(main())
