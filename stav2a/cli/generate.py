"""`stav2a generate`: put sound on videos with the model of a finished run."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from stav2a.cli.options import Overwrite, TrustRecipe, number
from stav2a.utils.errors import (
    FAILURE,
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_STEPS,
    SUCCESS,
    UsageError,
    exit_code,
    printable,
)

if TYPE_CHECKING:
    import numpy as np


EXAMPLES = """
  stav2a generate clip.mp4 --run runs/RUN --output sounds
  stav2a generate clip.mp4 --model my-model --negative-prompt "speech" --output sounds
  stav2a generate *.mp4 --run runs/RUN --prompt "someone shakes a tambourine" --seed 1 --output sounds

For each VIDEO, DIR/NAME.mp4 is written, its picture copied and its old sound replaced, and the sound
alone as DIR/NAME.wav. A picture that mp4 does not hold is copied into a mov or mkv. Their duration is the
video's own. The paths of the films go to the standard output, one a line. A file that fails gets one line and
does not stop the others; the exit code is 1 then.
"""


def generate(
    videos: Annotated[list[Path], Argument(metavar="VIDEO", help="what needs sound; old sound is left out")],
    output: Annotated[Path, Option(metavar="DIR", help="where to write; made if need be")],
    run: Annotated[
        Path | None, Option(metavar="RUN_DIR", help="the folder of a finished `stav2a run`")
    ] = None,
    model: Annotated[
        str | None,
        Option(metavar="DIR|ID", help="a model that `stav2a export` wrote, or its name on the hub"),
    ] = None,
    prompt: Annotated[
        str,
        Option(metavar="TEXT", help="caption (default: the null text, so the picture decides)"),
    ] = "",
    negative_prompt: Annotated[
        str, Option(metavar="TEXT", help="what is not wanted, such as `speech` (default: nothing)")
    ] = "",
    seed: Annotated[
        int, Option(min=0, max=MAX_SEED, metavar="N", help="another one gives another sound")
    ] = 0,
    steps: Annotated[
        int | None,
        Option(min=1, max=MAX_STEPS, metavar="N", help="denoising steps (default: the run's)"),
    ] = None,
    guidance: Annotated[
        float | None,
        Option(
            parser=number(lambda value: 0 <= value <= MAX_GUIDANCE, f"number from 0 to {MAX_GUIDANCE:g}"),
            metavar="W",
            help="weight of the prompt, 1 is plain (default: the run's)",
        ),
    ] = None,
    device: Annotated[
        str, Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N; auto is the GPU if there is one")
    ] = "auto",
    reencode: Annotated[
        bool,
        Option(
            "--reencode", help="encode a picture that mp4 does not hold as H.264: some quality, some time"
        ),
    ] = False,
    overwrite: Overwrite = False,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Put sound on videos (mp4, mov, webm, mkv) with the model of a finished run, or an exported one."""
    _check_names(videos, output, reencode, overwrite)
    from stav2a.data.manifest import control_in
    from stav2a.pipeline import VideoToAudioPipeline
    from stav2a.utils import distributed
    from stav2a.utils.files import check_writable

    for option, text in (("--prompt", prompt), ("--negative-prompt", negative_prompt)):
        if found := control_in(text):
            raise UsageError(f"{option} holds the control character {found!r}. Leave it out.")
    if (source := run or model) is None or (run and model):
        raise UsageError("expected --run or --model, one of them.", advice="--run takes a run's folder.")
    place = distributed.device_named(device)
    pipe = VideoToAudioPipeline.from_pretrained(source, trust_recipe=trust_recipe).to(place)
    check_writable(output)
    if not (prompt.strip() or negative_prompt.strip()) and guidance is not None:
        print("warning: --guidance has no effect without a --prompt.", file=sys.stderr)
    elif not pipe.reads_captions and (prompt.strip() or guidance is not None):
        left_out = "--prompt and --guidance have no effect: the run's guider leaves captions out."
        print(f"warning: {left_out}", file=sys.stderr)

    def make_sound(video: Path) -> "tuple[np.ndarray, int]":
        made = pipe(
            video,
            prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seed=seed,
        )
        return made.audios[0], made.sampling_rate

    failed = 0
    for video in videos:
        try:
            print(printable(_add_sound(make_sound, video, output, reencode)), flush=True)
        except Exception as error:
            if exit_code(error) is None:
                raise
            failed += 1
            name, text = printable(video), printable(error)
            print(f"error: {text if text.startswith(f'{name}: ') else f'{name}: {text}'}", file=sys.stderr)
    made = f"{len(videos) - failed} of {len(videos)} videos have their sound"
    print(f"{made}, in {printable(output)}", file=sys.stderr)
    return FAILURE if failed else SUCCESS


def _add_sound(
    make_sound: "Callable[[Path], tuple[np.ndarray, int]]", video: Path, output: Path, reencode: bool
) -> Path:
    """Write the film and the wav of a video, and return the film."""
    from stav2a.data.media import check_output, mux, write_wav

    film, alone = _targets(video, output, reencode)
    check_output(alone, 0)  # before minutes of work
    check_output(film, video.stat().st_size)
    sound, sample_rate = make_sound(video)
    for remark in mux(video, sound, sample_rate, film, reencode=reencode, hidden=True):
        print(printable(f"note: {video}: {remark}"), file=sys.stderr)
    try:
        write_wav(alone, sound, sample_rate)
    except ValueError:
        film.unlink()
        raise
    return film


def _targets(video: Path, output: Path, reencode: bool) -> tuple[Path, Path]:
    from stav2a.data.media import container_for

    suffix = container_for(video, reencode=reencode)
    return output / f"{video.stem}{suffix}", output / f"{video.stem}.wav"


def _check_names(videos: Sequence[Path], output: Path, reencode: bool, overwrite: bool) -> None:
    """Refuse what would write over an input, over another output or over a file that is there already."""
    known: dict[str, Path] = {}
    for video in videos:
        if video.stem in known:
            both = f"{known[video.stem]} and {video} would both become {output / video.stem}.wav."
            raise UsageError(both, advice="Rename one, or give them in two calls with two --output folders.")
        known[video.stem] = video
    inputs = {os.path.realpath(video) for video in videos}
    for video in videos:
        try:
            targets = _targets(video, output, reencode)
        except ValueError:  # told when its turn comes; nothing is written for it
            continue
        for target in targets:
            if os.path.realpath(target) in inputs:
                message = f"{target} is one of the videos and would be written over."
                raise UsageError(message, advice="Choose another --output.")
            if target.is_dir():
                raise UsageError(f"{target} is a folder, where a file is to be written. Move it away first.")
            if os.path.lexists(target) and not overwrite:
                advice = "Choose another --output, or give --overwrite to replace it."
                raise UsageError(f"{target} is there already.", advice=advice)
