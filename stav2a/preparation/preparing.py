"""From a manifest to a prepared folder: plan, clips, captions, index, report."""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stav2a.data.manifest import Captions, open_manifest
from stav2a.data.prepared.shards import (
    DROPPED,
    FAILED,
    FORMAT,
    KEPT,
    SETTINGS,
    TEXTS_IN_A_FILE,
    ClipRecord,
    pack_texts,
)
from stav2a.preparation.clip_stages import ClipWork, Decode, Encode, half
from stav2a.preparation.dataset_folder import Folder, write_index
from stav2a.preparation.dataset_report import report
from stav2a.preparation.executors import one_thread, run_local, run_ray
from stav2a.preparation.parts import Parts
from stav2a.preparation.plan import SplitOptions, write_plan
from stav2a.utils.distributed import device
from stav2a.utils.errors import UsageError
from stav2a.utils.files import check_writable, exclusive

Engine = Callable[[ClipWork, Iterable[int], int], Iterator[ClipRecord]]


def make_shards(folder: Folder, work: ClipWork, engine: Engine, workers: int) -> None:
    """Bring every shard to its end.

    A shard holds the same clips in the same order whatever the engine and the number of workers; a finished
    clip is on disk before the next is asked for, so that a killed process loses only what it had in hand.

    Args:
        folder: Where to.
        work: What is done to a clip.
        engine: Who does it.
        workers: How many at a time.
    """
    plan = folder.plan
    waiting: dict[int, set[int]] = {}
    with PreparationProgress(plan.clips) as progress:
        for row in engine(work, _missing(folder, waiting, progress), workers):
            shard = row.position // plan.shard_clips
            folder.write(folder.part(shard, row.position), row.pack())
            progress.add(row.facts["status"])
            waiting[shard].discard(row.position)
            if not waiting[shard]:
                folder.close(shard, plan.positions(shard))
                del waiting[shard]


def _missing(folder: Folder, waiting: dict[int, set[int]], progress: "PreparationProgress") -> Iterator[int]:
    """The clips still to do, shard by shard."""
    plan = folder.plan
    for shard in range(plan.shards):
        positions = plan.positions(shard)
        missing = folder.missing(shard, positions)
        progress.skip(len(positions) - len(missing))
        if folder.shard(shard).exists():
            continue
        if missing:
            waiting[shard] = set(missing)
            yield from missing
        else:
            folder.close(shard, positions)


class PreparationProgress:
    """A bar with clips a second, the time left, and how many were kept, dropped, and failed.

    Args:
        clips: All of them.
    """

    def __init__(self, clips: int) -> None:
        self.bar = tqdm(total=clips, desc="preparing clips", unit="clip", disable=None, smoothing=0.1)
        self.counts = dict.fromkeys((KEPT, DROPPED, FAILED), 0)

    def __enter__(self) -> "PreparationProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def skip(self, clips: int) -> None:
        """Clips that were there: they count, but not for the speed."""
        if not self.bar.disable:
            self.bar.initial += clips
            self.bar.update(clips)

    def add(self, status: str) -> None:
        """A clip made now."""
        self.counts[status] += 1
        self.bar.set_postfix(self.counts, refresh=False)
        self.bar.update()


def make_texts(folder: Folder, encoder: Any) -> None:
    """Encode all captions of the plan; files that are there are left.

    Args:
        folder: Where to.
        encoder: With its weights.
    """
    bar = tqdm(desc="encoding captions", unit="caption", disable=None)
    with one_thread(), bar:
        for number, captions in enumerate(_groups(folder.plan.captions(), TEXTS_IN_A_FILE)):
            if not folder.text(number).exists():
                folder.write(folder.text(number), pack_texts(captions, [embed(encoder, c) for c in captions]))
            bar.update(len(captions))


def embed(encoder: Any, caption: str) -> np.ndarray:
    """The tokens of one caption that count: (K, D) float16."""
    import torch

    with torch.no_grad():
        e_text, mask = encoder.to(device())([caption])
    return half("e_text", e_text[0][mask[0]])


def _groups(captions: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for caption in captions:
        group.append(caption)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}
SHARD_CLIPS = 256


@dataclass(frozen=True)
class PreparationRequest:
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
    request: PreparationRequest,
    parts: Parts,
    *,
    engine: str = "local",
    workers: int = 1,
    retry_failed: bool = False,
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
    with exclusive(folder.lock, f"clips in {folder.path}"):
        _begin(folder, request, parts)
        if retry_failed:
            again = sum(folder.reopen(number, FAILED) for number in _finished_shards(folder))
            tell(f"trying {again} failed clips again")
        if not folder.finished:
            _make(folder, request.videos, parts, ENGINES[engine], workers)
        folder.unfinished.mkdir(exist_ok=True)
        summary = report(folder, write_index(folder))
        shutil.rmtree(folder.unfinished, ignore_errors=True)
    return [*summary.lines(), *places(folder)]


def _begin(folder: Folder, request: PreparationRequest, parts: Parts) -> None:
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
    choices = SplitOptions(
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
    make_shards(folder, ClipWork(decode, encode), engine, workers)


def _finished_shards(folder: Folder) -> list[int]:
    return [number for number in range(folder.plan.shards) if folder.shard(number).exists()]


def places(folder: Folder) -> list[str]:
    """Where everything is."""
    return [
        f"report   {folder.path / 'report.html'}",
        f"clips    {folder.path / 'clips.csv'}",
        f"train    run.dataset = @dataset.prepared, dataset.prepared.folder = {str(folder.path)!r}",
    ]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
