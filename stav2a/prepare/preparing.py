"""From a manifest to a prepared folder: plan, clips, captions, index, report."""

import importlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.data.cache.layout import FAILED, FORMAT, SETTINGS
from stav2a.data.manifests import Captions, open_manifest
from stav2a.errors import UsageError
from stav2a.prepare.folder import Folder
from stav2a.prepare.index import write_index
from stav2a.prepare.making import Engine, make_shards
from stav2a.prepare.parts import Parts
from stav2a.prepare.plan import Choices, write_plan
from stav2a.prepare.reporting import report
from stav2a.prepare.stages import Decode, Encode, Work
from stav2a.prepare.texts import make_texts
from stav2a.run_folder import check_writable
from stav2a.store import alone

ENGINES = ("local", "ray")
SHARD_CLIPS = 256


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Args:
        manifest: A file or a folder.
        videos: The folder of the clips' files.
        output: The folder to make.
        captions: A file of captions, joined by id.
        split: Of clips whose manifest names none.
        validation: Part of the training clips to hold out, where the manifest holds out none.
        shard_clips: Clips a shard.
    """

    manifest: Path
    videos: Path
    output: Path
    captions: Path | None = None
    split: str = "train"
    validation: float = 0.0
    shard_clips: int = SHARD_CLIPS


def prepare(
    request: Request, parts: Parts, *, engine: str = "local", workers: int = 1, retry_failed: bool = False
) -> list[str]:
    """Carry it out, or go on with it.

    Args:
        request: What is asked for.
        parts: What the recipe says.
        engine: One of `ENGINES`.
        workers: Clips at a time.
        retry_failed: Try those again that failed.

    Returns:
        Lines for people.

    Raises:
        ManifestError: The manifest can't be read.
        UsageError: A folder is not there, or holds something else.
    """
    if not request.videos.is_dir():
        raise UsageError(f"--videos {request.videos}: there is no such folder. Give the folder of the clips.")
    check_writable(request.output)
    folder = Folder(request.output)
    with alone(folder.lock, f"clips in {folder.path}"):
        _begin(folder, request, parts)
        if retry_failed:
            again = sum(folder.reopen(number, FAILED) for number in _finished_shards(folder))
            tell(f"trying {again} failed clips again")
        if not folder.finished:
            _make(folder, request.videos, parts, _engine(engine), workers)
        folder.unfinished.mkdir(exist_ok=True)
        summary = report(folder, write_index(folder))
        shutil.rmtree(folder.unfinished, ignore_errors=True)
    return [*summary.lines(), *places(folder)]


def _begin(folder: Folder, request: Request, parts: Parts) -> None:
    """Write down what is asked for, or check that it was asked for before."""
    manifest = open_manifest(request.manifest)
    captions = open_manifest(request.captions).signature() if request.captions else None
    settings: dict[str, Any] = {
        "format": FORMAT,
        "manifest": {"form": manifest.form, "sha256": manifest.signature(), "captions": captions},
        "choices": {"split": request.split, "validation": request.validation, "shard": request.shard_clips},
        "kept": list(parts.kept),
        "videos": str(request.videos.resolve()),
        **parts.described,
    }
    for line in (f"{request.manifest}: read as {manifest.form}", *parts.kept):
        tell(line)
    if folder.begun:
        folder.check(settings)
        return
    if folder.path.exists() and any(each.name != folder.lock.name for each in folder.path.iterdir()):
        if not folder.unfinished.is_dir():
            raise UsageError(f"{folder.path} holds other things. Choose a new or empty --output.")
    folder.unfinished.mkdir(parents=True, exist_ok=True)
    choices = Choices(
        Captions(request.captions) if request.captions else None, request.split, request.validation
    )
    temporary = folder.unfinished / "plan.parquet"
    write_plan(temporary, manifest, choices, request.shard_clips)
    temporary.replace(folder.path / "plan.parquet")
    folder.write_json(folder.path / SETTINGS, settings)


def _make(folder: Folder, videos: Path, parts: Parts, engine: Engine, workers: int) -> None:
    if encoder := parts.encoders.get("text_encoder"):
        make_texts(folder, encoder)
    decode = Decode(folder.plan, videos.resolve(), parts.settings, parts.detector, parts.filters)
    encode = Encode(
        parts.settings.keep, parts.encoders.get("feature_encoder"), parts.encoders.get("autoencoder")
    )
    make_shards(folder, Work(decode, encode), engine, workers)


def _finished_shards(folder: Folder) -> list[int]:
    return [number for number in range(folder.plan.shards) if folder.shard(number).exists()]


def _engine(name: str) -> Engine:
    module = {"local": "stav2a.prepare.local", "ray": "stav2a.prepare.ray_data"}[name]
    return importlib.import_module(module).run


def places(folder: Folder) -> list[str]:
    """Where everything is."""
    return [
        f"report   {folder.path / 'report.html'}",
        f"clips    {folder.path / 'clips.csv'}",
        f"train    run.dataset = @dataset.prepared, dataset.prepared.folder = {str(folder.path)!r}",
    ]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
