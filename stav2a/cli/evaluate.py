"""`stav2a evaluate`: score any system's sounds beside the real ones."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from stav2a.cli.options import Bind, Overwrite, Pair, TrackingUri, TrustRecipe, number, pair
from stav2a.utils.errors import SUCCESS, UsageError, printable

if TYPE_CHECKING:
    from stav2a.evaluation.folders.systems import FolderScores

FEATURES = "heard"  # folder of features, which every evaluation leaves
SHORTEST_S, LONGEST_S = 0.03, 86_400.0  # one frame of a spectrogram; a day
RESERVED = ("reference", "real sound")

EXAMPLES = """
  stav2a evaluate --references real --generated ours=out/ours --captions captions.csv
  stav2a evaluate --references real --generated A=out/a B=out/b --duration 4 --duration 8 --released
  stav2a evaluate --references real --generated ours=out/ours --metrics aa_align av_align_released
  stav2a evaluate --references real --generated ours=out/ours --preset laptop --jobs 2
  torchrun --nproc-per-node 8 -m stav2a evaluate --references real --generated ours=out/ours
  stav2a evaluate --references real --generated ours=out/ours --metrics fd kad \
    --bind 'metric.fd.judge = @judge.yamnet' --bind 'metric.kad.judge = @judge.yamnet'

