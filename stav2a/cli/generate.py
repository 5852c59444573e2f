"""`stav2a generate`: put sound on videos with the model of a finished run."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    from stav2a.data.media import MixSettings
    from stav2a.evaluation.variants import Variant
    from stav2a.metrics.judges.yamnet import YAMNetWindows
    from stav2a.pipeline import VideoToAudioPipeline

MOST_VARIANTS = 32
LEVELS_DB = (-60.0, 40.0)
LOUDNESS_LUFS = (-60.0, -5.0)
MIX_HZ = 48_000  # of a film whose own sound is mixed in, unless --sample-rate says otherwise


EXAMPLES = """
  stav2a generate clip.mp4 --run runs/RUN --output sounds
  stav2a generate clip.mp4 --model my-model --negative-prompt "speech" --output sounds
  stav2a generate *.mp4 --run runs/RUN --prompt "someone shakes a tambourine" --seed 1 --output sounds
  stav2a generate clip.mp4 --run runs/RUN --keep-sound mix --duck 12 --loudness -23 --output sounds
  stav2a generate clip.mp4 --run runs/RUN --no-speech --variants 4 --shots --output sounds

For each VIDEO, DIR/NAME.mp4 is written, its picture copied and its old sound replaced, and the sound
alone as DIR/NAME.wav. A picture that mp4 does not hold is copied into a mov or mkv. Their duration is the
video's own. The paths of the films go to the standard output, one a line. A file that fails gets one line and
does not stop the others; the exit code is 1 then. Of N variants the files are NAME-1, the best, to NAME-N.
"""


def _level(least: float, most: float) -> Callable[[str], float]:
    return number(lambda value: least <= value <= most, f"number from {least:g} to {most:g}")


def generate(
    videos: Annotated[list[Path], Argument(metavar="VIDEO", help="what needs sound")],
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
    keep_sound: Annotated[
        Literal["replace", "mix", "track"],
        Option(help="the video's own sound: left out, mixed in, or kept as further tracks"),
    ] = "replace",
    gain: Annotated[
        float, Option(parser=_level(*LEVELS_DB), metavar="DB", help="change of the new sound's level")
    ] = 0.0,
    own_gain: Annotated[
        float,
        Option(parser=_level(*LEVELS_DB), metavar="DB", help="in a mix: change of the own sound's level"),
    ] = 0.0,
    duck: Annotated[
        float,
        Option(parser=_level(0, 60), metavar="DB", help="in a mix: lower the own sound under the new one"),
    ] = 0.0,
    loudness: Annotated[
        float | None,
        Option(
            parser=_level(*LOUDNESS_LUFS),
            metavar="LUFS",
            help="integrated loudness of the film, such as -23 (EBU R 128); true peaks stay below -1 dB",
        ),
    ] = None,
    sample_rate: Annotated[
        Literal["44100", "48000"] | None,
        Option(
            help="stereo at this rate, by resampling: two equal channels, no higher frequencies "
            "(default: the model's, mono; a mix is 48000)"
        ),
    ] = None,
    no_speech: Annotated[
        bool, Option("--no-speech", help="no speech: negative prompt, and no sound in which YAMNet finds any")
    ] = False,
    no_music: Annotated[
        bool, Option("--no-music", help="no music: negative prompt, and no sound in which YAMNet finds any")
    ] = False,
    variants: Annotated[
        int, Option(min=1, max=MOST_VARIANTS, metavar="N", help="sounds of each video, the best first")
    ] = 1,
    rank_by: Annotated[
        Literal["av_align", "desync", "imagebind", "cavp_score", "clap", "production_quality"],
        Option(help="metric by which variants are ranked; all but av_align need weights"),
    ] = "av_align",
    shots: Annotated[
        bool, Option("--shots", help="find cuts; the sound begins anew at each, as no window crosses it")
    ] = False,
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
    _check_names(videos, output, variants, reencode, overwrite)
    from stav2a.data.manifest import control_in
    from stav2a.data.media import MixSettings
    from stav2a.metrics.judges.judge import judges_on
    from stav2a.pipeline import VideoToAudioPipeline
    from stav2a.utils import distributed
    from stav2a.utils.files import check_writable

    for option, text in (("--prompt", prompt), ("--negative-prompt", negative_prompt)):
        if found := control_in(text):
            raise UsageError(f"{option} holds the control character {found!r}. Leave it out.")
    if (source := run or model) is None or (run and model):
        raise UsageError("expected --run or --model, one of them.", advice="--run takes a run's folder.")
    mixed = keep_sound == "mix"
    rate_hz = int(sample_rate) if sample_rate else MIX_HZ if mixed else None
    mix = MixSettings(
        sample_rate=rate_hz,
        stereo=rate_hz is not None,
        gain_db=gain,
        own_gain_db=own_gain if mixed else None,
        duck_db=duck,
        loudness_lufs=loudness,
    )
    unwanted = [kind for kind, wanted in (("speech", not no_speech), ("music", not no_music)) if not wanted]
    negative_prompt = ", ".join(filter(None, [negative_prompt.strip(), *unwanted]))
    if not mixed and (own_gain or duck):
        _warn("--own-gain and --duck have no effect without --keep-sound mix.")
    if variants == 1 and rank_by != "av_align":
        _warn("--rank-by has no effect without --variants.")
    place = distributed.device_named(device)
    pipe = VideoToAudioPipeline.from_pretrained(source, trust_recipe=trust_recipe).to(place)
    check_writable(output)
    _warn_of_captions(pipe.reads_captions, prompt.strip(), negative_prompt, guidance, unwanted)
    with judges_on(device):
        work = _Work(
            pipe=pipe,
            settings={
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "num_inference_steps": steps,
                "guidance_scale": guidance,
                "split_shots": shots,
            },
            seed=seed,
            count=variants,
            unwanted=unwanted,
            judge=_judge_of(unwanted),
            metric=_metric(rank_by, prompt.strip(), variants),
            mix=mix,
            own_tracks=keep_sound == "track",
            output=output,
            reencode=reencode,
        )

    failed = 0
    for video in videos:
        try:
            for film in work.add_sound(video):
                print(printable(film), flush=True)
        except Exception as error:
            if exit_code(error) is None:
                raise
            failed += 1
            name, text = printable(video), printable(error)
            print(f"error: {text if text.startswith(f'{name}: ') else f'{name}: {text}'}", file=sys.stderr)
    made = f"{len(videos) - failed} of {len(videos)} videos have their sound"
    print(f"{made}, in {printable(output)}", file=sys.stderr)
    return FAILURE if failed else SUCCESS


def _warn_of_captions(
    read: bool, prompt: str, negative_prompt: str, guidance: float | None, unwanted: Sequence[str]
) -> None:
    """Warn of options about captions that have no effect; `read` says whether the model reads captions."""
    if not (prompt or negative_prompt) and guidance is not None:
        _warn("--guidance has no effect without a --prompt.")
    elif not read and (prompt or guidance is not None):
        _warn("--prompt and --guidance have no effect: the run's guider leaves captions out.")
    if unwanted and not read:
        _warn(f"{_options(unwanted)}: the run's guider leaves the negative prompt out.")


def _warn(text: str) -> None:
    print(printable(f"warning: {text}"), file=sys.stderr)


def _options(unwanted: Sequence[str]) -> str:
    return " and ".join(f"--no-{kind}" for kind in unwanted)


def _judge_of(unwanted: Sequence[str]) -> "YAMNetWindows | None":
    """The judge of what is not wanted, if anything; None, and a warning, where it lacks its weights."""
    if not unwanted:
        return None
    from stav2a.metrics.judges.yamnet import YAMNetWindows

    judge = YAMNetWindows()
    if judge.missing:
        what, remedy = judge.missing
        told = "a negative prompt only, no sound is checked and left out"
        _warn(f"{_options(unwanted)}: {told}: {what}: {remedy}.")
        return None
    judge.prepare()
    return judge


def _metric(name: str, prompt: str, variants: int) -> Any:
    """Metric by which variants are ranked; None where there is one alone."""
    if variants == 1:
        return None
    from stav2a.evaluation.variants import ranking

    return ranking(name, prompt=prompt)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Settings of a call.

    Args:
        pipe: The pipeline.
        settings: Arguments of the pipeline beside the video, the seed and the number of sounds.
        seed: First seed.
        count: Number of variants.
        unwanted: Kinds of sound that are not wanted.
        judge: Judge of these, if there is one.
        metric: Metric by which variants are ranked; None for a single one.
        mix: Settings of the film's sound.
        own_tracks: Whether the video's own tracks of sound are kept.
        output: Folder of the results.
        reencode: Whether a picture that mp4 does not hold is encoded.
    """

    pipe: "VideoToAudioPipeline"
    settings: Mapping[str, Any]
    seed: int
    count: int
    unwanted: Sequence[str]
    judge: "YAMNetWindows | None"
    metric: Any
    mix: "MixSettings"
    own_tracks: bool
    output: Path
    reencode: bool

    def add_sound(self, video: Path) -> list[Path]:
        """Write the films and the wavs of a video, and return the films, the best one first."""
        from stav2a.data.media import check_output, check_own_sound, mux, write_wav

        targets = _targets(video, self.output, self.count, self.reencode)
        for film, alone in targets:  # before minutes of work
            check_output(alone, 0)
            check_output(film, len(targets) * video.stat().st_size)
        if self.own_tracks:
            check_own_sound(video)
        own = self.mix.own_sound(video)
        found, sample_rate = self.variants(video)
        written: list[Path] = []
        try:
            for (film, alone), variant in zip(targets, found, strict=False):
                made = self.mix(variant.audio, sample_rate, own)
                remarks = mux(
                    video,
                    made.whole,
                    made.sample_rate,
                    film,
                    reencode=self.reencode,
                    hidden=True,
                    own_tracks=self.own_tracks,
                )
                written.append(film)
                for remark in [*remarks, *made.remarks]:
                    _note(video, remark)
                write_wav(alone, made.new, made.sample_rate)
                written.append(alone)
        except ValueError:
            for each in written:
                each.unlink()
            raise
        return [film for film, _ in targets[: len(found)]]

    def variants(self, video: Path) -> "tuple[Sequence[Variant], int]":
        """The sounds, the best first, and their rate in Hz."""
        from stav2a.evaluation.variants import draw_variants, ranked

        sample_rate = self.pipe.model.front_end.sample_rate

        def make(seed: int, count: int) -> Sequence[Any]:
            return self.pipe(video, seed=seed, num_waveforms_per_prompt=count, **self.settings).audios

        found = draw_variants(
            make, sample_rate, count=self.count, seed=self.seed, unwanted=self.unwanted, judge=self.judge
        )
        if len(found) < self.count:
            _note(
                video, f"{len(found)} of {self.count} variants: the others had {' or '.join(self.unwanted)}"
            )
        if self.metric is None:
            return found, sample_rate
        best = ranked(found, video, sample_rate, metric=self.metric, prompt=self.settings["prompt"])
        for place, each in enumerate(best, start=1):
            figure = "none" if each.score is None else f"{each.score:.3f}"
            _note(video, f"variant {place}: seed {each.seed}, {self.metric.reporter.label} {figure}")
        return best, sample_rate


