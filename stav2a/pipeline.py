"""Pipeline from video and text to sound: a model with its sampler and scheduler, as one object and folder."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal, Self

import numpy as np
import torch

from stav2a.data.media import Decoded
from stav2a.data.mel import SAMPLE_RATE
from stav2a.experiments import run_folder
from stav2a.experiments.experiment import Experiment
from stav2a.models.conversion.catalogue import CATALOGUE, CHECKPOINTS
from stav2a.models.stav2a import STAV2A, PretrainedError, component, describe_factory
from stav2a.registry import load as load_components
from stav2a.registry import selector_of
from stav2a.sampling.guiders import ClassifierFree, TwoWeights
from stav2a.sampling.video_to_audio import video_to_audio
from stav2a.utils.errors import MAX_GUIDANCE, MAX_STEPS, UsageError, check_bounds
from stav2a.utils.files import new_folder, write_json
from stav2a.utils.program import command

FORMAT = 1
SAMPLING = "sampling.json"
PARTS = ("sampler", "scheduler", "guider")

Film = str | Path | np.ndarray | IO[bytes]
StepCallback = Callable[["VideoToAudioPipeline", int, Any, dict[str, Any]], Any]


@dataclass(frozen=True)
class AudioPipelineOutput:
    """Generated sounds.

    Args:
        audios: Mono waveforms (S,) in [-1, 1], arrays or tensors; those of one video stand together.
        sampling_rate: Samples a second.
    """

    audios: Sequence[Any]
    sampling_rate: int


class VideoToAudioPipeline:
    """Sound for videos of any duration, in the manner of diffusers' pipelines.

    Args:
        model: The model, in evaluation mode.
        sampler: Factory of the denoising loop.
        scheduler: Factory of the scheduler, called with `prediction_type`.
        prediction_type: Prediction of the model.
        guider: Factory of the guider.
        num_inference_steps: Denoising steps, unless a call gives them.
        guidance_scale: Weight w of the text in eq. 7, unless a call gives it.

    Example:
        from stav2a import VideoToAudioPipeline

        pipe = VideoToAudioPipeline.from_pretrained("runs/RUN")
        sound = pipe(video="clip.mp4", prompt="a drum").audios[0]
    """

    def __init__(
        self,
        model: STAV2A,
        *,
        sampler: Callable[..., Any],
        scheduler: Callable[..., Any],
        prediction_type: str,
        num_inference_steps: int,
        guidance_scale: float,
        guider: Callable[..., Any] = ClassifierFree,
    ) -> None:
        self.model = model.eval()
        self.factories = {"sampler": sampler, "scheduler": scheduler, "guider": guider}
        self.prediction_type = prediction_type
        self.num_inference_steps, self.guidance_scale = num_inference_steps, guidance_scale
        self.sampler, self.scheduler = sampler(), scheduler(prediction_type=prediction_type)
        self.guider = guider()

    @classmethod
    def from_pretrained(cls, source: str | Path, *, trust_recipe: bool = False) -> Self:
        """Load the model of a run folder, of one that `save_pretrained` wrote, or of the Hugging Face hub.

        Args:
            source: A folder; or a name `owner/model` of the hub, which is downloaded once; or `released`, the
                authors' model, which `stav2a fetch` put into ./checkpoints.
            trust_recipe: Let the recipe of a run import any module.

        Raises:
            RunFolderError: The folder holds an unfinished run, or a damaged one.
            PretrainedError: There is no model, or one that this version can't make.
        """
        folder = Path(source)
        if not folder.exists() and isinstance(source, str):
            if source in CATALOGUE and CATALOGUE[source].with_sampling:
                folder = _fetched(source)
            elif source.count("/") == 1:
                folder = _download(source)
        if (folder / "run.json").is_file() or not (folder / SAMPLING).is_file():
            return cls.of(*run_folder.load(folder, trust=trust_recipe))
        load_components()
        saved = _sampling_of(folder)
        parts = {slot: component(saved.pop(slot)) for slot in PARTS if slot in saved}
        return cls(STAV2A.from_pretrained(folder), **parts, **saved)

    @classmethod
    def of(cls, experiment: Experiment, model: STAV2A) -> Self:
        """The pipeline of a recipe and its trained model."""
        return cls(
            model,
            sampler=experiment.sampler,
            scheduler=experiment.scheduler,
            prediction_type=experiment.objective().prediction_type,
            num_inference_steps=experiment.num_inference_steps,
            guidance_scale=experiment.guidance_scale,
            guider=experiment.guider,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model and how it is sampled to a new folder, whole or not at all.

        Raises:
            PretrainedError: A block is no registered component with plain parameters.
            UsageError: The folder exists.
        """
        with new_folder(Path(folder)) as new:
            self.write(new)

    def write(self, folder: Path) -> None:
        """Write what `save_pretrained` writes into an empty folder.

        Raises:
            PretrainedError: A block is no registered component with plain parameters.
        """
        self.model.write(folder)
        _write_sampling(
            folder, self.factories, self.prediction_type, self.num_inference_steps, self.guidance_scale
        )

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def components(self) -> dict[str, Any]:
        """The model, the sampler, the scheduler and the guider, by name."""
        return {"model": self.model, **{slot: getattr(self, slot) for slot in PARTS}}

    def __call__(
        self,
        video: Film | list[Film] | tuple[Film, ...],
        prompt: str | Sequence[str] = "",
        *,
        negative_prompt: str | Sequence[str] = "",
        frame_rate_hz: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        video_guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        seed: int = 0,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: Literal["np", "pt"] = "np",
    ) -> AudioPipelineOutput:
        """Generate the sound of videos, exactly as long as their pictures.

        Args:
            video: A file's path or the opened file, or frames (N, H, W, 3) uint8 RGB; or a list of them.
            prompt: Caption; "" leaves it to the picture. One for all videos, or one each.
            negative_prompt: Caption of what is not wanted, in place of the null text in eq. 7. As `prompt`.
            frame_rate_hz: Frames a second of videos that are given as frames.
            num_inference_steps: Denoising steps; by default the pipeline's.
            guidance_scale: Weight w of the text in eq. 7; by default the pipeline's. 1 without any text.
            video_guidance_scale: Weight of the video, where the guider has one; by default the guider's.
            num_waveforms_per_prompt: Sounds of each video, of the seeds from `seed` on.
            seed: Seed of the noise. The same seed gives the same bits on a CPU.
            generator: Source of the seed instead, so that each call gives another sound.
            callback_on_step_end: Called after each denoising step with the pipeline, the number of the step,
                the timestep and an empty dictionary.
            output_type: `np` for arrays, `pt` for tensors.

        Raises:
            UsageError: Arguments that don't fit together, or are out of their bounds.
            MediaError: A video can't be read.
            SamplerError: The model gives NaN.
        """
        videos = list(video) if isinstance(video, list | tuple) else [video]
        prompts, unwanted = _each(prompt, videos, "prompt"), _each(negative_prompt, videos, "negative_prompt")
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        weight = self.guidance_scale if guidance_scale is None else guidance_scale
        check_bounds("num_inference_steps", steps, 1, MAX_STEPS)
        check_bounds("guidance_scale", weight, 0, MAX_GUIDANCE)
        guider = self.guider
        if video_guidance_scale is not None:
            check_bounds("video_guidance_scale", video_guidance_scale, 0, MAX_GUIDANCE)
            if not isinstance(guider, TwoWeights):
                raise UsageError(
                    f"video_guidance_scale = {video_guidance_scale}, but "
                    f"{selector_of('guider', type(guider))} weighs the text alone.",
                    advice="Leave it out, or take a model whose recipe has run.guider = @guider.two_weights.",
                )
            guider = TwoWeights(video_scale=video_guidance_scale)
        check_bounds("num_waveforms_per_prompt", num_waveforms_per_prompt, 1)
        if output_type not in ("np", "pt"):
            raise UsageError(f"output_type was {output_type!r}. Write 'np' or 'pt'.")
        if generator is not None:
            seed = int(torch.randint(2**31, (1,), generator=generator))

        def called(number: int, timestep: Any) -> None:
            if callback_on_step_end is not None:
                callback_on_step_end(self, number, timestep, {})

        audios: list[Any] = []
        with TemporaryDirectory() as temporary:
            for film, text, negative in zip(videos, prompts, unwanted, strict=True):
                audios += video_to_audio(
                    self.model,
                    _readable(film, frame_rate_hz, Path(temporary)),
                    sampler=self.sampler,
                    scheduler=self.scheduler,
                    prompt=text,
                    negative_prompt=negative,
                    seeds=range(seed, seed + num_waveforms_per_prompt),
                    num_inference_steps=steps,
                    # without a text the branches that differ by it are equal
                    guidance_scale=weight if text or negative else 1.0,
                    guider=guider,
                    on_step_end=called,
                )
        if output_type == "pt":
            audios = [torch.from_numpy(audio) for audio in audios]
        return AudioPipelineOutput(audios, SAMPLE_RATE)


