"""`stav2a listen`: a blind listening test, and its table."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from stav2a.cli.options import Overwrite, Pair, pair
from stav2a.utils.errors import MAX_SEED, SUCCESS, UsageError, printable

CLIPS = 20  # the paper's

EXAMPLES = """
  stav2a listen --systems gt=sounds/gt mine=sounds/mine --clips 20 --output test
  stav2a listen --systems gt=wavs/gt mine=wavs/mine --videos clips --clips 20 --output test
  stav2a listen --report test

Each DIR holds a system's clips as mp4 with its sound; clips are paired by file name. With --videos the
folders may hold wavs, and all sounds are put on the same picture. The same command goes on where the test
stopped.
"""


def listen(
    systems: Annotated[
        list[Pair],
        Option(parser=pair, metavar="NAME=DIR ...", help="the systems to compare, blindly"),
    ] = [],
    report: Annotated[Path | None, Option(metavar="DIR", help="make the table of the test in DIR")] = None,
    output: Annotated[
        Path | None, Option(metavar="DIR", help="holds the test and its ratings; made if need be")
    ] = None,
    clips: Annotated[
        int,
        Option(min=1, max=10_000, metavar="N", help="clips to rate, drawn from those that all systems have"),
    ] = CLIPS,
    seed: Annotated[
        int, Option(min=0, max=MAX_SEED, metavar="S", help="seed of the draw and of the order")
    ] = 0,
    videos: Annotated[
        Path | None, Option(metavar="DIR", help="put all sounds on the mp4s of this folder")
    ] = None,
    port: Annotated[int, Option(min=1, max=65535, metavar="P", help="port of the page")] = 8765,
    overwrite: Overwrite = False,
    tracking_uri: Annotated[
        str | None,
        Option(
            metavar="URI",
            help="also log the table to this MLflow store (default: $MLFLOW_TRACKING_URI, else nowhere)",
        ),
    ] = None,
) -> int:
    """Rate the sound of several systems blindly, on a page of this machine, and make a table of it."""
    if bool(systems) == (report is not None):
        raise UsageError("give either --systems NAME=DIR ..., to rate them, or --report DIR.")
    if report is not None:
        _warn_unused("--report", {"--output": output, "--videos": videos})
        return _report(report, tracking_uri)
    _warn_unused("--systems", {"--tracking-uri": tracking_uri})
    if output is None:
        raise UsageError("--output is missing: name the folder that shall hold the test.")
    from stav2a.listening.ratings_report import FILES
    from stav2a.listening.server import PageServer
    from stav2a.listening.setup import COPIES, begin_or_resume, unique_systems
    from stav2a.utils.files import check_replaced, check_writable
    from stav2a.utils.network import check_free
    from stav2a.utils.program import command

    named = unique_systems([(name, Path(folder)) for name, folder in systems])
    check_free(port)
    check_replaced(output, [COPIES, *FILES], ".lock", overwrite=overwrite)
    check_writable(output)
    test, remarks = begin_or_resume(output, named, clips=clips, seed=seed, videos=videos)
    for remark in remarks:
        print(printable(remark), file=sys.stderr)
    server = PageServer(test, port)
    print(
        f"{len(test.clips)} clips through {len(test.systems)} systems, "
        f"{len(test.videos)} videos to rate\n"
        f"open {server.address} in a browser (Ctrl-C ends; the same command goes on)\n"
        f"the table: {printable(command('listen', '--report', test.folder))}",
        flush=True,
    )
    server.serve_forever()
    return SUCCESS


def _warn_unused(mode: str, given: dict[str, object]) -> None:
    for option, value in given.items():
        if value:
            print(f"warning: {option} has no effect with {mode}.", file=sys.stderr)


def _report(folder: Path, tracking_uri: str | None) -> int:
    from stav2a.experiments.tracking import connect
    from stav2a.listening.ratings_report import write_report
    from stav2a.listening.setup import load

    test = load(folder)
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "none"
    with connect(uri, test.folder, experiment="listening", run_name=test.folder.resolve().name) as tracker:
        print(write_report(test, tracker, shutil.get_terminal_size((110, 24)).columns))
    return SUCCESS
