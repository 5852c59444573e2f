"""`stav2a generate`, which is `python -m stav2a generate`: put sound on videos with a finished run."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stav2a.cli import options
from stav2a.utils.errors import FAILURE, SUCCESS, UsageError, exit_code, guarded

if TYPE_CHECKING:
    from stav2a.experiments.run_folder import FinishedRun
    from stav2a.experiments.soundtrack import SamplingSettings


MAX_SEED = 2**32 - 1
MAX_STEPS = 999  # one less than the noise levels: spread over all 1000, diffusers' steps leave the table
EPILOG = """examples:
  stav2a generate clip.mp4 --run runs/RUN --output sounds
  stav2a generate *.mp4 --run runs/RUN --prompt "a spoon hits a glass" --seed 1 --output sounds

For each VIDEO, DIR/NAME.mp4 is written, its picture copied and its old sound replaced, and the sound alone as
DIR/NAME.wav. Their duration is the video's own. The paths of the mp4s go to the standard output, one a line.
A file that fails is told on one line and does not stop the others; the exit code is 1 then.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = options.command(
        "generate", "Put sound on videos (mp4, mov, webm, mkv) with the model of a finished run.", EPILOG
    )
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO", help="what needs sound; old sound is left out")
    add("--run", type=Path, required=True, metavar="RUN_DIR", help="the folder of a finished `stav2a run`")
    add("--output", type=Path, required=True, metavar="DIR", help="where to write; made if need be")
    add(
        "--prompt",
        default="",
        metavar="TEXT",
        help="what is to be heard (default: the null text, so the picture alone decides)",
    )
    add(
        "--seed",
        type=options.whole(0, MAX_SEED),
        default=0,
        metavar="N",
        help="another one, another sound (default: 0)",
    )
    add("--steps", type=options.whole(1, MAX_STEPS), metavar="N", help="denoising steps (default: the run's)")
    add("--guidance", type=_weight, metavar="W", help="weight of the prompt, 1 is plain (default: the run's)")
    add("--trust-recipe", action="store_true", help="let the run's recipe import any module")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Put sound on each video; 1 if one of them failed, 2 if the command can't be carried out."""
    arguments = build_parser().parse_args(argv)
    _check_names(arguments.videos, arguments.output)
    from stav2a.experiments import run_folder
    from stav2a.utils.files import check_writable

    trained = run_folder.load(arguments.run, trust=arguments.trust_recipe)
    check_writable(arguments.output)
    settings = _settings(arguments, trained.experiment)
    failed = 0
    for video in arguments.videos:
        try:
            print(_add_sound(trained, video, settings, arguments.output), flush=True)
        except Exception as error:
            if exit_code(error) is None:
                raise
            failed += 1
            print(f"error: {_told(video, error)}", file=sys.stderr)
    made = len(arguments.videos) - failed
    print(
        f"{made} of {len(arguments.videos)} videos have their sound, in {arguments.output}", file=sys.stderr
    )
    return FAILURE if failed else SUCCESS


def _add_sound(trained: "FinishedRun", video: Path, settings: "SamplingSettings", output: Path) -> Path:
    """Write a video's mp4 and wav, and return the mp4."""
    from stav2a.data.media import check_copyable, mux, write_wav
    from stav2a.data.mel import SAMPLE_RATE
    from stav2a.experiments.soundtrack import soundtrack

    check_copyable(video)  # before minutes of work
    sound = soundtrack(trained, video, settings)
    with_picture, alone = _targets(video, output)
    mux(video, sound, SAMPLE_RATE, with_picture)
    write_wav(alone, sound, SAMPLE_RATE)
    return with_picture


def _settings(arguments: argparse.Namespace, experiment: Any) -> "SamplingSettings":
    """The command's choices, else the run's."""
    from stav2a.experiments.soundtrack import SamplingSettings

    prompt = arguments.prompt.strip()
    if not prompt and arguments.guidance is not None:
        print("warning: --guidance has no effect without a --prompt.", file=sys.stderr)
    guidance = experiment.guidance_scale if arguments.guidance is None else arguments.guidance
    return SamplingSettings(
        prompt=prompt,
        seed=arguments.seed,
        num_inference_steps=arguments.steps or experiment.num_inference_steps,
        guidance_scale=guidance if prompt else 1.0,
    )


def _targets(video: Path, output: Path) -> tuple[Path, Path]:
    return output / f"{video.stem}.mp4", output / f"{video.stem}.wav"


def _check_names(videos: Sequence[Path], output: Path) -> None:
    """Refuse what would write over an input, or over another output."""
    known: dict[str, Path] = {}
    for video in videos:
        if video.stem in known:
            raise UsageError(
                f"{known[video.stem]} and {video} would both become {_targets(video, output)[0]}. "
                "Rename one, or give them in two calls with two --output folders."
            )
        known[video.stem] = video
    inputs = {os.path.realpath(video) for video in videos}
    for target in (target for video in videos for target in _targets(video, output)):
        if os.path.realpath(target) in inputs:
            raise UsageError(
                f"{target} is one of the videos and would be written over. Choose another --output."
            )


def _told(video: Path, error: Exception) -> str:
    """One line that begins with the file's name."""
    text = " ".join(str(error).split())
    return text if text.startswith(f"{video}: ") else f"{video}: {text}"


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return value
