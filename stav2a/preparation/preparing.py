"""From a manifest to a prepared folder: plan, captions, clips, index, report."""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch

from stav2a.data.manifest import open_manifest
from stav2a.data.prepared.shards import (
    DROPPED,
    FAILED,
    FORMAT,
    KEPT,
    SETTINGS,
    TEXTS_IN_A_FILE,
    ClipRecord,
    pack_texts,
    text_fault,
)
from stav2a.preparation.clip_stages import ClipWork, Decode, Encode, is_changed, to_half
from stav2a.preparation.dataset_folder import DatasetFolder, write_index
from stav2a.preparation.dataset_report import write_report
from stav2a.preparation.executors import one_thread, run_local, run_ray
from stav2a.preparation.parts import RecipeParts
from stav2a.preparation.plan import PreparationRequest, same_plans, write_plan
from stav2a.utils.distributed import device
from stav2a.utils.errors import UsageError
from stav2a.utils.files import atomic, check_writable, exclusive, sweep
from stav2a.utils.progress import progress

Engine = Callable[[ClipWork, Iterable[int], int], Iterator[ClipRecord]]
ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}


def prepare(
    request: PreparationRequest,
    parts: RecipeParts,
    *,
    engine: str = "local",
    workers: int = 1,
    retry_failed: bool = False,
) -> list[str]:
    """Prepare a dataset, or continue where it was interrupted.

    Args:
        request: The clips and the folders.
        parts: The parts of the recipe.
        engine: Key of `ENGINES`.
        workers: Number of clips at a time.
        retry_failed: Try those clips again that failed before.

    Returns:
        Lines of the command's answer.

    Raises:
        ManifestError: The manifest can't be read.
        UsageError: A folder is missing, or holds something else.
    """
    if not request.videos.is_dir():
        raise UsageError(f"--videos {request.videos}: there is no such folder. Give the folder of the clips.")
    check_writable(request.output)
    folder = DatasetFolder(request.output)
    with exclusive(folder.lock, f"clips in {folder.path}"):
        sweep(folder.path.rglob(".tmp-*"))
        _begin(folder, request, parts)
        with progress(folder.plan.shards, "checking shards", "shard", leave=False) as bar:
            for number in bar.counted(range(folder.plan.shards)):
                for fault in folder.remove_damaged(number):
                    print(f"{fault}: its clips are prepared again", file=sys.stderr, flush=True)
        videos = request.videos.resolve()
        if changed := folder.reopen(partial(is_changed, videos)):
            print(f"preparing {changed} clips again, whose videos changed", file=sys.stderr, flush=True)
        if retry_failed:
            failed = folder.reopen(lambda facts: facts["status"] == FAILED)
            print(f"trying {failed} failed clips again", file=sys.stderr, flush=True)
        finished, encoders = folder.finished, parts.encoders
        if "text_encoder" in encoders:
            make_texts(folder, encoders["text_encoder"])
        if not finished:
            decode = Decode(
                folder.plan, videos, parts.settings, parts.detector, parts.filters, parts.front_end
            )
            encode = Encode(parts.settings.keep, encoders.get("feature_encoder"), encoders.get("autoencoder"))
            _make_shards(folder, ClipWork(decode, encode), ENGINES[engine], workers)
        folder.unfinished.mkdir(exist_ok=True)
        summary = write_report(folder, write_index(folder))
        shutil.rmtree(folder.unfinished, ignore_errors=True)
    return [
        *summary.lines(),
        f"report   {folder.path / 'report.html'}",
        f"clips    {folder.path / 'clips.csv'}",
    ]


def _begin(folder: DatasetFolder, request: PreparationRequest, parts: RecipeParts) -> None:
    """Write the settings and the plan, or check that the folder was begun with the same settings."""
    manifest = open_manifest(request.manifest)
    captions = open_manifest(request.captions).signature() if request.captions else None
    settings: dict[str, Any] = {
        "format": FORMAT,
        "manifest": {"form": manifest.form, "sha256": manifest.signature(), "captions": captions},
        "choices": {
            "split": request.split,
            "validation": request.validation,
            **({"test": request.test} if request.test else {}),
            "shard": request.shard_clips,
        },
        "kept": list(parts.kept),
        "videos": str(request.videos.resolve()),
        **parts.described,
    }
    lines = (f"{request.manifest}: read as {manifest.form}", *parts.kept)
    print("\n".join(lines), file=sys.stderr, flush=True)
    if (folder.path / SETTINGS).is_file():
        found = folder.settings()
        names = sorted(found.keys() | settings.keys())
        if differing := [name for name in names if found.get(name) != settings.get(name)]:
            raise UsageError(
                f"{folder.path} holds clips prepared with another {' and another '.join(differing)}. "
                "Choose another --output, or give the same command again."
            )
        with atomic(folder.plan.path) as temporary:
            write_plan(temporary, manifest, request)
            if not same_plans(folder.plan.path, temporary):
                print(f"{folder.plan.path}: damaged: made again", file=sys.stderr, flush=True)
        return
    others = [each for each in folder.path.iterdir() if each.name != folder.lock.name]
    if others and not folder.unfinished.is_dir():
        raise UsageError(f"{folder.path} holds other things. Choose a new or empty --output.")
    folder.unfinished.mkdir(exist_ok=True)
    with atomic(folder.plan.path) as temporary:
        write_plan(temporary, manifest, request)
    folder.write_json(folder.path / SETTINGS, settings)


def make_texts(folder: DatasetFolder, encoder: Any) -> None:
    """Encode all captions of the plan; files that hold them already are left."""
    captions, number = folder.plan.captions(), 0
    with one_thread(), torch.no_grad(), progress(None, "encoding captions", "caption") as bar:
        while group := list(islice(captions, TEXTS_IN_A_FILE)):
            path = folder.text(number)
            fault = text_fault(path, group) if path.is_file() else ""
            if fault:
                told = f"{path}: {fault}: its captions are encoded again"
                print(told, file=sys.stderr, flush=True)
            if fault or not path.is_file():
                encoded = [encoder.to(device())([caption]) for caption in group]
                tokens = [to_half("e_text", e_text[0][mask[0]]) for e_text, mask in encoded]  # (K_i, D)
                folder.write(path, pack_texts(group, tokens))
            bar.update(len(group))
            number += 1


def _make_shards(folder: DatasetFolder, work: ClipWork, engine: Engine, workers: int) -> None:
    """Prepare the clips of every shard that is not finished.

    A shard holds the same clips in the same order whatever the engine and the number of workers; a finished
    clip is on disk before the next is asked for, so that a killed process loses only what it had in hand.
    """
    plan = folder.plan
    waiting: dict[int, set[int]] = {}  # shard -> positions of its unfinished clips
    counts = dict.fromkeys((KEPT, DROPPED, FAILED), 0)
    bar = progress(plan.clips, "preparing clips", "clip")

    def positions() -> Iterator[int]:
        for shard in range(plan.shards):
            missing = folder.missing(shard)
            bar.skip(len(plan.positions(shard)) - len(missing))
            if missing:
                waiting[shard] = set(missing)
                yield from missing
            elif not folder.shard(shard).exists():
                folder.close(shard)

    with bar:
        for record in engine(work, positions(), workers):
            shard = record.position // plan.shard_clips
            folder.write(folder.part(shard, record.position), record.pack())
            counts[record.facts["status"]] += 1
            bar.note(", ".join(f"{name} {count}" for name, count in counts.items()))
            bar.update()
            waiting[shard].discard(record.position)
            if not waiting[shard]:
                folder.close(shard)
                del waiting[shard]