def write_sampling(folder: Path, experiment: Experiment) -> None:
    """Write how a recipe samples into a folder with a model: the two are a pipeline together."""
    factories = {slot: getattr(experiment, slot) for slot in PARTS}
    prediction_type = experiment.objective().prediction_type
    _write_sampling(
        folder, factories, prediction_type, experiment.num_inference_steps, experiment.guidance_scale
    )


def _write_sampling(
    folder: Path,
    factories: Mapping[str, Callable[..., Any]],
    prediction_type: str,
    num_inference_steps: int,
    guidance_scale: float,
) -> None:
    settings = {slot: describe_factory(factory) for slot, factory in factories.items()}
    settings |= {
        "prediction_type": prediction_type,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
    }
    write_json(folder / SAMPLING, {"format": FORMAT, **settings})


def _sampling_of(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads((folder / SAMPLING).read_text(encoding="utf-8"))
        found = saved.pop("format")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PretrainedError(f"{folder / SAMPLING} can't be read ({error}).") from None
    if found != FORMAT:
        raise PretrainedError(
            f"{folder} was written in format {found}, this version reads {FORMAT}.",
            advice="Export the run again with this version.",
        )
    return saved


def _fetched(name: str) -> Path:
    folder = Path(CHECKPOINTS) / CATALOGUE[name].folder
    if not folder.exists():
        raise PretrainedError(f"{folder} is not there.", advice=f"Fetch it: {command('fetch', name)}")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise PretrainedError(
            f"there is no folder {name}, and it can't be had from the Hugging Face hub: {reason}",
            advice="Give a run folder, or one that `stav2a export` wrote.",
        ) from error


def _each(texts: str | Sequence[str], videos: Sequence[Any], name: str) -> list[str]:
    """One text for each video."""
    if isinstance(texts, str):
        return [texts.strip()] * len(videos)
    if len(texts) != len(videos):
        raise UsageError(f"{len(videos)} videos but {len(texts)} of {name}. Give one, or one each.")
    return [text.strip() for text in texts]


def _readable(film: Film, frame_rate_hz: float | None, temporary: Path) -> Path | Decoded:
    """The film as `video_to_audio` takes it; the bytes of an opened file go to a temporary one."""
    if isinstance(film, np.ndarray):
        if film.ndim != 4 or film.shape[-1] != 3 or film.dtype != np.uint8 or not len(film):
            raise UsageError(f"frames are {film.dtype} {film.shape}. Give (N, H, W, 3) of uint8, RGB.")
        if not frame_rate_hz or not frame_rate_hz > 0:
            raise UsageError("frames came without frame_rate_hz. Give the frames a second.")
        times_s = np.arange(len(film)) / frame_rate_hz
        silence = np.zeros(0, np.float32)
        return Decoded(film, times_s, frame_rate_hz, len(film) / frame_rate_hz, silence, SAMPLE_RATE)
    if isinstance(film, str | Path):
        return Path(film)
    copy = temporary / "video"
    with copy.open("wb") as file:
        shutil.copyfileobj(film, file)
    return copy
