"""Corpora: the clips of a dataset as the tensors that a run trains on, decoded here or prepared before."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from stav2a.data.clip import SPLITS, Clip
from stav2a.data.filters import Decision, filter_key
from stav2a.data.front_ends import AudioLDMMel
from stav2a.data.media import FrameGrid, MediaError, decode, read_audio
from stav2a.data.mel import log_mels, normalised
from stav2a.data.onsets import onset_frames
from stav2a.data.prepared import PreparedFolder, PreparedFolderError
from stav2a.data.prepared.reader import ANEW
from stav2a.models.stav2a import STAV2A, VIDEO, as_video, describe_factory, encode_captions
from stav2a.recipe.describing import differences
from stav2a.registry import name_of
from stav2a.slots import DataFilter, OnsetDetector
from stav2a.utils import distributed
from stav2a.utils.checkpoints import fingerprint
from stav2a.utils.distributed import device
from stav2a.utils.errors import UsageError
from stav2a.utils.files import atomic, write_json, write_text
from stav2a.utils.parallel import parallel
from stav2a.utils.resampling import fit_audio, resample_audio
from stav2a.utils.store import Store, save_tensors

PURPOSES = {
    "train": "which stages learn from",
    "validation": "which validation losses are of",
    "test": "which a run is measured on",
}
AT_ONCE = 64  # clips encoded together
ARRAYS, TABLE, DECISIONS = "arrays.safetensors", "clips.json", "decisions.json"


class Rows(Protocol):
    """A tensor whose first axis is the clips, in memory or on disk; indexing gives a tensor in memory."""

    @property
    def shape(self) -> torch.Size: ...
    def __getitem__(self, rows: Any, /) -> Tensor: ...
    def split(self, size: int, /) -> Iterable[Tensor]: ...


def class_names(clips: Sequence[Clip]) -> list[str]:
    """The classes of the clips, in alphabetical order; empty where none are known."""
    return sorted({clip.label for clip in clips if clip.label})


def classifiable(clips: Sequence[Clip]) -> bool:
    """True where a classifier can be trained: two classes to learn, and a labelled clip to validate on."""
    labels = {split: {clip.label for clip in clips if clip.label and clip.split == split} for split in SPLITS}
    return len(labels["train"]) > 1 and bool(labels["validation"])


def rows_of(clips: Sequence[Clip], split: str) -> list[int]:
    """Row numbers of a split's clips.

    Raises:
        UsageError: There is none.
    """
    if rows := [row for row, clip in enumerate(clips) if clip.split == split]:
        return rows
    advice = "Give some clips this split in the manifest"
    if split != "train":
        advice += (
            f"; clips that are prepared anew, into another folder, get it by `stav2a prepare --{split} 0.1`"
        )
    message = f"none of {len(clips)} clips is of the split {split!r}, {PURPOSES[split]}."
    raise UsageError(message, advice=f"{advice}.")


def kept_rows(clips: Sequence[Clip], decisions: Sequence[Decision], split: str, name: str) -> list[int]:
    """Row numbers of a split's clips that a filter of this name keeps.

    Raises:
        UsageError: There is none.
    """
    rows = rows_of(clips, split)
    if kept := [row for row in rows if decisions[row].keep]:
        return kept
    reasons = [decisions[row].reason for row in rows]
    raise UsageError(
        f"{name} keeps none of {len(rows)} clips of the split {split!r}. The most frequent reason: "
        f"{max(set(reasons), key=reasons.count)}.",
        advice="Give more clips, lower the filter's threshold, or take @data_filter.none as the data_filter "
        "of the stages that use it.",
    )


class Corpus:
    """Clips for training and evaluation; row i of everything belongs to clip i.

    Features, latents and texts are the model's: they are to be asked for once its encoders are trained.

    Attributes:
        clips: Clips that could be read.
        failed: Reasons why other clips could not be read, by clip id.
        decisions: Decisions of every filter on the clips, by the filter's key.
        onsets: Pseudo-labels of onsets in latent frames (N, T), 0 or 1.
        frames: uint8 frames at the feature encoder's rate and size, (N, L, 3, H, W).
        temporal_frames: The same for the temporal encoder, where the model has one.
        mel: Log-mels (N, 1, Tm, M), or what else the model's front end gives.
    """

    clips: Sequence[Clip]
    failed: Mapping[str, str]
    decisions: Mapping[str, Sequence[Decision]]
    onsets: Tensor
    frames: Rows
    temporal_frames: Rows
    mel: Rows

    def __init__(self, model: STAV2A, store: Store, keys: Mapping[str, str]) -> None:
        self.model, self.store, self.keys = model, store, keys
        self._encodings: dict[str, dict[str, Tensor]] = {}

    @cached_property
    def labels(self) -> Tensor:
        """Class of each clip (N,), -1 where unknown."""
        classes = class_names(self.clips)
        return torch.tensor([classes.index(clip.label) if clip.label else -1 for clip in self.clips])

    @cached_property
    def test_rows(self) -> list[int]:
        """Row numbers of the clips that a run is measured on."""
        return [row for row, clip in enumerate(self.clips) if clip.split == "test"]

    def rows(self, split: str, data_filter: Callable[..., object]) -> Tensor:
        """Row numbers of a split's clips that a filter, given by its factory, keeps."""
        decisions = self.decisions[filter_key(data_filter, self.store.contents)]
        return torch.tensor(kept_rows(self.clips, decisions, split, name_of(data_filter)))

    def features(self, slot: str = "feature_encoder") -> Rows:
        """Features of all clips (N, L, D_v) by one of `model.encoders`, as it is now; computed once."""
        names = VIDEO[slot]

        def encode() -> dict[str, Tensor]:
            return {names.symbol: encode_frames(self.model, getattr(self, names.frames), slot)}

        return self._encoded(names.features, encode)[names.symbol]

    def latents(self) -> tuple[Rows, Rows]:
        """Mean and deviation of all latents, each (N, C, T, F); computed once."""
        found = self._encoded("latents", lambda: encode_mels(self.model, self.mel))
        return found["mean"], found["std"]

    def _encoded(self, kind: str, encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Encodings from memory, from the store, or made now."""
        if kind not in self._encodings:
            with distributed.main_first():
                found = self._obtain(kind, encode)
                if any(len(tensor) != len(self.clips) for tensor in found.values()):
                    counts = ", ".join(f"{name} of {len(tensor)}" for name, tensor in found.items())
                    self.store.set_aside(
                        kind, self.keys[kind], f"{counts} clips, where {len(self.clips)} are"
                    )
                    found = self._obtain(kind, encode)
            self._encodings[kind] = found
        return self._encodings[kind]

    def _obtain(self, kind: str, encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        def make(folder: Path) -> None:
            save_tensors(folder / "tensors.safetensors", encode())

        return load_file(self.store.obtain(kind, self.keys[kind], make) / "tensors.safetensors")

    def captions(self, rows: Tensor, drop: Tensor) -> list[str]:
        """The captions of rows (B,); the null text where `drop` (B,) is true."""
        chosen = zip(rows.tolist(), drop.tolist(), strict=True)
        return ["" if null else self.clips[row].caption for row, null in chosen]

    def texts(self, rows: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        """e_text (B, K0, D_c) and mask (B, K0) of the captions of rows (B,), or of the null text."""
        return encode_captions(self.model, self.captions(rows, drop))

    @property
    def unused_encoders(self) -> tuple[str, ...]:
        """Encoders that are not called, since their outputs for all clips are there already."""
        return ()

    @property
    def sample_rate(self) -> int:
        """Sampling rate of the sounds, in Hz: the front end's."""
        return self.model.front_end.sample_rate

    @property
    def spectrogram(self) -> Rows:
        """AudioLDM's log-mels of all clips (N, 1, Tm, 64), whatever the front end.

        What is no part of the model reads them: the classifier, and the towers of the contrastive stages.
        """
        return self.mel if isinstance(self.model.front_end, AudioLDMMel) else self._resampled_mel()

    def _resampled_mel(self) -> Rows:
        raise NotImplementedError  # each kind of corpus has its own

    def audio(self, rows: Sequence[int]) -> np.ndarray:
        """The sound of some rows (B, S), float32 at the front end's rate."""
        raise NotImplementedError  # each kind of corpus has its own


@torch.no_grad()
def encode_frames(model: STAV2A, frames: Rows, slot: str = "feature_encoder") -> Tensor:
    """uint8 frames (N, L, 3, H, W) of an encoder's rate and size -> its features (N, L, D_v)."""
    encoder = model.block(slot).eval()
    return torch.cat([encoder(as_video(part.to(device()))).cpu() for part in frames.split(AT_ONCE)])


@torch.no_grad()
def encode_mels(model: STAV2A, mel: Rows) -> dict[str, Tensor]:
    """Log-mels (N, 1, Tm, M) -> mean and std of their latents, each (N, C, T, F)."""
    autoencoder = model.autoencoder.eval()
    means, stds = zip(*(autoencoder.encode(part.to(device())) for part in mel.split(AT_ONCE)), strict=True)
    return {"mean": torch.cat(means).cpu(), "std": torch.cat(stds).cpu()}


class DecodedCorpus(Corpus):
    """Clips decoded in one pass over their files, or taken from the store where that is done.

    Args:
        clips: Files with picture and sound. Those that can't be read are left out, with their reasons.
        model: Model that determines frame rate, frame size and duration, and whose encoders are used.
        detector: Onset detector of the pseudo-labels.
        filters: Filters by key; each decides on every clip, at the file's own size and rate.
        audio_peak: Peak of the sounds before their mel; see `mel.normalised`.
        store: Store of all results.
        keys: Keys in the store, by kind of entry.
        workers: Worker processes; by default one a core.

    Raises:
        MediaError: Not one clip can be read.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        model: STAV2A,
        *,
        detector: OnsetDetector,
        filters: Mapping[str, DataFilter],
        audio_peak: float | None = None,
        store: Store,
        keys: Mapping[str, str],
        workers: int | None = None,
    ) -> None:
        super().__init__(model, store, keys)
        key = keys["clips"]
        with distributed.main_first(), store.exclusive("clips", key):
            found = store.find("clips", key)
            decided = {name: store.find("filter", key + name) for name in filters}
            made = {name: len(_decisions(folder)) for name, folder in decided.items() if folder}
            count = len(_table(found)["clips"]) if found else 0
            if found and set(made.values()) - {count}:  # made when other clips could be read
                fault = f"of {count} clips, {' and '.join(map(str, made.values()))} were decided on"
                for kind, of in (("clips", key), *(("filter", key + name) for name in made)):
                    store.set_aside(kind, of, fault)
                found, decided = None, dict.fromkeys(filters)
            if found is None or None in decided.values():
                missing = {name: filters[name] for name, folder in decided.items() if folder is None}
                self._decode(clips, detector, missing, audio_peak, workers)
        folder = store.path("clips", key)
        table = _table(folder)
        arrays = load_file(folder / ARRAYS)
        by_id = {clip.id: clip for clip in clips}  # the files may have moved since
        self.clips, self.failed = [by_id[row["id"]] for row in table["clips"]], table["failed"]
        self.decisions = {name: _decisions(store.path("filter", key + name)) for name in filters}
        for slot in model.encoders:
            setattr(self, VIDEO[slot].frames, arrays[VIDEO[slot].frames])
        self._audio = arrays["audio"]
        self._normalised = arrays.get("normalised", self._audio)
        length, rate = model.latent_shape[1], model.latent_rate_hz
        onsets = [onset_frames(times_s, length, rate) for times_s in table["pseudo_onsets"]]
        self.onsets = torch.from_numpy(np.stack(onsets))

    def audio(self, rows: Sequence[int]) -> np.ndarray:
        return self._audio[list(rows)].numpy()

    @cached_property
    def mel(self) -> Tensor:  # type: ignore[override]  # seconds, for which many a run has no use
        return torch.cat([self.model.front_end(part) for part in self._normalised.split(AT_ONCE)])

    @cached_property
    def _other_mel(self) -> Tensor:
        parts = self._normalised.split(AT_ONCE)
        return torch.cat([log_mels(part.numpy(), self.sample_rate) for part in parts])

    def _resampled_mel(self) -> Rows:
        return self._other_mel

    def _decode(
        self,
        clips: Sequence[Clip],
        detector: OnsetDetector,
        filters: Mapping[str, DataFilter],
        audio_peak: float | None,
        workers: int | None,
    ) -> None:
        """Decode all clips in worker processes, and leave the results in the store."""
        duration_s, sample_rate = self.model.duration_s, self.sample_rate
        samples = round(duration_s * sample_rate)
        grids = {
            VIDEO[slot].frames: FrameGrid.of(self.model.block(slot), duration_s)
            for slot in self.model.encoders
        }
        work = partial(_extract, grids, (samples, sample_rate), audio_peak, detector, filters)
        frames = {
            name: np.zeros((len(clips), each.length, 3, each.size, each.size), np.uint8)
            for name, each in grids.items()
        }
        audio = np.zeros((len(clips), samples), np.float32)
        normalised = None if audio_peak is None else np.zeros_like(audio)
        readable: list[dict[str, Any]] = []
        onsets_s: list[list[float]] = []
        decisions: dict[str, list[dict[str, Any]]] = {name: [] for name in filters}
        failed: dict[str, str] = {}
        results = parallel(work, clips, workers=workers, description="decoding clips")
        for clip, result in zip(clips, results, strict=True):
            if isinstance(result, MediaError):
                failed[clip.id] = str(result)
                continue
            pictures, audio[len(readable)], scaled, onsets, decided = result
            for name, picture in pictures.items():
                frames[name][len(readable)] = picture
            if normalised is not None:
                normalised[len(readable)] = scaled
            readable.append(asdict(clip) | {"video": str(clip.video)})
            onsets_s.append(onsets.tolist())
            for name, decision in decided.items():
                decisions[name].append(asdict(decision))
        self.store.contents.check_unchanged(clip.video for clip in clips)
        if clips and not readable:
            first = next(iter(failed.values()))
            raise MediaError(f"None of {len(clips)} clips can be read. The first: {first}")
        for name, made in decisions.items():
            with self.store.create("filter", self.keys["clips"] + name) as folder:
                write_json(folder / DECISIONS, made)
        with self.store.create("clips", self.keys["clips"]) as folder:
            arrays: dict[str, np.ndarray] = {**frames, "audio": audio}
            if normalised is not None:
                arrays["normalised"] = normalised
            with atomic(folder / ARRAYS) as file:
                save_file({name: array[: len(readable)] for name, array in arrays.items()}, file)
            table = {"clips": readable, "pseudo_onsets": onsets_s, "failed": failed}
            write_text(folder / TABLE, json.dumps(table))


def _table(folder: Path) -> dict[str, Any]:
    return json.loads((folder / TABLE).read_text(encoding="utf-8"))


def _decisions(folder: Path) -> list[Decision]:
    return [Decision(**each) for each in json.loads((folder / DECISIONS).read_text(encoding="utf-8"))]


# frames (L, 3, h, w) by name, audio (S,) as it is and normalised, onsets in seconds, decisions by filter
Extracts = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Decision]]


def _extract(
    grids: Mapping[str, FrameGrid],
    sound_shape: tuple[int, int],
    audio_peak: float | None,
    detector: OnsetDetector,
    filters: Mapping[str, DataFilter],
    clip: Clip,
) -> Extracts | MediaError:
    """Decode a clip once, and take all that is needed of it.

    A longer clip is cut to the shapes, (L, h, w) of the frames and (S, Hz) of the sound, a shorter one ends
    in a still picture and silence. Filters see the whole file at its own size and rate.
    """
    try:
        decoded = decode(clip.video, caption=clip.caption)
    except MediaError as error:
        return error
    frames = {name: grid.frames(decoded) for name, grid in grids.items()}
    samples, sample_rate = sound_shape
    sound = resample_audio(decoded.audio, decoded.sample_rate, sample_rate)
    audio, scaled = (fit_audio(normalised(sound, peak), samples) for peak in (None, audio_peak))
    decisions = {name: data_filter(decoded) for name, data_filter in filters.items()}
    return frames, audio, scaled, detector(audio, sample_rate), decisions


def check_prepared(
    folder: PreparedFolder,
    model: STAV2A,
    *,
    onset_detector: Any,
    audio_peak: float | None,
    filters: Mapping[str, Callable[..., object]],
) -> dict[str, list[Decision]]:
    """Hold a prepared folder against what a run asks of it; arguments as those of `PreparedCorpus`.

    Returns:
        Decisions of every filter on the clips, by the filter's key.

    Raises:
        PreparedFolderError: The clips were prepared for another model, with another onset detector or
            without one of the filters, or a sound that the run is measured on is missing.
    """
    wanted = {
        **{
            f"{VIDEO[slot].prefix}{name}": getattr(model.block(slot), name)
            for slot in model.encoders
            for name in ("frame_rate_hz", "frame_size")
        },
        "duration_s": model.duration_s,
        "latent_frames": model.latent_shape[1],
        "audio_peak": audio_peak,
    }
    found, theirs = folder.settings["settings"], folder.settings["onset_detector"]
    differing = [
        f"{name} is {found.get(name)} there, {value} here"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    ours = model.described["front_end"]
    heard = folder.settings.get("front_end", describe_factory(AudioLDMMel))  # older folders name none
    if heard["component"] != ours["component"]:
        differing.append(f"front_end is {heard['component']} there, {ours['component']} here")
    elif inner := differences(heard, ours):
        differing.append(inner)
    if theirs["component"] != onset_detector["component"]:
        differing.append(f"onset_detector is {theirs['component']} there, {onset_detector['component']} here")
    elif inner := differences(theirs, onset_detector):
        differing.append(inner)
    if differing:
        raise PreparedFolderError(
            f"{folder.folder} was prepared with other settings than this recipe's: {'; '.join(differing)}.",
            advice=ANEW,
        )
    measured = [clip.video for clip in folder.clips if clip.split == "test"]
    if gone := [path for path in measured if not path.is_file()]:
        raise PreparedFolderError(
            f"{folder.folder}: {len(gone)} of the {len(measured)} videos that a run is measured on are not "
            f"there, the first {gone[0]}.",
            advice="Bind dataset.prepared.videos = 'DIR', the folder of the clips' files.",
        )
    return {key: folder.decisions(key, factory) for key, factory in filters.items()}


class PreparedCorpus(Corpus):
    """Clips of a folder that `stav2a prepare` made, whose tensors stay on disk until rows are asked for.

    Args:
        folder: The prepared folder.
        model: Model that the clips must have been prepared for.
        onset_detector: Description of the recipe's onset detector.
        audio_peak: Peak of the sounds before their mel; see `mel.normalised`.
        filters: The filters that the run asks for, by their keys.
        store: Store of features and latents that are not prepared.
        keys: Keys in the store, by kind of entry.

    Raises:
        PreparedFolderError: The clips were prepared for another model, with another onset detector or
            without one of the filters.
    """

    def __init__(
        self,
        folder: PreparedFolder,
        model: STAV2A,
        *,
        onset_detector: Any,
        audio_peak: float | None = None,
        filters: Mapping[str, Callable[..., object]],
        store: Store,
        keys: Mapping[str, str],
    ) -> None:
        self.decisions = check_prepared(
            folder, model, onset_detector=onset_detector, audio_peak=audio_peak, filters=filters
        )
        super().__init__(model, store, keys)
        self.folder, self.clips, self.failed = folder, folder.clips, {}
        self.onsets = folder.tensor("onsets")[:].float()
        self._texts_checked = False

    @cached_property
    def frames(self) -> Rows:  # type: ignore[override]
        return self.folder.tensor("frames")

    @cached_property
    def temporal_frames(self) -> Rows:  # type: ignore[override]
        return self.folder.tensor("temporal_frames")

    @cached_property
    def mel(self) -> Rows:  # type: ignore[override]
        return self.folder.tensor("mel")

    def features(self, slot: str = "feature_encoder") -> Rows:
        if not self.folder.has(VIDEO[slot].symbol):
            return super().features(slot)
        self._check_encoder(slot)
        return self.folder.tensor(VIDEO[slot].symbol)

    def latents(self) -> tuple[Rows, Rows]:
        if not self.folder.has("latent_mean"):
            return super().latents()
        self._check_encoder("autoencoder")
        return self.folder.tensor("latent_mean"), self.folder.tensor("latent_std")

    def texts(self, rows: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        if not self.folder.has_texts:
            return super().texts(rows, drop)
        if not self._texts_checked:
            self._check_encoder("text_encoder")
            self._texts_checked = True
        return self.folder.texts(rows.tolist(), drop.tolist())

    def _resampled_mel(self) -> Rows:
        return self.folder.tensor("spectrogram")

    def audio(self, rows: Sequence[int]) -> np.ndarray:
        samples = round(self.model.duration_s * self.sample_rate)
        sounds = (read_audio(self.clips[row].video, self.sample_rate) for row in rows)
        return np.stack([fit_audio(sound, samples) for sound in sounds])

    @property
    def unused_encoders(self) -> tuple[str, ...]:
        held = {slot: self.folder.has(VIDEO[slot].symbol) for slot in self.model.encoders}
        held |= {"autoencoder": self.folder.has("latent_mean"), "text_encoder": self.folder.has_texts}
        return tuple(slot for slot, is_held in held.items() if is_held)

    def check_encoders(self) -> None:
        """Check the weights of all encoders whose outputs the folder holds, before a stage is trained.

        Raises:
            PreparedFolderError: An encoder has other weights than the one that made them.
        """
        for slot in self.unused_encoders:
            self._check_encoder(slot)

    def _check_encoder(self, slot: str) -> None:
        """Refuse encodings by other weights than those that the model's encoder has now."""
        if fingerprint(self.model.block(slot)) != self.folder.settings["encoders"][slot]["weights"]:
            raise PreparedFolderError(
                f"{self.folder.folder} holds what another {slot} made: this run's has other weights. Prepare "
                "the clips with this one, or without its weights, so that what it is trained on is kept."
            )
