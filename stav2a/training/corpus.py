"""From a dataset to tensors: clips decoded once, filtered, labelled, and kept in the store."""

import functools
import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stav2a.data import mel as front_end
from stav2a.data.clip import Clip
from stav2a.data.decoded import DecodedClips, prepare
from stav2a.data.filters import Decision
from stav2a.data.media import read_audio
from stav2a.data.mel import SAMPLE_RATE
from stav2a.data.onsets import onset_frames
from stav2a.data.prepared import PreparedFolder, PreparedFolderError
from stav2a.models.stav2a import STAV2A, as_video, encode_captions
from stav2a.recipe import describing
from stav2a.training.objective import TrainingSpec
from stav2a.utils import distributed
from stav2a.utils.checkpoints import fingerprint
from stav2a.utils.distributed import device
from stav2a.utils.errors import UsageError
from stav2a.utils.files import write_json
from stav2a.utils.resampling import fit_audio
from stav2a.utils.store import Store, load_tensors, save_tensors

Texts = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Corpus:
    """The prepared clips, one row a clip.

    Args:
        frames: uint8 frames at the feature encoder's rate and size, (N, L, 3, H, W).
        mel: Log-mels (N, 1, Tm, M).
        onsets: Pseudo-labels of onsets in latent frames (N, T), 0 or 1.
        labels: Class of each clip (N,), -1 where unknown.
        rows: Row numbers that a split holds, after a filter: called with the split and the filter's factory.
        features: e_v of all clips (N, L, D_v) by the model's present encoder; computed once.
        latents: Mean and deviation of all latents, each (N, C, T, F); computed once.
        texts: e_text (B, K0, D_c) and mask (B, K0) of the captions of some rows: called with the rows, and
            with which of them get the null text. Carries the text encoder's gradient where it is trained.
    """

    frames: Tensor
    mel: Tensor
    onsets: Tensor
    labels: Tensor
    rows: Callable[[str, Callable[..., object]], Tensor]
    features: Callable[[], Tensor]
    latents: Callable[[], tuple[Tensor, Tensor]]
    texts: Texts


@dataclass(frozen=True)
class TrainingContext:
    """One stage's surroundings.

    Args:
        model: The assembled model; the stage leaves its result in it.
        corpus: The clips.
        folder: Where unfinished training is kept.
        seed: Of all randomness in the stage.
        prediction_type: What the denoiser predicts, `epsilon` (eq. 6) or `v_prediction`.
        frozen: Blocks that an earlier stage has finished.
        log: Called with a name, a value and a step.
        trainer: How to train; see `training.trainer`.
    """

    model: STAV2A
    corpus: Corpus
    folder: Path
    seed: int
    prediction_type: str
    frozen: frozenset[str]
    log: Callable[[str, float, int], None]
    trainer: Any

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return distributed.device()

    def fit(self, plan: TrainingSpec) -> dict[str, Any]:
        """Train as the plan says; the losses come back by name."""
        return self.trainer.fit(plan, self)

    def train_only(self, *slots: str) -> list[nn.Module]:
        """Freeze the model but for these blocks; those that an earlier stage finished stay frozen."""
        self.model.requires_grad_(False).eval()
        blocks = [self.model.block(slot) for slot in slots if slot not in self.frozen]
        for block in blocks:
            block.requires_grad_(True).train()
        return blocks


