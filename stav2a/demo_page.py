"""The page of `stav2a demo`: sound by the pipelines of finished models for films, dropped on it or examples.

Films and sounds lie in one temporary folder. No path of a request is ever a path on disk: everything is
looked up by a random token. One thread generates, one job after another.
"""

import asyncio
import random
import secrets
import shutil
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from stav2a.data.manifest import control_in
from stav2a.data.media import MediaError, MixSettings, mux, probe, write_wav
from stav2a.data.struck_objects import CLASSES, StruckObjects, write_performance
from stav2a.models.stav2a import describe_factory, own_tensors
from stav2a.pipeline import SAMPLING_SLOTS, VideoToAudioPipeline
from stav2a.registry import available
from stav2a.reports.html import TEMPLATES, render
from stav2a.sampling.guiders import TwoWeights
from stav2a.sampling.video_to_audio import step_count
from stav2a.utils.errors import (
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_STEPS,
    UsageError,
    check_bounds,
    exit_code,
    printable,
)
from stav2a.utils.local_server import RequestError, json_body

MAX_UPLOAD = 256 * 2**20  # bytes of a film
UPLOAD_S = 300.0  # for a film to arrive whole
LONGEST_S = 120.0  # of a film
KEPT = 16  # films, and as many jobs with their sounds; older ones are removed
WAITING = 4  # jobs at a time
MAX_VARIANTS = 8
MAX_TEXT = 500  # characters of a prompt
MIX_HZ = 48_000  # rate of a film whose own sound is kept
GAINS_DB, DUCKS_DB = (-40.0, 20.0), (0.0, 40.0)
EXAMPLE = '{"video": …, "prompt": "a drum"}'


@dataclass(frozen=True)
class Upload:
    """A film that was dropped on the page.

    Args:
        path: Its file.
        name: Its name where it came from.
        duration_s: Duration of its picture.
    """

    path: Path
    name: str
    duration_s: float


@dataclass(frozen=True)
class GenerationRequest:
    """Settings of sound for a film, as the page sends them.

    Args:
        models: Names of the models; two for a blind comparison.
        prompt: As in the pipeline, like those that follow; None leaves it to the model.
        own_gain_db: Level of the film's own sound in the mix; None leaves that sound out.
        duck_db: Most by which it is lowered while the new one sounds.
        blind: True where the models' names are shown after the choice alone.
    """

    models: tuple[str, ...]
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    video_guidance_scale: float | None = None
    variants: int = 1
    own_gain_db: float | None = None
    duck_db: float = 0.0
    blind: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any], models: Sequence[str]) -> "GenerationRequest":
        """The settings in the body of an HTTP request.

        Raises:
            UsageError: One of its values can't be used.
        """
        blind = body.get("blind") is True
        named = body.get("models") or list(models[: 2 if blind else 1])
        if not isinstance(named, list) or any(each not in models for each in named):
            raise UsageError(f"models = {named!r}. Expected some of {', '.join(models)}.")
        if len(named) != (2 if blind else 1) or len(set(named)) != len(named):
            raise UsageError("a comparison is of two different models, and all else of one. Choose them.")

        def text(name: str) -> str:
            value = body.get(name, "")
            if not isinstance(value, str) or len(value) > MAX_TEXT or control_in(value):
                raise UsageError(f"{name} is no text of one line, of at most {MAX_TEXT} characters.")
            return value

        def number(name: str, least: float, most: float, default: Any, *, whole: bool = False) -> Any:
            value = body.get(name)
            if value is None:
                return default
            if type(value) not in ((int,) if whole else (int, float)):  # True is no number
                kind = "whole number" if whole else "number"
                raise UsageError(f"{name} = {value!r}: expected a {kind} from {least:g} to {most:g}.")
            check_bounds(name, value, least, most)
            return value

        return cls(
            models=tuple(named),
            prompt=text("prompt"),
            negative_prompt=text("negative_prompt"),
            seed=number("seed", 0, MAX_SEED - MAX_VARIANTS, 0, whole=True),
            num_inference_steps=number("num_inference_steps", 1, MAX_STEPS, None, whole=True),
            guidance_scale=number("guidance_scale", 0, MAX_GUIDANCE, None),
            video_guidance_scale=number("video_guidance_scale", 0, MAX_GUIDANCE, None),
            variants=number("variants", 1, 1 if blind else MAX_VARIANTS, 1, whole=True),
            own_gain_db=number("own_gain_db", *GAINS_DB, None),
            duck_db=number("duck_db", *DUCKS_DB, 0.0),
            blind=blind,
        )


@dataclass(frozen=True)
class GeneratedFilm:
    """A film with a generated sound, and that sound alone.

    Args:
        model: Name of the model.
        seed: Seed of the noise.
        mp4: The film's file.
        wav: The generated sound's file, without the film's own sound.
        remarks: Descriptions of what `mux` left out.
    """

    model: str
    seed: int
    mp4: Path
    wav: Path
    remarks: tuple[str, ...]