def _note(video: Path, remark: str) -> None:
    print(printable(f"note: {video}: {remark}"), file=sys.stderr)


def _targets(video: Path, output: Path, variants: int, reencode: bool) -> list[tuple[Path, Path]]:
    """The film and the wav of each variant of a video."""
    from stav2a.data.media import container_for

    suffix = container_for(video, reencode=reencode)
    stems = [video.stem] if variants == 1 else [f"{video.stem}-{place + 1}" for place in range(variants)]
    return [(output / f"{stem}{suffix}", output / f"{stem}.wav") for stem in stems]


def _check_names(
    videos: Sequence[Path], output: Path, variants: int, reencode: bool, overwrite: bool
) -> None:
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
            targets = _targets(video, output, variants, reencode)
        except ValueError:  # told when its turn comes; nothing is written for it
            continue
        for target in (file for both in targets for file in both):
            if os.path.realpath(target) in inputs:
                message = f"{target} is one of the videos and would be written over."
                raise UsageError(message, advice="Choose another --output.")
            if target.is_dir():
                raise UsageError(f"{target} is a folder, where a file is to be written. Move it away first.")
            if os.path.lexists(target) and not overwrite:
                advice = "Choose another --output, or give --overwrite to replace it."
                raise UsageError(f"{target} is there already.", advice=advice)
