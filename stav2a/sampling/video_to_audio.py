"""Sound for a video of any duration, by a model of one duration.

The video is read once for each encoder, at its frame rate and size. A longer video is covered by overlapping
windows of the model's duration; a shorter one is padded with its last frame, and its sound is cut. A video
may be divided into shots: each is covered by windows of its own, as if it were a video.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stav2a.data.media import Decoded, frame_count, frames_at, probe, read_video
from stav2a.models.stav2a import STAV2A, as_video
from stav2a.sampling.guiders import EQUATION_7
from stav2a.sampling.waveforms import LOUDEST, filled, filled_size, noise_seed, to_audio
from stav2a.slots import Guider
from stav2a.utils.errors import UsageError
from stav2a.utils.progress import progress
from stav2a.utils.resampling import fit_audio

OVERLAP = 0.25  # least overlap of neighbouring windows, and length of the cross-fade, as a share of a window
BATCH = 8  # windows denoised together
ROUNDING = 1e-6  # in frames
EDGE_S = 0.005  # fade of the sounds on both sides of a cut, as sounds that are cut off click
SAME_S = 1e-6  # times that are closer are the same


@dataclass(frozen=True)
class Shot:
    """A stretch of a video that windows cover.

    Args:
        start_s: Time of its first frame.
        end_s: Time of the first frame after it, or the video's end.
        windows: First frames of its windows, counted from its start, at the rate of the local head's encoder.
    """

    start_s: float
    end_s: float
    windows: tuple[int, ...]


@torch.no_grad()
def video_to_audio(
    model: STAV2A,
    video: Path | Decoded | None,
    *,
    sampler: Any,
    scheduler: Any,
    prompt: str = "",
    negative_prompt: str = "",
    seeds: Sequence[int] = (0,),
    num_inference_steps: int,
    guidance_scale: float,
    guider: Guider = EQUATION_7,
    duration_s: float | None = None,
    cuts_s: Sequence[float] = (),
    on_step_end: Callable[[int, Any], None] = lambda number, timestep: None,
) -> list[np.ndarray]:
    """Generate sounds of a video, exactly as long as its picture; it is read and encoded once.

    Without a video its features are zeros, as in training with `stage.joint.video_dropout`.

    The same file, arguments and number of threads give the same bits.

    Args:
        model: Model in evaluation mode, on any device.
        video: File of the video, or its frames; None for sound from text alone.
        sampler: A sampler, such as `FastSampler()`.
        scheduler: A scheduler of diffusers, for the prediction type of the model.
        prompt: Caption; "" is the null text.
        negative_prompt: Caption of what is not wanted, in place of the null text in eq. 7.
        seeds: Seed of each sound's noise, together with the number of a window.
        num_inference_steps: Number of denoising steps.
        guidance_scale: w of eq. 7; 1 saves a branch where the prompt is the null text.
        guider: Guider of the branches; that of eq. 7 by default.
        duration_s: Duration of the sound where there is no video; by default the model's.
        cuts_s: Times at which the video's shots after the first begin; no window crosses one. By default the
            video is one shot.
        on_step_end: Called after each step with its number, from 0 through all windows and sounds, and its
            timestep.

    Returns:
        A waveform (S,) at the front end's rate for each seed.

    Raises:
        MediaError: The video can't be read.
        SamplerError: The model gives NaN.
    """
    device = next(model.parameters()).device
    encoders = [model.block(slot) for slot in model.encoders]
    rate_hz = encoders[-1].frame_rate_hz  # the local head's, for exact timing
    if video is not None:
        duration_s = (video if isinstance(video, Decoded) else probe(video, hidden=True)).duration_s
    elif duration_s is None:
        duration_s = model.duration_s
    shots = shots_of(duration_s, cuts_s, model.duration_s, rate_hz)

    def encode(encoder: Any) -> Sequence[Tensor]:
        if video is None:
            length, side = window_frames(encoder, model.duration_s), encoder.frame_size
            black = torch.zeros(1, length, 3, side, side, device=device)
            return torch.zeros_like(encoder(black)).expand(count, -1, -1).split(BATCH)
        frames = read_windows(video, shots, rate_hz, model.duration_s, encoder)
        return [encoder(as_video(batch.to(device))) for batch in frames.split(BATCH)]

    count = sum(len(shot.windows) for shot in shots)
    numbers_of = torch.arange(count).split(BATCH)
    batches = list(zip(numbers_of, *(encode(each) for each in encoders), strict=True))
    size = filled_size(sampler, [len(numbers) for numbers in numbers_of])
    sample_rate = model.front_end.sample_rate
    number = itertools.count()

    def counted(timesteps: Iterable[Any]) -> Iterator[Any]:
        for timestep in bar.counted(timesteps):
            yield timestep
            on_step_end(next(number), timestep)

    def sound(seed: int) -> np.ndarray:
        parts: list[np.ndarray] = []
        for numbers, e_v, *e_tv in batches:
            rows = filled(range(len(numbers)), size)
            z = sampler(
                model,
                e_v[rows],
                [prompt] * len(rows),
                scheduler=scheduler,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                guider=guider,
                e_tv=e_tv[0][rows] if e_tv else None,
                seeds=[noise_seed(seed, number) for number in numbers[rows].tolist()],
                negative_captions=[negative_prompt] * len(rows),
                progress=counted,
            )
            parts.extend(to_audio(model, z[: len(numbers)])[1].cpu().numpy())
        fade, rest = round(OVERLAP * model.duration_s * sample_rate), iter(parts)
        pieces = []
        for shot in shots:
            starts = [round(start / rate_hz * sample_rate) for start in shot.windows]
            joined = cross_fade(list(itertools.islice(rest, len(starts))), starts, fade)
            samples = round(shot.end_s * sample_rate) - round(shot.start_s * sample_rate)
            pieces.append(fit_audio(joined.clip(-LOUDEST, LOUDEST), samples))
        return join_shots(pieces, round(EDGE_S * sample_rate))

    total = step_count(
        model, duration_s, sounds=len(seeds), num_inference_steps=num_inference_steps, cuts_s=cuts_s
    )
    name = getattr(video, "name", "frames" if video is not None else "text")
    with progress(total, name, "step", leave=False) as bar:
        return [sound(seed) for seed in seeds]


def step_count(
    model: STAV2A,
    duration_s: float,
    *,
    sounds: int,
    num_inference_steps: int,
    cuts_s: Sequence[float] = (),
) -> int:
    """Number of times that `video_to_audio` calls `on_step_end`, for a progress bar."""
    rate_hz = model.block(model.encoders[-1]).frame_rate_hz
    count = sum(len(shot.windows) for shot in shots_of(duration_s, cuts_s, model.duration_s, rate_hz))
    return sounds * math.ceil(count / BATCH) * num_inference_steps


def shots_of(duration_s: float, cuts_s: Sequence[float], window_s: float, frame_rate_hz: float) -> list[Shot]:
    """The shots between cuts, each covered by windows.

    Raises:
        UsageError: The cuts are not ascending, or not within the video.

    Example:
        >>> [(shot.start_s, shot.windows) for shot in shots_of(6.4, [3.84], 2.56, 12.5)]
        [(0.0, (0, 16)), (3.84, (0,))]
    """
    edges_s = [0.0, *map(float, cuts_s), duration_s]
    if any(b <= a for a, b in itertools.pairwise(edges_s)):
        raise UsageError(
            f"cuts at {', '.join(f'{cut_s:g}' for cut_s in cuts_s)} s, of a video of {duration_s:g} s.",
            advice="Give times within it, in ascending order.",
        )
    return [
        Shot(start_s, end_s, tuple(window_starts(end_s - start_s, window_s, frame_rate_hz)))
        for start_s, end_s in itertools.pairwise(edges_s)
    ]


def window_starts(duration_s: float, window_s: float, frame_rate_hz: float) -> list[int]:
    """First frames of as few windows as cover a duration, spread evenly.

    They lie on frames of the encoder, so the last window ends with the clip or less than a frame after it.

    Example:
        >>> window_starts(6.4, 2.56, 12.5), window_starts(1.0, 2.56, 12.5)
        ([0, 24, 48], [0])
    """
    last = max(0, math.ceil((duration_s - window_s) * frame_rate_hz - ROUNDING))
    stride = max(1, math.floor((1 - OVERLAP) * window_s * frame_rate_hz + ROUNDING))
    steps = math.ceil(last / stride)
    return [0] + [round(step * last / steps) for step in range(1, steps + 1)]


def window_frames(encoder: Any, window_s: float) -> int:
    """Number of frames that an encoder takes of a window."""
    return max(1, round(window_s * encoder.frame_rate_hz))


def read_windows(
    video: Path | Decoded, shots: Sequence[Shot], windows_hz: float, window_s: float, encoder: Any
) -> Tensor:
    """Frames of all windows (N, L, 3, H, W) uint8; those beyond a shot's end repeat its last frame.

    Args:
        video: A video file, or its frames.
        shots: Shots of the video.
        windows_hz: Rate of the frames that the shots' windows are counted in.
        window_s: Duration of a window.
        encoder: Encoder that the frames are for; its rate may be another.
    """
    rate_hz, length, side = encoder.frame_rate_hz, window_frames(encoder, window_s), encoder.frame_size
    windows = [[round(start / windows_hz * rate_hz) for start in shot.windows] for shot in shots]
    counts = [frame_count((starts[-1] + length) / rate_hz, rate_hz) for starts in windows]

    def times_s(pts_s: np.ndarray) -> np.ndarray:
        asked = [shot.start_s + np.arange(count) / rate_hz for shot, count in zip(shots, counts, strict=True)]
        last = [pts_s[pts_s < shot.end_s - SAME_S].max(initial=shot.start_s) for shot in shots]
        return np.concatenate([np.minimum(*each) for each in zip(asked, last, strict=True)])

    if isinstance(video, Decoded):
        frames = frames_at(video, times_s(video.pts_s), (side, side))
    else:
        frames = read_video(video, times_s=times_s, size=side, hidden=True)
    firsts = np.cumsum([0, *counts[:-1]])  # of the shots, in `frames`
    chosen = [first + start for first, starts in zip(firsts, windows, strict=True) for start in starts]
    views = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)  # (·, H, W, 3, L), a view
    return torch.from_numpy(views[chosen]).permute(0, 4, 3, 1, 2)


def cross_fade(parts: Sequence[np.ndarray], starts: Sequence[int], length: int) -> np.ndarray:
    """Join overlapping sounds with a cross-fade in the middle of each overlap.

    The fade has equal power (sine and cosine), since windows are drawn from independent noise: uncorrelated
    sounds keep their loudness, and would lose 3 dB in the middle of a linear fade.

    Args:
        parts: Sounds (S,), each of which overlaps the next.
        starts: First sample of each sound; the first is 0.
        length: Length of a fade, in samples; a shorter overlap is faded over its whole length.

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


def join_shots(sounds: Sequence[np.ndarray], fade: int) -> np.ndarray:
    """Join the sounds of successive shots, faded out before each cut and in after it.

    Args:
        sounds: Sounds (S,) of the shots.
        fade: Length of a fade, in samples.

    Example:
        >>> print(join_shots([np.ones(3), np.ones(3)], 2).round(2))
        [1. 0.75 0.25 0.25 0.75 1. ]
    """
    slope = ((np.arange(fade) + 0.5) / fade).astype(np.float32) if fade else np.zeros(0, np.float32)
    joined = np.concatenate(sounds)
    for cut in np.cumsum([len(sound) for sound in sounds])[:-1]:
        before, after = joined[max(0, cut - fade) : cut], joined[cut : cut + fade]
        before *= slope[::-1][fade - len(before) :]
        after *= slope[: len(after)]
    return joined
