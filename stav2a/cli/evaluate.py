"""`stav2a evaluate`, which is `python -m stav2a evaluate`: score any system's sounds beside the real ones."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from stav2a.cli import options
from stav2a.evaluation.scores import figures, per_clip
from stav2a.experiments.tracking import connect, environment
from stav2a.reports.folder_report import EvaluationTables, crop_in_figures
from stav2a.utils.errors import SUCCESS, UsageError, guarded

EXPERIMENT = "evaluation"


def track(uri: str | None, folder: Path, tables: EvaluationTables, files: Sequence[Path]) -> str:
    """Log figures, values per clip and files.

    Args:
        uri: See `tracking.connect`.
        folder: Of the evaluation; its name is the run's.
        tables: The figures.
        files: To keep with the run.

    Returns:
        Where it can be seen.

    Raises:
        AddressError: The address is misspelt.
        TrackingError: Nothing answers there, or it can't be written.
    """
    with connect(uri, folder, experiment=EXPERIMENT, run_name=folder.resolve().name) as tracker:
        tracker.log_params({f"version.{name}": value for name, value in environment().items()})
        for crop, rows in tables.evaluated.scores.items():
            at = crop_in_figures(crop)
            tracker.log_params({f"clips.{at}": len(tables.evaluated.ids[crop])})
            for row, scores in rows.items():
                values = figures(scores)
                tracker.log_metrics({f"{row}/{at}/{name}": value for name, value in values.items()})
                tracker.log_params(
                    {f"{row}/{at}/{s.name}": s.definition for s in scores if not s.unavailable}
                )
                tracker.log_table(per_clip(scores), f"per_clip/{row}-{at}.json")
        for file in files:
            tracker.log_artifact(file)
        return tracker.where()


RESERVED = ("reference", "real sound")
EPILOG = """examples:
  stav2a evaluate --references real --generated ours=out/ours --captions captions.csv
  stav2a evaluate --references real --generated A=out/a B=out/b --duration 4 --duration 8 --released
  stav2a evaluate --references real --generated ours=out/ours --metrics aa_align av_align_released

A clip is a file of one name in every folder: a.wav with a.mp4. Sounds may be wav, flac, mp3, m4a, ogg, or
films with sound. What can't be scored is told, with the reason, in left_out.csv. What was heard once is kept
in DIR/heard by the files' contents: the same command again takes seconds.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = options.command(
        "evaluate", "Score folders of generated sounds against folders of real ones.", EPILOG
    )
    add = parser.add_argument
    add("--references", type=Path, required=True, metavar="DIR", help="the real sounds, or films with them")
    add(
        "--generated",
        nargs="+",
        action="extend",
        type=options.pair,
        required=True,
        metavar="NAME=DIR",
        help="a system's sounds; several may be given",
    )
    add("--videos", type=Path, metavar="DIR", help="the films, for AV-Align (default: the references)")
    add("--captions", type=Path, metavar="CSV", help="columns id and caption, for CLAP")
    add(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="registered metrics, or NAME_released for the paper's form (default: the paper's eight)",
    )
    add(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="published weights of FD, FAD, KL, IS, PAM and CLAP (default: $STAV2A_WEIGHTS)",
    )
    add("--released", action="store_true", help="take the metrics in the form of the paper's tables")
    add(
        "--duration",
        action="append",
        type=_seconds,
        metavar="S",
        help="score the first S seconds; may be repeated (default: all that a clip's files have in common)",
    )
    add("--detector", metavar="NAME", help="another onset detector, such as superflux (default: librosa)")
    add("--flow", metavar="NAME", help="another optical flow, such as sparse_farneback (default: farneback)")
    add("--baseline", metavar="NAME", help="the system that others are compared with (default: the first)")
    add(
        "--output", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="default: runs/evaluation"
    )
    options.add_tracking_uri(parser, "; none tracks nothing")
    add("--workers", type=options.whole(1, 64), metavar="N", help="processes (default: one a core)")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Score, write the tables, and print the first of them."""
    arguments = build_parser().parse_args(argv)
    systems = _systems(arguments.generated)
    baseline = _baseline(arguments.baseline, list(systems))
    from stav2a import registry  # not above, so that help comes at once
    from stav2a.evaluation.folders import pairing
    from stav2a.evaluation.folders.systems import PAPERS, build, released, score
    from stav2a.metrics.judges.judge import looked_for_in
    from stav2a.reports import folder_report
    from stav2a.utils.files import check_writable

    registry.load()
    check_writable(arguments.output)
    names = arguments.metrics or [*PAPERS, "kad"]
    with looked_for_in(arguments.weights_dir):
        metrics = build(
            released(names) if arguments.released else names,
            detector=arguments.detector,
            flow=arguments.flow,
        )
    clips, unpaired = pairing.pair(
        arguments.references, systems, videos=arguments.videos, captions=arguments.captions
    )
    found = score(
        clips,
        list(metrics.values()),
        crops=arguments.duration or [None],
        unpaired=unpaired,
        cache=arguments.output / "heard",
        workers=arguments.workers,
    )
    named = {name: metric.reporter.name for name, metric in metrics.items()}
    made = folder_report.tabulate(found, named, baseline=baseline)
    files = [
        *folder_report.write(arguments.output, made),
        folder_report.write_page(arguments.output, made, clips),
    ]
    track(arguments.tracking_uri, arguments.output, made, files)
    print(made.text())
    print("\n".join(str(file) for file in files))
    return SUCCESS


def _systems(given: Sequence[tuple[str, str]]) -> dict[str, Path]:
    """System -> folder."""
    systems = {name: Path(folder) for name, folder in given}
    if len(systems) < len(given):
        raise UsageError("two systems have one name. Give each a name of its own.")
    for name in systems:
        if name in RESERVED or not re.fullmatch(r"[\w .+&-]+", name):
            raise UsageError(
                f"a system is named {name!r}. Take letters, digits, spaces and any of . + & - _ for it, and "
                f"neither {' nor '.join(RESERVED)}."
            )
    return systems


def _baseline(given: str | None, systems: Sequence[str]) -> str:
    if given is not None and given not in systems:
        raise UsageError(f"--baseline {given} is no system. The systems are: {', '.join(systems)}.")
    return given or systems[0]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value