class StoppedError(Exception):
    """A job was stopped from the page."""


@dataclass
class GenerationJob:
    """A request, its progress and its result.

    Args:
        request: The settings.
        upload: Its film.
        steps: Denoising steps in all.
        folder: Folder of its files.
        done: Steps that are done.
        films: Films, once all are made.
        error: Reason that there are none.
        choice: The one that was liked more in a blind comparison: A, B or neither.
        stop: Set to stop the job.
    """

    request: GenerationRequest
    upload: Upload
    steps: int
    folder: Path
    done: int = 0
    films: tuple[GeneratedFilm, ...] = ()
    error: str = ""
    choice: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        """True once there are films or an error."""
        return bool(self.films or self.error)


class Demo:
    """Films, jobs and models of one page.

    Args:
        pipes: Pipelines, by the name that is shown.
        folder: An empty folder for films and sounds, which whoever made it removes.
    """

    def __init__(self, pipes: Mapping[str, VideoToAudioPipeline], folder: Path) -> None:
        self.pipes, self.folder = pipes, folder
        # Test clips, which no model of the benchmark was trained on, with captions that name the object.
        clips = StruckObjects(
            train_clips=0, validation_clips=0, test_clips=len(CLASSES), vague_fraction=0.0
        ).performances()
        self.examples = {clip.label: clip for clip in clips}
        self.uploads: dict[str, Upload] = {}
        self.jobs: dict[str, GenerationJob] = {}
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="generate")

    def close(self) -> None:
        """Stop all jobs and wait for the step that is being computed."""
        for job in self.jobs.values():
            job.stop.set()
        self.worker.shutdown()

    def keep(self, path: Path, name: str) -> str:
        """Token of a film that has arrived in a file of this folder.

        Raises:
            MediaError: It is no video, or too long; its file is removed.
        """
        try:
            duration_s = probe(path, hidden=True).duration_s
            if duration_s > LONGEST_S:
                raise MediaError(f"{duration_s:.0f} s long; at most {LONGEST_S:g} s are taken. Cut it.", path)
        except MediaError as error:
            path.unlink(missing_ok=True)
            raise MediaError(error.message, name) from error
        used = {job.upload.path for job in self.jobs.values() if not job.ended}
        for token, old in [*self.uploads.items()][: max(0, len(self.uploads) + 1 - KEPT)]:
            if old.path not in used:
                del self.uploads[token]
                old.path.unlink(missing_ok=True)
        token = secrets.token_hex(12)
        self.uploads[token] = Upload(path, name, duration_s)
        return token

    def example(self, label: str) -> tuple[str, str]:
        """Token and caption of an example, which is rendered when it is asked for.

        Raises:
            HTTPException: There is no example of this class.
        """
        if label not in self.examples:
            raise HTTPException(404, f"there is no example {label!r}, only {', '.join(self.examples)}.")
        path = self.folder / f"{secrets.token_hex(12)}.mp4"
        write_performance(self.examples[label], path)
        return self.keep(path, f"{label}.mp4"), self.examples[label].caption

    def begin(self, body: Mapping[str, Any]) -> str:
        """Token of a job, which is carried out after those before it.

        Raises:
            UsageError: It can't be carried out.
        """
        upload = self.uploads.get(str(body.get("video")))
        if upload is None:
            raise UsageError("the video is not there any more. Give it again.")
        request = GenerationRequest.of(body, list(self.pipes))
        if sum(not job.ended for job in self.jobs.values()) >= WAITING:
            raise UsageError(f"{WAITING} jobs are waiting already. Try again when one is done.")
        steps = 0
        for name in request.models:
            pipe = self.pipes[name]
            if request.video_guidance_scale is not None and not isinstance(pipe.guider, TwoWeights):
                raise UsageError(f"{name} has no weight of the video. Leave it out.")
            number = request.num_inference_steps or pipe.num_inference_steps
            steps += step_count(
                pipe.model, upload.duration_s, sounds=request.variants, num_inference_steps=number
            )
        ended = [token for token, job in self.jobs.items() if job.ended]
        for token in ended[: max(0, len(self.jobs) + 1 - KEPT)]:
            shutil.rmtree(self.jobs.pop(token).folder, ignore_errors=True)
        token = secrets.token_hex(12)
        self.jobs[token] = GenerationJob(request, upload, steps, self.folder / token)
        self.worker.submit(self._carry_out, self.jobs[token])
        return token

    def _carry_out(self, job: GenerationJob) -> None:
        """Make the films of a job, or note why there are none."""
        try:
            films = self._generate(job)
        except StoppedError:
            job.error = "Stopped."
        except MediaError as error:
            job.error = str(MediaError(error.message, job.upload.name))
        except Exception as error:
            if exit_code(error) is None:
                traceback.print_exc()
                job.error = f"{type(error).__name__}: an error of the program; the terminal shows where."
            else:
                job.error = printable(error)
        else:
            job.films = tuple(films)
        if job.error:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _generate(self, job: GenerationJob) -> list[GeneratedFilm]:
        request, film = job.request, job.upload.path
        mix = MixSettings()
        if request.own_gain_db is not None:
            mix = MixSettings(sample_rate=MIX_HZ, own_gain_db=request.own_gain_db, duck_db=request.duck_db)
        own = mix.own_sound(film)  # before minutes of computing

        def stepped(*progress: object) -> None:
            job.done += 1
            if job.stop.is_set():
                raise StoppedError

        films: list[GeneratedFilm] = []
        for name in request.models:
            if job.stop.is_set():
                raise StoppedError
            made = self.pipes[name](
                film,
                request.prompt,
                negative_prompt=request.negative_prompt,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                video_guidance_scale=request.video_guidance_scale,
                num_waveforms_per_prompt=request.variants,
                seed=request.seed,
                callback_on_step_end=stepped,
            )
            for seed, audio in enumerate(made.audios, request.seed):
                stem, mixed = str(len(films)), mix(audio, made.sampling_rate, own)
                target, wav = job.folder / f"{stem}.mp4", job.folder / f"{stem}.wav"
                remarks = mux(film, mixed.whole, mixed.sample_rate, target, reencode=True, hidden=True)
                write_wav(wav, audio, made.sampling_rate)
                films.append(GeneratedFilm(name, seed, target, wav, tuple(remarks)))
        if request.blind:
            random.SystemRandom().shuffle(films)
        return films

    def state(self, token: str) -> dict[str, Any]:
        """Progress and films of a job; those of a blind comparison without names before the choice.

        Raises:
            HTTPException: There is no such job.
        """
        job = self.job(token)
        revealed = bool(job.choice) or not job.request.blind
        films = [
            {
                "film": f"/films/{token}/{number}.mp4",
                "remarks": list(each.remarks),
                **({"wav": f"/films/{token}/{number}.wav", "model": each.model} if revealed else {}),
                "seed": each.seed,
            }
            for number, each in enumerate(job.films)
        ]
        return {
            "done": min(job.done, job.steps),
            "steps": job.steps,
            "error": job.error,
            "films": films,
            "choice": job.choice,
        }

    def choose(self, token: str, choice: Any) -> dict[str, Any]:
        """Note which of two films is liked more, once, and return the state with the models' names.

        Raises:
            UsageError: It is no choice.
        """
        job = self.job(token)
        if not job.request.blind or not job.films or choice not in ("A", "B", "neither"):
            raise UsageError(f"choice = {choice!r}: expected A, B or neither, of a finished comparison.")
        job.choice = job.choice or choice
        return self.state(token)

    def job(self, token: str) -> GenerationJob:
        if token not in self.jobs:
            raise HTTPException(404, "this is not there any more. Load the page again.")
        return self.jobs[token]

    def facts(self) -> list[dict[str, Any]]:
        """Components and sampling settings of each model."""
        return [{"name": name, **_facts(pipe)} for name, pipe in self.pipes.items()]