def generator(seed: int, name: str, step: int) -> torch.Generator:
    """The randomness of one step of one stage: nothing carries over, so a resumed run needs only the step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + zlib.crc32(name.encode())) * 1_000_003 + step)


AT_ONCE = 64  # clips encoded together


def decoded_clips(
    clips: Sequence[Clip],
    model: STAV2A,
    detector: Any,
    filters: Mapping[str, Any],
    *,
    store: Store,
    key: str,
) -> DecodedClips:
    """The clips as arrays, with every filter's decisions, from the store or decoded now.

    Args:
        clips: What to decode.
        model: Says the frame rate, the frame size and the duration.
        detector: Finds the onsets' pseudo-labels.
        filters: Filters to ask about every clip, each by the signature of its description.
        store: Where the result is kept.
        key: Signature of the dataset, the detector, and the model's demands.
    """
    with distributed.main_first(), store.exclusive("clips", key):
        unasked = {name: f for name, f in filters.items() if not store.has("filter", key + name)}
        if unasked or not store.has("clips", key):
            _prepare(clips, model, detector, unasked, store=store, key=key)
    found = DecodedClips.load(store.path("clips", key))
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


def decoded_tensors(data: DecodedClips, model: STAV2A) -> Tensors:
    """Decoded clips as tensors."""
    mel = torch.cat([front_end.log_mel(part) for part in torch.from_numpy(data.audio).split(AT_ONCE)])
    length, rate = model.latent_shape[1], model.latent_rate_hz
    onsets = np.stack([onset_frames(times, length, rate) for times in data.pseudo_onsets])
    return Tensors(torch.from_numpy(data.frames), mel, torch.from_numpy(onsets).float())


def make_corpus(
    data: DecodedClips,
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
        with distributed.main_first():
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


def _nothing_left(split: str, decisions: Sequence[Decision]) -> str:
    reasons = [decision.reason for decision in decisions if not decision.keep]
    common = max(set(reasons), key=reasons.count) if reasons else "there was none to begin with"
    return (
        f"No clip of the split {split!r} is left to train on. The most frequent reason: {common}. "
        "Give more clips, or lower the filter's threshold."
    )


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


def prepared_clips(cache: PreparedFolder, model: STAV2A, filters: Collection[str]) -> DecodedClips:
    """The clips and what was decided on them.

    Args:
        cache: The folder.
        model: Says the duration.
        filters: Signatures of the filters that the run asks.

    Raises:
        PreparedFolderError: A filter was not asked when the clips were prepared.
    """
    sound: Any = SoundOfFiles(cache.clips, round(model.duration_s * SAMPLE_RATE))
    decisions = {key: cache.decisions(key) for key in filters}
    frames: Any = cache.tensor_if_asked("frames")
    return DecodedClips(cache.clips, frames, sound, cache.onsets_s, decisions, {})


def prepared_tensors(cache: PreparedFolder, model: STAV2A, onset_detector: Any) -> Tensors:
    """The same as tensors, which stay on disk until rows are asked for.

    Args:
        cache: The folder.
        model: What it is prepared for.
        onset_detector: The recipe's, described.

    Raises:
        PreparedFolderError: It was prepared for another model or with another detector; names what differs.
    """
    video: Any = model.feature_encoder
    wanted = {
        "frame_rate_hz": video.frame_rate_hz,
        "frame_size": video.frame_size,
        "duration_s": model.duration_s,
        "latent_frames": model.latent_shape[1],
        "onset_detector": describing.signature(onset_detector),
    }
    found = {
        **cache.settings["settings"],
        "onset_detector": describing.signature(cache.settings["onset_detector"]),
    }
    if differing := [name for name, value in wanted.items() if found[name] != value]:
        raise PreparedFolderError(
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


def _texts(cache: PreparedFolder, model: STAV2A) -> Texts:
    @functools.cache
    def check() -> None:
        check_encoder(cache, "text_encoder", model.text_encoder)

    def texts(rows: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        check()
        e_text, mask = cache.texts(rows.tolist(), drop.tolist())
        return e_text.to(device()), mask.to(device())

    return texts


def check_encoder(cache: PreparedFolder, slot: str, block: Any) -> None:
    """Refuse what another encoder has made.

    Raises:
        PreparedFolderError: The numbers in this one are not those that the clips were prepared with.
    """
    if fingerprint(block) != cache.settings["encoders"][slot]["weights"]:
        raise PreparedFolderError(
            f"{cache.folder} holds what another {slot} made: this run's has other weights. Prepare the clips "
            f"with this one, or without its weights, so that what it is trained on is kept."
        )
