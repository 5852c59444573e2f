"""Prepared clips for a run: what `preparation` makes of videos, from a folder of `stav2a prepare` instead."""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from stav2a import recipe
from stav2a.assembly import STAV2A
from stav2a.checkpoints import fingerprint
from stav2a.data.cache import Cache, CacheError
from stav2a.data.clip import Clip
from stav2a.data.io import fit_audio, read_audio
from stav2a.data.mel import SAMPLE_RATE
from stav2a.data.prepare import Prepared
from stav2a.preparation import Tensors
from stav2a.processes import device
from stav2a.training.work import Texts


@dataclass(frozen=True)
class SoundOfFiles:
    """The clips' sound, read from their files when rows are asked for: only the test clips' is.

    Args:
        clips: Where it is.
        samples: Of each clip.
    """

    clips: Sequence[Clip]
    samples: int

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        return np.stack(
            [fit_audio(read_audio(self.clips[row].video, SAMPLE_RATE), self.samples) for row in rows]
        )


def data(cache: Cache, model: STAV2A, filters: Collection[str]) -> Prepared:
    """The clips and what was decided on them.

    Args:
        cache: The folder.
        model: Says the duration.
        filters: Signatures of the filters that the run asks.

    Raises:
        CacheError: A filter was not asked when the clips were prepared.
    """
    sound: Any = SoundOfFiles(cache.clips, round(model.duration_s * SAMPLE_RATE))
    decisions = {key: cache.decisions(key) for key in filters}
    frames: Any = cache.tensor_if_asked("frames")
    return Prepared(cache.clips, frames, sound, cache.onsets_s, decisions, {})


def tensors(cache: Cache, model: STAV2A, onset_detector: Any) -> Tensors:
    """The same as tensors, which stay on disk until rows are asked for.

    Args:
        cache: The folder.
        model: What it is prepared for.
        onset_detector: The recipe's, described.

    Raises:
        CacheError: It was prepared for another model or with another detector; names what differs.
    """
    video: Any = model.feature_encoder
    wanted = {
        "frame_rate_hz": video.frame_rate_hz,
        "frame_size": video.frame_size,
        "duration_s": model.duration_s,
        "latent_frames": model.latent_shape[1],
        "onset_detector": recipe.signature(onset_detector),
    }
    found = {
        **cache.settings["settings"],
        "onset_detector": recipe.signature(cache.settings["onset_detector"]),
    }
    if differing := [name for name, value in wanted.items() if found[name] != value]:
        raise CacheError(
            f"{cache.folder} was prepared with another {' and another '.join(differing)} than this recipe's. "
            "Prepare the clips with this recipe, into another folder."
        )

    def given(slot: str, *names: str) -> Callable[[], tuple[Any, ...]] | None:
        if not cache.has(names[0]):
            return None

        def read() -> tuple[Any, ...]:
            check_encoder(cache, slot, model.block(slot))
            return tuple(cache.tensor(name) for name in names)

        return read

    frames, mel = (cache.tensor_if_asked(name) for name in ("frames", "mel"))
    onsets: Tensor = cache.onsets()
    e_v, latents = given("feature_encoder", "e_v"), given("autoencoder", "latent_mean", "latent_std")
    texts = _texts(cache, model) if cache.has_texts else None
    return Tensors(frames, mel, onsets, (lambda: e_v()[0]) if e_v else None, latents, texts)


def _texts(cache: Cache, model: STAV2A) -> Texts:
    @functools.cache
    def check() -> None:
        check_encoder(cache, "text_encoder", model.text_encoder)

    def texts(rows: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        check()
        e_text, mask = cache.texts(rows.tolist(), drop.tolist())
        return e_text.to(device()), mask.to(device())

    return texts


def check_encoder(cache: Cache, slot: str, block: Any) -> None:
    """Refuse what another encoder has made.

    Raises:
        CacheError: The numbers in this one are not those that the clips were prepared with.
    """
    if fingerprint(block) != cache.settings["encoders"][slot]["weights"]:
        raise CacheError(
            f"{cache.folder} holds what another {slot} made: this run's has other weights. Prepare the clips "
            f"with this one, or without its weights, so that what it is trained on is kept."
        )