A clip is a file of one name in every folder: a.wav with a.mp4. Sounds may be wav, flac, mp3, m4a, ogg, or
films with sound. What can't be scored is listed in left_out.csv with the reason. Features are kept in
DIR/heard by the files' contents: the same command again takes seconds.
"""


def evaluate(
    references: Annotated[Path, Option(metavar="DIR", help="the real sounds, or films with them")],
    generated: Annotated[
        list[Pair],
        Option(parser=pair, metavar="NAME=DIR ...", help="a system's sounds; several may be given"),
    ],
    videos: Annotated[
        Path | None, Option(metavar="DIR", help="the films, for AV-Align (default: the references)")
    ] = None,
    captions: Annotated[Path | None, Option(metavar="CSV", help="columns id and caption, for CLAP")] = None,
    metrics: Annotated[
        list[str],
        Option(
            metavar="NAME ...",
            help="registered metrics, or NAME_released for the paper's form (default: the paper's eight)",
        ),
    ] = [],
    preset: Annotated[
        str | None, Option(metavar="NAME", help="a set of metrics: laptop, av_benchmark or stav2a_paper")
    ] = None,
    gin: Annotated[
        list[str],
        Option(
            metavar="FILE", help="binds evaluation.metrics, or parameters; several are laid over each other"
        ),
    ] = [],
    bind: Bind = [],
    weights_dir: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="published weights of the judges (default: $STAV2A_WEIGHTS)",
        ),
    ] = None,
    device: Annotated[
        str, Option(metavar="DEVICE", help="of the judges: auto, cpu, cuda or cuda:N; auto is the GPU if any")
    ] = "auto",
    released: Annotated[
        bool, Option("--released", help="take the metrics in the form of the paper's tables")
    ] = False,
    duration: Annotated[
        list[float],
        Option(
            parser=number(
                lambda value: SHORTEST_S <= value <= LONGEST_S,
                f"number of seconds from {SHORTEST_S:g} to {LONGEST_S:g}",
            ),
            metavar="S",
            help="score the first S seconds; may be repeated (default: what a clip's files have in common)",
        ),
    ] = [],
    detector: Annotated[
        str | None, Option(metavar="NAME", help="onset detector, such as superflux (default: librosa)")
    ] = None,
    flow: Annotated[
        str | None,
        Option(metavar="NAME", help="optical flow, such as sparse_farneback (default: farneback)"),
    ] = None,
    baseline: Annotated[
        str | None,
        Option(metavar="NAME", help="the system that others are compared with (default: the first)"),
    ] = None,
    output: Annotated[Path, Option(metavar="DIR", help="tables, page and features")] = Path(
        "runs/evaluation"
    ),
    overwrite: Overwrite = False,
    tracking_uri: TrackingUri = None,
    workers: Annotated[
        int | None, Option(min=1, max=64, metavar="N", help="processes (default: one a core)")
    ] = None,
    jobs: Annotated[
        int,
        Option(
            min=1, max=64, metavar="N", help="processes that share the judges' work too, each with its own"
        ),
    ] = 1,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Score folders of generated sounds against folders of real ones."""
    systems = _systems(generated)
    if baseline is not None and baseline not in systems:
        raise UsageError(f"--baseline {baseline} is no system. The systems are: {', '.join(systems)}.")
    from stav2a import registry  # not above, so that help comes at once
    from stav2a.evaluation.folders import pairing
    from stav2a.evaluation.folders.recipes import load_metrics
    from stav2a.evaluation.folders.systems import choose, extract_features, score
    from stav2a.metrics.judges.judge import judges_on, weights_in
    from stav2a.reports.folder_report import FILES, PAGE, FolderReport
    from stav2a.utils import distributed
    from stav2a.utils.files import check_replaced, check_writable
    from stav2a.utils.parallel import usable_cpus

    registry.load()
    distributed.device_named(device)  # refused now if it is not there
    processes = distributed.count()
    if processes > 1 and jobs > 1:
        raise UsageError(
            f"--jobs {jobs} in {processes} processes of torchrun.",
            advice="Leave --jobs out: they share the clips.",
        )
    check_replaced(output, [*FILES, PAGE, "clips"], FEATURES, overwrite=overwrite)
    check_writable(output)
    names, loaded = load_metrics(metrics, preset=preset, recipes=gin, bindings=bind, trust=trust_recipe)
    with weights_in(weights_dir), judges_on(device):
        chosen = choose(names, released=released, detector=detector, flow=flow, loaded=loaded)
    clips, unpaired = pairing.pair(references, systems, videos=videos, captions=captions)
    built, cache = [each.metric for each in chosen], output / FEATURES
    crops: list[float | None] = [*duration] or [None]
    if processes > 1:  # each leaves the features of its share in the cache, and the main one scores them all
        share = clips[distributed.rank() :: processes]
        at_most = workers or max(1, usable_cpus() // processes)
        extract_features(share, built, crops=crops, cache=cache, workers=at_most)
        distributed.wait()
        if not distributed.is_main():
            return SUCCESS
    found = score(clips, built, crops=crops, unpaired=unpaired, cache=cache, workers=workers, jobs=jobs)
    report = FolderReport(found, chosen, baseline=baseline or next(iter(systems)))
    files = report.write(output, clips)
    where = _track(tracking_uri, output, found, files)
    print(report.document().text())
    print("\n".join(map(printable, [*files, f"tracking {where}"])), flush=True)
    found.check_measured()
    return SUCCESS


def _systems(given: Sequence[tuple[str, str]]) -> dict[str, Path]:
    """System -> folder."""
    systems = {name: Path(folder) for name, folder in given}
    if len(systems) < len(given):
        raise UsageError("two systems have one name. Give each a name of its own.")
    for name in systems:
        if name in RESERVED or not re.fullmatch(r"[\w .+&-]+", name):
            allowed = "letters, digits, spaces and any of . + & - _ for it"
            advice = f"Take {allowed}, and neither {' nor '.join(RESERVED)}."
            raise UsageError(f"a system is named {name!r}.", advice=advice)
    return systems


def _track(uri: str | None, folder: Path, evaluated: "FolderScores", files: Sequence[Path]) -> str:
    """Log figures, values per clip and files, as a run of the folder's name; returns what shows it."""
    from stav2a.evaluation.scores import figures, per_clip
    from stav2a.experiments.tracking import connect, environment
    from stav2a.reports.folder_report import crop_in_figures

    with connect(uri, folder, experiment="evaluation", run_name=folder.resolve().name) as tracker:
        tracker.log_params({f"version.{name}": value for name, value in environment().items()})
        for crop, rows in evaluated.scores.items():
            at = crop_in_figures(crop)
            tracker.log_params({f"clips.{at}": len(evaluated.ids[crop])})
            for row, scores in rows.items():
                values = figures(scores)
                tracker.log_metrics({f"{row}/{at}/{name}": value for name, value in values.items()})
                tracker.log_params({f"{row}/{at}/{s.name}": s.described for s in scores if not s.unavailable})
                tracker.log_table(per_clip(scores), f"per_clip/{row}-{at}.json")
        for file in files:
            tracker.log_artifact(file)
        return tracker.where()
