"""Sound for a video of any duration: windows of the model's duration, joined by cross-fades."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stav2a.data.mel import SAMPLE_RATE
from stav2a.sampling import FastSampler, SamplerError, ddim
from stav2a.sampling.video_to_audio import cross_fade, read_windows, video_to_audio, window_starts
from stav2a.sampling.waveforms import batches_of, generate, noise_seed
from tests import tiny
from tests.cli.test_generate_command import DURATION_S, FPS, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """long and short, as long as 2.5 and 0.4 windows."""
    folder = tmp_path_factory.mktemp("videos")
    for name, times in (("long", 2.5), ("short", 0.4)):
        write_video(folder / f"{name}.mp4", round(times * DURATION_S * FPS))
    return folder


def sound(model: Any, video: Path, **changes: Any) -> np.ndarray:
    settings: dict[str, Any] = {"seeds": (1,), "num_inference_steps": 2, "guidance_scale": 1.0, **changes}
    scheduler = ddim("v_prediction")
    (made,) = video_to_audio(model, video, sampler=FastSampler(), scheduler=scheduler, **settings)
    return made


def test_a_model_a_sampler_and_a_scheduler_make_the_sound_of_a_video(videos):
    model = tiny.model()
    made = sound(model, videos / "long.mp4")
    assert made.shape == (round(2.5 * DURATION_S * SAMPLE_RATE),) and np.abs(made).max() > 0
    assert np.array_equal(sound(model, videos / "long.mp4"), made)
    other = sound(model, videos / "long.mp4", prompt="a drum", guidance_scale=3.0)
    assert not np.array_equal(other, made)


@pytest.mark.parametrize("block", ["backbone", "autoencoder"])
def test_a_model_that_gives_nan_is_refused_for_a_video_and_in_a_run(videos, block):
    model = tiny.model()
    tiny.shake(getattr(model, block), float("nan"))
    settings: dict[str, Any] = {"sampler": FastSampler(), "scheduler": ddim("v_prediction")}
    message = "The model gives NaN: its training diverged. Train it again with a smaller learning rate"
    with pytest.raises(SamplerError, match=message):
        sound(model, videos / "short.mp4")
    with pytest.raises(SamplerError, match=message):
        e_v = torch.zeros(1, 8, 16)
        settings |= {"num_inference_steps": 2, "guidance_scale": 1.0, "seed": 0, "batches": batches_of(1)}
        list(generate(model, [e_v], [0], ["a bell"], **settings))


@pytest.mark.parametrize("rate_hz", [4.0, 12.5, 25.0])
@pytest.mark.parametrize("duration_s", [0.04, 1.0, 2.56, 2.57, 4.5, 6.4, 7.77, 61.3])
def test_windows_cover_the_video_and_share_a_quarter(duration_s, rate_hz):
    starts = window_starts(duration_s, DURATION_S, rate_hz)
    strides = [after - before for before, after in pairwise(starts)]
    assert starts[0] == 0
    assert all(0 < stride <= 0.75 * DURATION_S * rate_hz + 1e-6 for stride in strides)
    assert starts[-1] / rate_hz + DURATION_S >= duration_s - 1e-6
    assert starts[-1] == 0 or starts[-1] / rate_hz + DURATION_S < duration_s + 1 / rate_hz


def test_a_clip_no_longer_than_the_model_is_one_window():
    assert window_starts(DURATION_S, DURATION_S, 12.5) == [0]


def test_each_window_has_its_own_time_and_the_last_frame_is_repeated(videos):
    class Encoder:
        frame_rate_hz, frame_size = 12.5, 32

    long = read_windows(videos / "long.mp4", [0, 24, 48], DURATION_S, Encoder)
    assert long.shape == (3, 32, 3, 32, 32) and long.dtype == torch.uint8
    assert torch.equal(long[0, 24:], long[1, :8])
    brightness = long[:, :, 0].float().flatten(2).median(2).values
    assert brightness[1, 0] == pytest.approx(2 * 48, abs=4)  # frame 48 of 25 a second: 24 of 12.5
    short = read_windows(videos / "short.mp4", [0], DURATION_S, Encoder)
    assert torch.equal(short[0, 13:], short[0, 13:14].expand(19, -1, -1, -1))  # its end is at 1.04 s
    assert not torch.equal(short[0, 12], short[0, 13])


def test_a_cross_fade_keeps_the_loudness_of_noise():
    rng = np.random.default_rng(0)
    parts = list(rng.normal(size=(3, 40_000)).astype(np.float32))
    joined = cross_fade(parts, [0, 30_000, 60_000], 10_000)
    assert joined.shape == (100_000,)
    assert np.array_equal(joined[:30_000], parts[0][:30_000])
    assert np.array_equal(joined[40_000:60_000], parts[1][10_000:30_000])
    assert np.array_equal(joined[70_000:], parts[2][10_000:])
    assert joined[30_000:40_000].std() == pytest.approx(1, abs=0.03)


def test_a_large_overlap_fades_in_its_middle():
    joined = cross_fade([np.ones(100), np.zeros(100)], [0, 20], 10)
    assert np.array_equal(joined[:55], np.ones(55)) and np.array_equal(joined[65:], np.zeros(55))
    assert (np.diff(joined[54:66]) < 0).all()


def test_windows_have_noise_of_their_own():
    seeds = [noise_seed(seed, number) for seed in range(3) for number in range(100)]
    assert len({*seeds, *(seed + 1 for seed in seeds)}) == 600  # with the scheduler's
