"""What is done to one clip: decoded, judged, labelled; then encoded. Both engines call the same functions."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.data.decoded import SAMPLE_RATE
from stav2a.data.filters import Decision
from stav2a.data.manifest import VIDEOS
from stav2a.data.media import Decoded, MediaError, decode, frame_count, resample_frames
from stav2a.data.onsets import onset_frames
from stav2a.data.prepared.shards import DROPPED, FAILED, KEPT, ClipRecord
from stav2a.preparation.plan import PreparationPlan
from stav2a.utils.errors import exit_code
from stav2a.utils.resampling import fit_audio, resample_audio


@dataclass(frozen=True)
class ClipSettings:
    """What a clip is made into.

    Args:
        frame_rate_hz: Of the feature encoder.
        frame_size: Side of its square frames.
        duration_s: Of a clip.
        latent_frames: Of a clip; onsets are labelled at this rate.
        keep: Tensors that are kept of every clip that a filter keeps: of frames, e_v, mel, latents.
    """

    frame_rate_hz: float
    frame_size: int
    duration_s: float
    latent_frames: int
    keep: tuple[str, ...]


class Decode:
    """Read one clip once, and take of it all that does not need a network.

    Args:
        plan: Says which clips there are.
        videos: The folder that their files are in.
        settings: What a clip is made into.
        detector: Makes the pseudo-labels.
        filters: By key; each decides on the whole clip, at its own size and rate.
    """

    def __init__(
        self,
        plan: PreparationPlan,
        videos: Path,
        settings: ClipSettings,
        detector: Callable[[np.ndarray, int], np.ndarray],
        filters: Mapping[str, Callable[[Decoded], Decision]],
    ) -> None:
        self.plan, self.videos, self.settings = plan, videos, settings
        self.detector, self.filters = detector, filters

    def __call__(self, position: int) -> ClipRecord:
        """A clip that can't be read comes back with its reason, and without tensors."""
        known = self.plan.entry(position)
        try:
            if known["fault"]:
                raise MediaError(f"{known['fault']}.")
            path = find(self.videos, known["file"], known["id"])
            known["file"] = path.relative_to(self.videos).as_posix()
            return self._row(known, decode(path, caption=known["caption"]))
        except Exception as error:  # one clip never stops the others
            return failed(known, told(error).replace(f"{self.videos}/", ""))

    def _row(self, known: Mapping[str, Any], decoded: Decoded) -> ClipRecord:
        settings, samples = self.settings, round(self.settings.duration_s * SAMPLE_RATE)
        decisions = {key: each(decoded) for key, each in self.filters.items()}
        audio = fit_audio(resample_audio(decoded.audio, decoded.sample_rate, SAMPLE_RATE), samples)
        onsets_s = self.detector(audio, SAMPLE_RATE)
        facts = {
            **known,
            **judged(decisions),
            "onsets_s": [round(float(time), 6) for time in onsets_s],
            "notes": notes(decoded, settings.duration_s),
            "width": decoded.frames.shape[2],
            "height": decoded.frames.shape[1],
            "frame_rate_hz": round(float(decoded.frame_rate_hz), 6),
            "duration_s": round(float(decoded.duration_s), 6),
            "sample_rate": decoded.sample_rate,
        }
        if not any(decision.keep for decision in decisions.values()):
            return ClipRecord(facts, {})
        labels = onset_frames(onsets_s, settings.latent_frames, settings.latent_frames / settings.duration_s)
        tensors = {"onsets": labels.astype(np.uint8)}
        if {"frames", "e_v"} & set(settings.keep):
            tensors["frames"] = self._frames(decoded)
        if {"mel", "latents"} & set(settings.keep):
            tensors["mel"] = log_mel(audio)
        return ClipRecord(facts, tensors)

    def _frames(self, decoded: Decoded) -> np.ndarray:
        """(L, 3, h, w) uint8 at the encoder's rate and size."""
        settings = self.settings
        length = frame_count(settings.duration_s, settings.frame_rate_hz)
        size = (settings.frame_size, settings.frame_size)
        frames = resample_frames(decoded, settings.frame_rate_hz, size, length)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


