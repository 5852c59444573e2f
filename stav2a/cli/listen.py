"""`stav2a listen`, which is `python -m stav2a listen`: a blind listening test, and its table."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stav2a.cli import options
from stav2a.utils.errors import SUCCESS, UsageError, guarded

if TYPE_CHECKING:
    from stav2a.listening.setup import ListeningTest


MAX_SEED = 2**32 - 1
CLIPS = 20  # the paper's
EPILOG = """examples:
  stav2a listen --systems gt=sounds/gt mine=sounds/mine --clips 20 --output test
  stav2a listen --systems gt=wavs/gt mine=wavs/mine --videos clips --clips 20 --output test
  stav2a listen --report test

Each DIR holds a system's clips as mp4 with its sound; clips are paired by file name. With --videos the
folders may hold wavs, and all sounds are put on the same picture. The same command goes on where the test
stopped.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = options.command(
        "listen",
        "Rate the sound of several systems blindly, on a page of this machine, and make a table of it.",
        EPILOG,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--systems", nargs="+", type=options.pair, metavar="NAME=DIR", help="what is compared, blindly"
    )
    what.add_argument("--report", type=Path, metavar="DIR", help="make the table of the test in DIR")
    add("--output", type=Path, metavar="DIR", help="holds the test and its ratings; made if need be")
    add(
        "--clips",
        type=options.whole(1, 10_000),
        default=CLIPS,
        metavar="N",
        help=f"clips to rate, drawn from those that all systems have (default: {CLIPS}, the paper's)",
    )
    add(
        "--seed",
        type=options.whole(0, MAX_SEED),
        default=0,
        metavar="S",
        help="of the draw and the order (default: 0)",
    )
    add("--videos", type=Path, metavar="DIR", help="put all sounds on the mp4s of this folder")
    add("--port", type=options.whole(1, 65535), default=8765, metavar="P", help="default: 8765")
    add(
        "--tracking-uri",
        metavar="URI",
        help="also log the table to this MLflow store (default: $MLFLOW_TRACKING_URI, else it is not logged)",
    )
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Serve a test until Ctrl-C, or report on one."""
    arguments = build_parser().parse_args(argv)
    for option in ("output", "videos") if arguments.report else ("tracking_uri",):
        if getattr(arguments, option):
            used = "--report" if arguments.report else "--systems"
            print(f"warning: --{option.replace('_', '-')} has no effect with {used}.", file=sys.stderr)
    return _report(arguments) if arguments.report else _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.output is None:
        raise UsageError("--output is missing: name the folder that shall hold the test.")
    from stav2a.listening.material import named_once
    from stav2a.listening.server import PageServer
    from stav2a.listening.setup import ListeningSettings, begin_or_resume
    from stav2a.utils.files import check_writable
    from stav2a.utils.network import check_free

    systems = named_once([(name, Path(folder)) for name, folder in arguments.systems])
    check_free(arguments.port)
    check_writable(arguments.output)
    settings = ListeningSettings(systems, arguments.clips, arguments.seed, arguments.videos)
    test, remarks = begin_or_resume(arguments.output, settings)
    for remark in remarks:
        print(remark, file=sys.stderr)
    with PageServer(test, arguments.port) as server:
        print(_where(test, server.address), flush=True)
        server.serve_forever()
    return SUCCESS


def _where(test: "ListeningTest", address: str) -> str:
    return (
        f"{len(test.clips)} clips through {len(test.systems)} systems, {len(test.videos)} videos to rate\n"
        f"open {address} in a browser (Ctrl-C ends; the same command goes on)\n"
        f"the table: stav2a listen --report {test.folder}"
    )


def _report(arguments: argparse.Namespace) -> int:
    from stav2a.experiments.tracking import connect
    from stav2a.listening.ratings_report import write_report
    from stav2a.listening.setup import load

    test = load(arguments.report)
    uri = arguments.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "none"
    with connect(uri, test.folder, experiment="listening", run_name=test.folder.resolve().name) as tracker:
        print(write_report(test, tracker, shutil.get_terminal_size((110, 24)).columns))
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