def _facts(pipe: VideoToAudioPipeline) -> dict[str, Any]:
    """Components of a model with their parameters, and the settings of its sampling."""
    model = pipe.model
    summaries = {each.selector: each.summary for each in available()}

    def row(slot: str, described: Any, weights: int | None) -> dict[str, Any]:
        described = described or {"component": "", "parameters": {}}
        component, parameters = described["component"], described["parameters"]
        settings = ", ".join(f"{key} = {_short(value)}" for key, value in parameters.items())
        return {
            "slot": slot,
            "component": component,
            "settings": settings,
            "summary": summaries.get(component, ""),
            "weights": weights,
        }

    blocks = []
    for slot in model.slots:
        weights = sum(p.numel() for p in own_tensors(slot, model.block(slot).named_parameters()))
        blocks.append(row(slot, model.described.get(slot), weights))
    return {
        "blocks": blocks,
        "parts": [row(slot, describe_factory(pipe.factories[slot]), None) for slot in SAMPLING_SLOTS],
        "sampling": {
            "denoising steps": pipe.num_inference_steps,
            "guidance scale": f"{pipe.guidance_scale:g}",
            "prediction": pipe.prediction_type,
            "window": f"{model.duration_s:g} s",
            "sample rate": f"{model.front_end.sample_rate} Hz",
        },
        "two_weights": isinstance(pipe.guider, TwoWeights),
        "steps": pipe.num_inference_steps,
        "guidance": pipe.guidance_scale,
    }