class Encode:
    """Put features and latents in the place of frames and mel, for the encoders that there are.

    One clip at a time, on one thread: a clip's numbers depend on nothing but the clip.

    Args:
        keep: As in `ClipSettings`.
        feature_encoder: With its weights; None keeps frames as they are.
        autoencoder: With its weights; None keeps mel as it is.
    """

    def __init__(self, keep: tuple[str, ...], feature_encoder: Any, autoencoder: Any) -> None:
        self.keep, self.feature_encoder, self.autoencoder = keep, feature_encoder, autoencoder

    @property
    def encoders(self) -> bool:
        """Whether there is any."""
        return self.feature_encoder is not None or self.autoencoder is not None

    def __call__(self, row: ClipRecord) -> ClipRecord:
        try:
            return self._encoded(row)
        except MediaError as error:
            return failed(row.facts, str(error))

    def _encoded(self, row: ClipRecord) -> ClipRecord:
        import torch

        from stav2a.models.stav2a import as_video
        from stav2a.utils.distributed import device

        made = dict(row.tensors)
        with torch.no_grad():
            if "e_v" in self.keep and "frames" in made:
                video = as_video(torch.from_numpy(made["frames"])[None]).to(device())
                made["e_v"] = half("e_v", self.feature_encoder.to(device())(video)[0])
            if "latents" in self.keep and "mel" in made:
                mel = torch.from_numpy(made["mel"])[None].to(device())
                mean, std = self.autoencoder.to(device()).encode(mel)
                made["latent_mean"], made["latent_std"] = half("latents", mean[0]), half("latents", std[0])
        unwanted = {"frames", "mel"} - set(self.keep)
        return ClipRecord(row.facts, {name: tensor for name, tensor in made.items() if name not in unwanted})


@dataclass(frozen=True)
class ClipWork:
    """Both stages, one after the other: what worker processes run."""

    decode: Decode
    encode: Encode

    def __call__(self, position: int) -> ClipRecord:
        return self.encode(self.decode(position))


def find(videos: Path, file: str, name: str) -> Path:
    """The file of a clip, inside the folder of videos.

    Raises:
        MediaError: There is none, or it lies elsewhere.
    """
    found = [file] if file else [f"{name}{suffix}" for suffix in VIDEOS]
    there = [videos / each for each in found if os.path.lexists(videos / each)]
    if not there:
        wanted = file or f"{name}.mp4 (or {', '.join(VIDEOS[1:4])}, …)"
        raise MediaError(f"no such file: {wanted}. Put it into the folder of videos.")
    real = Path(os.path.realpath(there[0]))  # links followed; a link to itself is left to the reader
    if not real.is_relative_to(os.path.realpath(videos)) or ".." in Path(found[0]).parts:
        raise MediaError(f"{found[0]}: leads out of the folder of videos. Copy the file into it.")
    return there[0]


def judged(decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """What the filters decided, and the first that would leave the clip out."""
    told = {key: {**asdict(each), "score": _finite(each.score)} for key, each in decisions.items()}
    dropping = next((each for each in told.values() if not each["keep"]), None)
    if dropping is None:
        return {"status": KEPT, "rule": "", "reason": "", "decisions": told}
    return {"status": DROPPED, "rule": dropping["rule"], "reason": dropping["reason"], "decisions": told}


def told(error: Exception) -> str:
    """Why a clip failed; with the error's kind where it is none that we expect."""
    expected = exit_code(error) is not None
    return str(error) if expected else f"unexpected {type(error).__name__}: {error}"


def failed(known: Mapping[str, Any], reason: str) -> ClipRecord:
    """A clip in quarantine."""
    kept = ("position", "line", "id", "file", "caption", "caption_row", "split", "label")
    line = " ".join(reason.split())
    return ClipRecord(
        {**{name: known[name] for name in kept}, "status": FAILED, "rule": "", "reason": line}, {}
    )


def notes(decoded: Decoded, duration_s: float) -> list[str]:
    """What was done to bring a clip into its form."""
    found, picture_s = list(decoded.notes), decoded.duration_s
    if picture_s > duration_s + 1e-3:
        found.append(f"picture and sound cut from {picture_s:.2f} s to {duration_s:g} s")
    if picture_s < duration_s - 1e-3:
        found.append(f"last frame held from {picture_s:.2f} s to {duration_s:g} s")
    return found


def log_mel(audio: np.ndarray) -> np.ndarray:
    """(S,) -> (1, Tm, M) float32."""
    import torch

    from stav2a.data.mel import log_mel

    return log_mel(torch.from_numpy(audio)[None])[0].numpy()


def half(name: str, tensor: Any) -> np.ndarray:
    """float16, which keeps 11 bits: half the storage, and far below the noise of training."""
    half = tensor.cpu().numpy().astype(np.float16)
    if not np.isfinite(half).all() or not half.any():
        raise MediaError(f"its {name} is not finite, or all zero: the encoder does not fit this clip.")
    return half


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)
