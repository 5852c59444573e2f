"""Sound for a video of any length, by a finished run's model, which knows one length only.

The video is read once, at the encoder's rate and size. A longer one is covered by overlapping windows of the
model's duration; a shorter one holds its last frame until the model's duration is full, and its sound is cut.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stav2a.data.media import probe, read_video
from stav2a.data.mel import SAMPLE_RATE
from stav2a.experiments.run_folder import FinishedRun, RunFolderError
from stav2a.models.stav2a import as_video
from stav2a.sampling import to_audio
from stav2a.sampling.waveforms import LOUDEST
from stav2a.utils.resampling import fit_audio

OVERLAP = 0.25  # of a window, at least, shared by neighbours; and the length of the cross-fade
BATCH = 8  # windows denoised together
ROUNDING = 1e-6  # of a frame


@dataclass(frozen=True)
class SamplingSettings:
    """How sounds are drawn from the model.

    Args:
        prompt: The caption; "" is the null text.
        seed: Of the noise, together with a window's number.
        num_inference_steps: Denoising steps.
        guidance_scale: w of eq. 7; 1 where the prompt is the null text, which makes both branches equal.
    """

    prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float


def soundtrack(trained: FinishedRun, video: Path, settings: SamplingSettings) -> np.ndarray:
    """A video's new sound, exactly as long as its picture: (S,) at the front end's rate.

    The same file, settings and number of threads give the same bits.

    Raises:
        MediaError: The video can't be read.
        RunFolderError: The model makes NaN of it.
    """
    model, encoder = trained.model, trained.model.feature_encoder
    duration_s = probe(video).duration_s
    starts = window_starts(duration_s, model.duration_s, encoder.frame_rate_hz)
    frames = read_windows(video, starts, model.duration_s, encoder)
    parts = [part for batch in _generate(trained, frames, settings, video.name) for part in batch]
    if not all(np.isfinite(part).all() for part in parts):
        raise RunFolderError(
            "the run's model gives NaN for this video. Train it again with a smaller step size."
        )
    samples = [round(start / encoder.frame_rate_hz * SAMPLE_RATE) for start in starts]
    sound = cross_fade(parts, samples, round(OVERLAP * model.duration_s * SAMPLE_RATE))
    return fit_audio(sound.clip(-LOUDEST, LOUDEST), round(duration_s * SAMPLE_RATE))


def window_starts(duration_s: float, window_s: float, frame_rate_hz: float) -> list[int]:
    """The first frames of as few windows as cover a duration, spread evenly.

    They lie on the encoder's frames, so the last window ends with the clip or less than a frame after it.

    Example:
        >>> window_starts(6.4, 2.56, 12.5), window_starts(1.0, 2.56, 12.5)
        ([0, 24, 48], [0])
    """
    last = max(0, math.ceil((duration_s - window_s) * frame_rate_hz - ROUNDING))
    stride = max(1, math.floor((1 - OVERLAP) * window_s * frame_rate_hz + ROUNDING))
    steps = math.ceil(last / stride)
    return [0] + [round(step * last / steps) for step in range(1, steps + 1)]


def read_windows(video: Path, starts: Sequence[int], window_s: float, encoder: Any) -> Tensor:
    """The frames of all windows from one reading; beyond the video's end its last frame is held.

    Shapes:
        (N, L, 3, H, W) uint8
    """
    rate, length = encoder.frame_rate_hz, max(1, round(window_s * encoder.frame_rate_hz))
    frames = read_video(
        video, frame_rate_hz=rate, size=encoder.frame_size, duration_s=(starts[-1] + length) / rate
    )
    windows = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)  # (·, H, W, 3, L), a view
    return torch.from_numpy(windows[list(starts)]).permute(0, 4, 3, 1, 2)


def cross_fade(parts: Sequence[np.ndarray], starts: Sequence[int], length: int) -> np.ndarray:
    """Join overlapping sounds; in the middle of each overlap one fades into the next.

    At equal power (sine and cosine), for windows are drawn from independent noise: uncorrelated sounds keep
    their loudness this way, and would lose 3 dB in the middle of a linear fade.

    Args:
        parts: Sounds (S,), each overlapping the next.
        starts: The sample at which each begins; the first is 0.
        length: Of a fade, in samples; a shorter overlap is faded over its whole length.

    Example:
        >>> print(cross_fade([np.ones(4), np.zeros(4)], [0, 3], 1).round(3))
        [1. 1. 1. 0.707 0. 0. 0. ]
    """
    sound = np.zeros(starts[-1] + len(parts[-1]), dtype=np.float32)
    sound[: len(parts[0])] = parts[0]
    for before, part, previous, start in zip(parts, parts[1:], starts, starts[1:], strict=False):
        overlap = previous + len(before) - start
        fade = min(length, overlap)
        first = (overlap - fade) // 2  # of the fade, counted from `start`
        angle = np.pi / 2 * (np.arange(fade) + 0.5) / fade
        faded = slice(start + first, start + first + fade)
        sound[faded] = np.cos(angle) * sound[faded] + np.sin(angle) * part[first : first + fade]
        sound[faded.stop : start + len(part)] = part[first + fade :]
    return sound


@torch.no_grad()
def _generate(
    trained: FinishedRun, frames: Tensor, settings: SamplingSettings, title: str
) -> Iterator[np.ndarray]:
    """Windows (N, L, 3, H, W) -> their sounds (B, S), batch by batch."""
    model, experiment, sampler = trained.model, trained.experiment, trained.experiment.sampler()
    scheduler = experiment.scheduler(prediction_type=experiment.prediction_type)
    batches = list(zip(frames.split(BATCH), torch.arange(len(frames)).split(BATCH), strict=True))
    total = len(batches) * settings.num_inference_steps
    with tqdm(total=total, desc=title, unit="step", leave=False, disable=None) as bar:
        for batch, numbers in batches:
            z = sampler(
                model,
                model.feature_encoder(as_video(batch)),
                [settings.prompt] * len(batch),
                scheduler=scheduler,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                seeds=[window_seed(settings.seed, int(number)) for number in numbers],
                progress=_counted_by(bar),
            )
            if not z.isfinite().all():
                raise RunFolderError(
                    "the run's model makes NaN of it: its training diverged. Take another run."
                )
            yield to_audio(model, z)[1].numpy()


def window_seed(seed: int, number: int) -> int:
    """The seed of a window's noise; the next one is the scheduler's."""
    return seed * 1_000_003 + 2 * number


def _counted_by(bar: tqdm) -> Callable[[Iterable[Any]], Iterator[Any]]:
    def counted(steps: Iterable[Any]) -> Iterator[Any]:
        for step in steps:
            yield step
            bar.update()

    return counted
