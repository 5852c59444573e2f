"""Pipeline from video and text to sound: a model with its sampler and scheduler, as one object and folder."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal, Self

import numpy as np
import torch

from stav2a.data.media import Decoded, find_cuts, wav_bytes
from stav2a.evaluation.scores import from_json
from stav2a.experiments import run_folder
from stav2a.experiments.experiment import Experiment
from stav2a.models.conversion.catalogue import CATALOGUE, CHECKPOINTS
from stav2a.models.stav2a import (
    STAV2A,
    PretrainedError,
    component,
    describe_factory,
    encode_captions,
    own_tensors,
)
from stav2a.registry import entry_of, selector_of
from stav2a.registry import load as load_components
from stav2a.reports.model_card import BlockOrigin, model_card
from stav2a.sampling.guiders import ClassifierFree, TwoWeights
from stav2a.sampling.video_to_audio import video_to_audio
from stav2a.utils.downloads import reason
from stav2a.utils.errors import MAX_GUIDANCE, MAX_STEPS, UsageError, check_bounds
from stav2a.utils.files import new_folder, write_json, write_text
from stav2a.utils.program import command
from stav2a.utils.uploads import check_repository, upload

FORMAT = 1
SAMPLING = "sampling.json"
SAMPLING_SLOTS = ("sampler", "scheduler", "guider")
CARD = "README.md"
DOCUMENTS = (CARD, "snapshot.gin", "scores.json")
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
LONGEST_S = 3600.0  # of a sound without a video

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

    Attributes:
        knows_no_video: True for a model whose training left out videos (`stage.joint.video_dropout`).
        documents: Function from the model's name to further files of its folder: card, recipe, scores.

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
        self.knows_no_video = False
        self.documents: Callable[[str], dict[str, str]] = lambda name: {}

    @property
    def reads_captions(self) -> bool:
        """False where the guider leaves prompts out, as `guider.null_text` does."""
        return any(branch.text for branch in self.guider.branches(self.guidance_scale))

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
            experiment, model = run_folder.load(folder, trust=trust_recipe)
            pipeline = cls.of(experiment, model)
            pipeline.documents = partial(_documents, run_folder.RunFolder(folder), experiment, model)
            return pipeline
        load_components()
        saved = _sampling_of(folder)
        knows_no_video = saved.pop("knows_no_video", False)  # older ones do not say
        parts = {slot: component(saved.pop(slot)) for slot in SAMPLING_SLOTS if slot in saved}
        pipeline = cls(STAV2A.from_pretrained(folder), **parts, **saved)
        pipeline.knows_no_video = knows_no_video
        kept = {
            each: (folder / each).read_text(encoding="utf-8")
            for each in DOCUMENTS
            if (folder / each).is_file()
        }
        pipeline.documents = lambda name: kept
        return pipeline

    @classmethod
    def of(cls, experiment: Experiment, model: STAV2A) -> Self:
        """The pipeline of a recipe and its trained model."""
        pipeline = cls(
            model,
            sampler=experiment.sampler,
            scheduler=experiment.scheduler,
            prediction_type=experiment.objective().prediction_type,
            num_inference_steps=experiment.num_inference_steps,
            guidance_scale=experiment.guidance_scale,
            guider=experiment.guider,
        )
        pipeline.knows_no_video = _leaves_out_videos(experiment)
        return pipeline

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model and how it is sampled to a new folder, whole or not at all.

        Of a run it has a model card, the recipe and the scores too: what `stav2a export` writes.

        Raises:
            PretrainedError: A block is no registered component with plain parameters.
            UsageError: The folder exists.
        """
        with new_folder(Path(folder)) as new:
            self._write(new, Path(folder).resolve().name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload the model",
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub.

        Args:
            repo_id: Name `owner/model`; made if need be.
            private: True for a repository that its owner alone can read; by default as the owner has set it.
            token: Token with the right to write; by default the one of `hf auth login`.
            commit_message: Message of the commit.

        Returns:
            The commit's address.

        Raises:
            UsageError: There is no token, or a private model would go into a public repository.
            UploadError: The hub can't be reached, or refuses it.
            PretrainedError: A block is no registered component with plain parameters.
        """
        check_repository(repo_id, token)
        with TemporaryDirectory() as temporary:
            self._write(Path(temporary), repo_id)
            return upload(
                Path(temporary), repo_id, private=private, token=token, commit_message=commit_message
            )

    def _write(self, folder: Path, name: str) -> None:
        self.model.write(folder)
        _write_sampling(
            folder,
            self.factories,
            prediction_type=self.prediction_type,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            knows_no_video=self.knows_no_video,
        )
        for document, text in self.documents(name).items():
            write_text(folder / document, text)

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the model to a device, and set the type that it denoises in.

        In half precision the denoiser computes, which takes nearly all the time; encoders, autoencoder,
        vocoder and the latents between the steps stay in float32, so that sounds differ by rounding alone.

        Args:
            device: Device; or a type, as in diffusers.
            dtype: torch.float32, bfloat16 or float16; by default as it is.

        Raises:
            UsageError: The sampler has no such precision.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            self.model.to(device)
        if dtype is not None:
            self._set_precision(dtype)
        return self

    def _set_precision(self, dtype: torch.dtype) -> None:
        if dtype not in PRECISIONS:
            known = ", ".join(map(str, PRECISIONS))
            raise UsageError(f"dtype was {dtype}. Expected one of {known}.")
        entry = entry_of(self.factories["sampler"]) or entry_of(type(self.sampler))
        if entry is None or "precision" not in entry.settable:
            raise UsageError(
                f"{selector_of('sampler', type(self.sampler))} computes in the precision of the weights, so "
                f"dtype = {dtype} can't be had.",
                advice="Take a model whose recipe has run.sampler = @sampler.fast.",
            )
        precision = str(dtype).removeprefix("torch.")
        self.factories["sampler"] = partial(self.factories["sampler"], precision=precision)
        self.sampler = self.factories["sampler"]()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def components(self) -> dict[str, Any]:
        """The model, the sampler, the scheduler and the guider, by name."""
        return {"model": self.model, **{slot: getattr(self, slot) for slot in SAMPLING_SLOTS}}

    def __call__(
        self,
        video: Film | list[Film] | tuple[Film, ...] | None = None,
        prompt: str | Sequence[str] = "",
        *,
        negative_prompt: str | Sequence[str] = "",
        frame_rate_hz: float | None = None,
        duration_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        video_guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        split_shots: bool = False,
        seed: int = 0,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: Literal["np", "pt", "audio"] = "np",
    ) -> AudioPipelineOutput:
        """Generate the sound of videos, exactly as long as their pictures; or sound from text alone.

        Args:
            video: A file's path or the opened file, or frames (N, H, W, 3) uint8 RGB; or a list of them. None
                for text to audio, by a model that does not read the video or was trained without it too.
            prompt: Caption; "" leaves it to the picture. One for all videos, or one each.
            negative_prompt: Caption of what is not wanted, in place of the null text in eq. 7. As `prompt`.
            frame_rate_hz: Frames a second of videos that are given as frames.
            duration_s: Duration of sounds without a video; by default the model's.
            num_inference_steps: Denoising steps; by default the pipeline's.
            guidance_scale: Weight w of the text in eq. 7; by default the pipeline's. 1 without any text.
            video_guidance_scale: Weight of the video, where the guider has one; by default the guider's.
            num_waveforms_per_prompt: Sounds of each video, of the seeds from `seed` on.
            split_shots: Whether cuts of the picture are looked for, which no window of the model crosses.
            seed: Seed of the noise. The same seed gives the same bits on a CPU.
            generator: Source of the seed instead, so that each call gives another sound.
            callback_on_step_end: Called after each denoising step with the pipeline, the number of the step,
                the timestep and an empty dictionary.
            output_type: `np` for arrays, `pt` for tensors, `audio` for the bytes of a 16-bit wav file.

        Raises:
            UsageError: Arguments that don't fit together, or are out of their bounds.
            MediaError: A video can't be read.
            SamplerError: The model gives NaN.
        """
        videos: list[Film | None]
        if video is None:
            videos = [None] * (1 if isinstance(prompt, str) else len(prompt))
            if split_shots:
                raise UsageError("split_shots = True, but there is no video with shots. Leave it out.")
            self._check_text_to_audio(prompt, duration_s)
        else:
            videos = list(video) if isinstance(video, list | tuple) else [video]
            if duration_s is not None:
                raise UsageError(
                    f"duration_s = {duration_s}, but a video's sound lasts as long as the video.",
                    advice="Leave it out, or give no video.",
                )
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
        if output_type not in ("np", "pt", "audio"):
            raise UsageError(f"output_type was {output_type!r}. Write 'np', 'pt' or 'audio'.")
        if generator is not None:
            seed = int(torch.randint(2**31, (1,), generator=generator))

        def called(number: int, timestep: Any) -> None:
            if callback_on_step_end is not None:
                callback_on_step_end(self, number, timestep, {})

        audios: list[Any] = []
        with TemporaryDirectory() as temporary:
            for film, text, negative in zip(videos, prompts, unwanted, strict=True):
                readable = None if film is None else _readable(film, frame_rate_hz, Path(temporary))
                audios += video_to_audio(
                    self.model,
                    readable,
                    sampler=self.sampler,
                    scheduler=self.scheduler,
                    prompt=text,
                    negative_prompt=negative,
                    seeds=range(seed, seed + num_waveforms_per_prompt),
                    num_inference_steps=steps,
                    # without a text the branches that differ by it are equal
                    guidance_scale=weight if text or negative else 1.0,
                    guider=guider,
                    duration_s=duration_s,
                    cuts_s=find_cuts(readable) if split_shots and readable is not None else (),
                    on_step_end=called,
                )
        sample_rate = self.model.front_end.sample_rate
        if output_type == "pt":
            audios = [torch.from_numpy(audio) for audio in audios]
        elif output_type == "audio":
            audios = [wav_bytes(audio, sample_rate) for audio in audios]
        return AudioPipelineOutput(audios, sample_rate)

    def _check_text_to_audio(self, prompt: str | Sequence[str], duration_s: float | None) -> None:
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not texts or not all(text.strip() for text in texts):
            raise UsageError("there is no video, and no prompt in its place. Give one of them.")
        if duration_s is not None and not 0 < duration_s <= LONGEST_S:
            raise UsageError(f"duration_s = {duration_s}: expected more than 0, at most {LONGEST_S:g}.")
        if not self.knows_no_video and _reads_video(self.model):
            raise UsageError(
                "there is no video, but this model was always trained with one.",
                advice="Give a video; or take a model that was trained with stage.joint.video_dropout above "
                "0, or one of text to audio, such as that of recipes/finetuned_t2a.gin.",
            )


def write_sampling(folder: Path, experiment: Experiment) -> None:
    """Write how a recipe samples into a folder with a model: the two are a pipeline together."""
    _write_sampling(
        folder,
        {slot: getattr(experiment, slot) for slot in SAMPLING_SLOTS},
        prediction_type=experiment.objective().prediction_type,
        num_inference_steps=experiment.num_inference_steps,
        guidance_scale=experiment.guidance_scale,
        knows_no_video=_leaves_out_videos(experiment),
    )


def _write_sampling(folder: Path, factories: Mapping[str, Callable[..., Any]], **settings: Any) -> None:
    parts = {slot: describe_factory(factory) for slot, factory in factories.items()}
    write_json(folder / SAMPLING, {"format": FORMAT, **parts, **settings})


def _leaves_out_videos(experiment: Experiment) -> bool:
    """True where a stage trains the denoiser without a video too."""
    stages = [factory() for factory in experiment.stages]
    return any(getattr(stage, "video_dropout", 0) > 0 and not stage.idle for stage in stages)


@torch.no_grad()
def _reads_video(model: STAV2A) -> bool:
    """True where a video changes what the denoiser is conditioned on."""
    e_text, mask = encode_captions(model, [""])
    rng = torch.Generator().manual_seed(0)
    videos = [torch.rand(1, 8, model.block(slot).dim, generator=rng).to(e_text) for slot in model.encoders]
    some, none = (
        model.condition(e_v, e_text, mask, *e_tv)
        for e_v, *e_tv in (videos, [torch.zeros_like(each) for each in videos])
    )
    return not (torch.equal(some.c, none.c) and torch.equal(some.e_lv, none.e_lv))


def _documents(
    folder: run_folder.RunFolder, experiment: Experiment, model: STAV2A, name: str
) -> dict[str, str]:
    """Model card, recipe and scores of a run, whose model is given this name."""
    snapshot = folder.snapshot.read_text(encoding="utf-8")
    scores = folder.scores.read_text(encoding="utf-8") if folder.scores.is_file() else ""
    blocks = [
        BlockOrigin.of(
            slot,
            model.described[slot],
            sum(p.numel() for p in own_tensors(slot, model.block(slot).named_parameters())),
        )
        for slot in model.slots
    ]
    card = model_card(
        name,
        folder.facts()["recipe"],
        snapshot=snapshot,
        blocks=blocks,
        scores=from_json(scores) if scores else [],
        data=experiment.described("dataset"),
        sample_rate=model.front_end.sample_rate,
    )
    found = {CARD: card, folder.snapshot.name: snapshot, folder.scores.name: scores}
    return {document: text for document, text in found.items() if text}


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
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        return Path(snapshot_download(name))
    except (HTTPError, HFValidationError, OSError) as error:
        raise PretrainedError(
            f"there is no folder {name}, and it can't be had from the Hugging Face hub: {reason(error)}",
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
        no_sound, any_rate = np.zeros(0, np.float32), 1
        return Decoded(film, times_s, frame_rate_hz, len(film) / frame_rate_hz, no_sound, any_rate)
    if isinstance(film, str | Path):
        return Path(film)
    copy = temporary / "video"
    with copy.open("wb") as file:
        shutil.copyfileobj(film, file)
    return copy
