"""From a dataset to tensors: clips decoded once, filtered, labelled, and kept in the store."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stav2a import processes
from stav2a.assembly import STAV2A, as_video, encode_captions
from stav2a.data import mel as front_end
from stav2a.data.clip import Clip
from stav2a.data.filters import Decision
from stav2a.data.flow import motion
from stav2a.data.io import decode
from stav2a.data.onsets import onset_frames
from stav2a.data.pool import parallel
from stav2a.data.prepare import Prepared, prepare
from stav2a.errors import UsageError
from stav2a.processes import device
from stav2a.slots import OpticalFlow
from stav2a.store import Store, load_tensors, save_tensors, write_json
from stav2a.training.work import Corpus, Texts

AT_ONCE = 64  # clips encoded together


def prepared(
    clips: Sequence[Clip],
    model: STAV2A,
    detector: Any,
    filters: Mapping[str, Any],
    *,
    store: Store,
    key: str,
) -> Prepared:
    """The clips as arrays, with every filter's decisions, from the store or decoded now.

    Args:
        clips: What to decode.
        model: Says the frame rate, the frame size and the duration.
        detector: Finds the onsets' pseudo-labels.
        filters: Filters to ask about every clip, each by the signature of its description.
        store: Where the result is kept.
        key: Signature of the dataset, the detector, and the model's demands.
    """
    with processes.main_first(), store.alone("clips", key):
        unasked = {name: f for name, f in filters.items() if not store.has("filter", key + name)}
        if unasked or not store.has("clips", key):
            _prepare(clips, model, detector, unasked, store=store, key=key)
    found = Prepared.load(store.path("clips", key))
    decided = {name: store.path("filter", key + name) / "decisions.json" for name in filters}
    here = {clip.id: clip for clip in clips}  # the files may have moved since
    return replace(
        found,
        clips=[here[clip.id] for clip in found.clips],
        decisions={
            name: [Decision(**each) for each in json.loads(path.read_text())]
            for name, path in decided.items()
        },
    )


def _prepare(
    clips: Sequence[Clip], model: STAV2A, detector: Any, filters: Mapping[str, Any], *, store: Store, key: str
) -> None:
    encoder = model.feature_encoder
    made = prepare(
        clips,
        frame_rate_hz=encoder.frame_rate_hz,
        frame_size=encoder.frame_size,
        duration_s=model.duration_s,
        detector=detector,
        filters=filters,
    )
    for name, decisions in made.decisions.items():
        with store.create("filter", key + name) as folder:
            write_json(folder / "decisions.json", [asdict(decision) for decision in decisions])
    with store.create("clips", key) as folder:
        replace(made, decisions={}).save(folder)


@dataclass(frozen=True)
class Tensors:
    """Clips as tensors, in memory or on disk: what is asked for by rows is a tensor in memory.

    Args:
        frames: uint8 (N, L, 3, H, W).
        mel: Log-mels (N, 1, Tm, M).
        onsets: Pseudo-labels in latent frames, (N, T) float32.
        features: Gives e_v (N, L, D_v) where it is prepared; None has it computed of the frames.
        latents: Gives mean and deviation, each (N, C, T, F), where they are; None has them computed of mel.
        texts: Embeddings of captions where they are, see `Corpus`; None has captions encoded at every step.
    """

    frames: Any
    mel: Any
    onsets: Tensor
    features: Callable[[], Tensor] | None = None
    latents: Callable[[], tuple[Tensor, Tensor]] | None = None
    texts: Texts | None = None


def tensors(data: Prepared, model: STAV2A) -> Tensors:
    """Decoded clips as tensors."""
    mel = torch.cat([front_end.log_mel(part) for part in torch.from_numpy(data.audio).split(AT_ONCE)])
    length, rate = model.latent_shape[1], model.latent_rate_hz
    onsets = np.stack([onset_frames(times, length, rate) for times in data.pseudo_onsets])
    return Tensors(torch.from_numpy(data.frames), mel, torch.from_numpy(onsets).float())


def corpus(
    data: Prepared,
    given: Tensors,
    model: STAV2A,
    filter_key: Callable[[Any], str],
    *,
    store: Store,
    keys: Mapping[str, str],
) -> Corpus:
    """Tensors for the training stages; features and latents are computed when first asked for.

    Args:
        data: The clips, and what was decided on them.
        given: The same as tensors.
        model: Its encoders make features and latents, once they are trained.
        filter_key: The signature of a filter's factory, as `prepared` knows it.
        store: Where features and latents are kept.
        keys: Signature of what each block makes of the data.
    """
    classes = class_names(data.clips)

    def rows(split: str, data_filter: Callable[..., Any]) -> Tensor:
        kept = data.rows(split, filter_key(data_filter))
        if not len(kept):
            raise UsageError(_nothing_left(split, data.decisions[filter_key(data_filter)]))
        return torch.from_numpy(kept)

    def derived(kind: str, block: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        with processes.main_first():
            folder = store.obtain(
                kind, keys[block], lambda made: save_tensors(made / "tensors.safetensors", compute())
            )
        return load_tensors(folder / "tensors.safetensors")

    @functools.cache
    def features() -> Tensor:
        return derived("features", "feature_encoder", lambda: {"e_v": encode_frames(model, given.frames)})[
            "e_v"
        ]

    @functools.cache
    def latents() -> tuple[Tensor, Tensor]:
        found = derived("latents", "autoencoder", lambda: encode_mels(model, given.mel))
        return found["mean"], found["std"]

    return Corpus(
        frames=given.frames,
        mel=given.mel,
        onsets=given.onsets,
        labels=torch.tensor([classes.index(c.label) if c.label else -1 for c in data.clips]),
        rows=rows,
        features=given.features or features,
        latents=given.latents or latents,
        texts=given.texts or encode_texts(model, [clip.caption for clip in data.clips]),
    )


def class_names(clips: Sequence[Clip]) -> list[str]:
    """The classes of the clips, in alphabetical order; empty where none are known."""
    return sorted({clip.label for clip in clips if clip.label})


def encode_texts(model: STAV2A, captions: Sequence[str]) -> Texts:
    """The texts of a `Corpus`, encoded when they are asked for."""

    def texts(rows: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        asked = zip(rows.tolist(), drop.tolist(), strict=True)
        return encode_captions(model, ["" if null else captions[row] for row, null in asked])

    return texts


@torch.no_grad()
def encode_frames(model: STAV2A, frames: Tensor) -> Tensor:
    """uint8 frames (N, L, 3, H, W) -> e_v (N, L, D_v)."""
    model.feature_encoder.eval()
    parts = frames.split(AT_ONCE)
    return torch.cat([model.feature_encoder(as_video(part.to(device()))).cpu() for part in parts])


@torch.no_grad()
def encode_mels(model: STAV2A, mel: Tensor) -> dict[str, Tensor]:
    """Log-mels (N, 1, Tm, M) -> mean and std of their latents, each (N, C, T, F)."""
    model.autoencoder.eval()
    pairs = [model.autoencoder.encode(part.to(device())) for part in mel.split(AT_ONCE)]
    means, stds = zip(*pairs, strict=True)
    return {"mean": torch.cat(means).cpu(), "std": torch.cat(stds).cpu()}


def mean_flows(
    clips: Sequence[Clip], flow: OpticalFlow, *, store: Store, key: str
) -> tuple[list[np.ndarray], list[float]]:
    """Mean flow of every clip's own frames, at their own size and rate, and this rate; kept in the store."""

    def make(made: Path) -> None:
        found = list(parallel(partial(_flow, flow), clips, description="optical flow of the test clips"))
        flows = {str(i): torch.from_numpy(flow) for i, (flow, _) in enumerate(found)}
        save_tensors(made / "flows.safetensors", flows)
        write_json(made / "rates.json", [rate for _, rate in found])

    folder = store.obtain("flows", key, make)
    flows = load_tensors(folder / "flows.safetensors")
    return [flows[str(i)].numpy() for i in range(len(clips))], json.loads((folder / "rates.json").read_text())


def _flow(flow: OpticalFlow, clip: Clip) -> tuple[np.ndarray, float]:
    """What worker processes run."""
    decoded = decode(clip.video)
    return decoded.reduction * motion(decoded.frames, flow=flow), decoded.frame_rate_hz


def _nothing_left(split: str, decisions: Sequence[Decision]) -> str:
    reasons = [decision.reason for decision in decisions if not decision.keep]
    common = max(set(reasons), key=reasons.count) if reasons else "there was none to begin with"
    return (
        f"No clip of the split {split!r} is left to train on. The most frequent reason: {common}. "
        "Give more clips, or lower the filter's threshold."
    )