def _short(value: Any) -> str:
    return str(value["component"]) if isinstance(value, dict) and "component" in value else str(value)


def pages(demo: Demo) -> Starlette:
    """Application with the page, its script, the films that come in and those that are made."""

    def page(request: Request) -> Response:
        frame: dict[str, Any] = {"title": "Sound for a video", "facts": {}, "curves": None, "details": {}}
        limits = {"megabytes": MAX_UPLOAD // 2**20, "longest_s": LONGEST_S, "variants": MAX_VARIANTS}
        most = {"max_seed": MAX_SEED - MAX_VARIANTS, "max_steps": MAX_STEPS, "max_text": MAX_TEXT}
        return HTMLResponse(
            render(
                "demo.html",
                models=demo.facts(),
                examples=[*demo.examples],
                max_guidance=MAX_GUIDANCE,
                mix_hz=MIX_HZ,
                gains_db=GAINS_DB,
                ducks_db=DUCKS_DB,
                **limits,
                **most,
                **frame,
            )
        )

    def script(request: Request) -> Response:
        return FileResponse(TEMPLATES / "demo.js", media_type="text/javascript")

    async def upload(request: Request) -> Response:
        name = Path(request.query_params.get("name", "film")).name[:200] or "film"
        path = demo.folder / secrets.token_hex(12)
        try:
            await _receive(request, path, name)
            token = await run_in_threadpool(demo.keep, path, name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return JSONResponse({"video": token, "seconds": demo.uploads[token].duration_s})

    async def example(request: Request) -> Response:
        await json_body(request, "{}")  # other sites' pages can't send it
        token, caption = await run_in_threadpool(demo.example, request.path_params["label"])
        return JSONResponse({"video": token, "seconds": demo.uploads[token].duration_s, "caption": caption})

    def uploaded(request: Request) -> Response:
        found = demo.uploads.get(request.path_params["token"])
        if found is None:
            raise HTTPException(404, "this video is not there any more.")
        return FileResponse(found.path, media_type="video/mp4")

    async def begin(request: Request) -> Response:
        body = await json_body(request, EXAMPLE)
        return JSONResponse({"job": await run_in_threadpool(demo.begin, body)})

    def state(request: Request) -> Response:
        return JSONResponse(demo.state(request.path_params["token"]))

    async def change(request: Request) -> Response:
        token, body = request.path_params["token"], await json_body(request, '{"choice": "A"}')
        if body.get("stop") is True:
            demo.job(token).stop.set()
            return JSONResponse(demo.state(token))
        return JSONResponse(demo.choose(token, body.get("choice")))

    def made(request: Request, ending: str) -> Response:
        token, number = request.path_params["token"], request.path_params["number"]
        state, job = demo.state(token), demo.job(token)
        if number >= len(job.films) or (ending == "wav" and "wav" not in state["films"][number]):
            raise HTTPException(404, "there is no such video.")
        film = job.films[number]
        path = film.mp4 if ending == "mp4" else film.wav
        kind = "video/mp4" if ending == "mp4" else "audio/wav"
        if "download" not in request.query_params:
            return FileResponse(path, media_type=kind)
        return FileResponse(
            path, media_type=kind, filename=f"{Path(job.upload.name).stem}-{film.seed}.{ending}"
        )

    def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        return JSONResponse({"error": printable(error)}, 400)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/demo.js", script),
            Route("/uploads", upload, methods=["POST"]),
            Route("/uploads/{token}", uploaded),
            Route("/examples/{label}", example, methods=["POST"]),
            Route("/jobs", begin, methods=["POST"]),
            Route("/jobs/{token}", state),
            Route("/jobs/{token}", change, methods=["POST"]),
            Route("/films/{token}/{number:int}.mp4", partial(made, ending="mp4")),
            Route("/films/{token}/{number:int}.wav", partial(made, ending="wav")),
        ],
        exception_handlers={
            each: refused for each in (MediaError, UsageError, RequestError, ClientDisconnect, HTTPException)
        },
    )


async def _receive(request: Request, path: Path, name: str) -> None:
    """Write what a request carries to a file.

    Raises:
        MediaError: It is larger than a film may be, or not sent by the page.
        HTTPException: It does not arrive in time.
    """
    if request.headers.get("content-type") != "application/octet-stream":  # other sites' pages can't send it
        raise MediaError("not a video. Expected Content-Type: application/octet-stream.", name)
    size = 0
    try:
        async with asyncio.timeout(UPLOAD_S):
            with path.open("wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_UPLOAD:
                        message = f"larger than {MAX_UPLOAD // 2**20} MB. Cut it, or scale it down."
                        raise MediaError(message, name)
                    file.write(chunk)
    except TimeoutError:
        late = f"it did not arrive within {UPLOAD_S:g} s. Send it again."
        raise HTTPException(408, late, {"Connection": "close"}) from None
