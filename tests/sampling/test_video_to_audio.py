"""Sound for a video of any duration: windows of the model's duration, joined by cross-fades."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stav2a.data.media import Decoded, read_video
from stav2a.data.mel import SAMPLE_RATE
from stav2a.models.stav2a import STAV2A
from stav2a.sampling import FastSampler, SamplerError, ddim
from stav2a.sampling.video_to_audio import (
    EDGE_S,
    Shot,
    cross_fade,
    join_shots,
    read_windows,
    shots_of,
    step_count,
    video_to_audio,
    window_starts,
)
from stav2a.sampling.waveforms import batches_of, generate, noise_seed
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.cli.test_generate_command import DURATION_S, FPS, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """long and short, as long as 2.5 and 0.4 windows."""
    folder = tmp_path_factory.mktemp("videos")
    for name, times in (("long", 2.5), ("short", 0.4)):
        write_video(folder / f"{name}.mp4", round(times * DURATION_S * FPS))
    return folder


def sound(model: Any, video: Path | Decoded, **changes: Any) -> np.ndarray:
    settings: dict[str, Any] = {"seeds": (1,), "num_inference_steps": 2, "guidance_scale": 1.0, **changes}
    scheduler = ddim("v_prediction")
    (made,) = video_to_audio(model, video, sampler=FastSampler(), scheduler=scheduler, **settings)
    return made


@pytest.fixture(scope="module")
def model() -> STAV2A:
    return tiny.model()


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

    (shot,) = shots_of(2.5 * DURATION_S, [], DURATION_S, 12.5)
    assert shot.windows == (0, 24, 48)
    long = read_windows(videos / "long.mp4", [shot], 12.5, DURATION_S, Encoder)
    assert long.shape == (3, 32, 3, 32, 32) and long.dtype == torch.uint8
    assert torch.equal(long[0, 24:], long[1, :8])
    brightness = long[:, :, 0].float().flatten(2).median(2).values
    assert brightness[1, 0] == pytest.approx(2 * 48, abs=4)  # frame 48 of 25 a second: 24 of 12.5
    short = read_windows(videos / "short.mp4", [Shot(0.0, 1.04, (0,))], 12.5, DURATION_S, Encoder)
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


def test_no_window_has_a_frame_of_another_shot(videos):
    class Encoder:
        frame_rate_hz, frame_size = 12.5, 32

    class Slow:
        frame_rate_hz, frame_size = 4.0, 32

    shots = shots_of(2.5 * DURATION_S, [1.0, 5.0], DURATION_S, 12.5)
    assert [(shot.start_s, shot.windows) for shot in shots] == [(0.0, (0,)), (1.0, (0, 18)), (5.0, (0,))]
    for encoder, length in ((Encoder, 32), (Slow, 10)):
        windows = read_windows(videos / "long.mp4", shots, 12.5, DURATION_S, encoder)
        assert windows.shape == (4, length, 3, 32, 32)
        brightness = windows[:, :, 0].float().flatten(2).median(2).values  # frame i is 2 i bright
        for row, (first, last) in zip(brightness, [(0, 24), (25, 124), (25, 124)], strict=False):
            assert row.min() >= 2 * first - 4 and row.max() <= 2 * last + 4
        assert brightness[3, 0] >= 246 and all(
            each > 246 or each < 66 for each in brightness[3]
        )  # to 2 * 159 - 256
        assert brightness[1, 0] == pytest.approx(2 * 25, abs=4)
        assert brightness[0, -1] == brightness[0, -2] == pytest.approx(2 * 24, abs=4)


def test_a_shot_has_the_sound_of_a_video_of_its_own_but_for_its_edges(model, videos):
    cut_s, film = 0.48, videos / "short.mp4"
    whole = sound(model, film, cuts_s=[cut_s])
    assert len(whole) == round(1.04 * SAMPLE_RATE) and not np.array_equal(whole, sound(model, film))
    frames = read_video(film, duration_s=cut_s)
    times_s = np.arange(len(frames)) / FPS
    alone = sound(model, Decoded(frames, times_s, FPS, cut_s, np.zeros(0, np.float32), 1))
    edge = round(EDGE_S * SAMPLE_RATE)
    np.testing.assert_allclose(whole[: len(alone) - edge], alone[:-edge], atol=1e-4)


def test_steps_are_counted_with_the_windows_of_all_shots(model):
    count = partial(step_count, model, 6.4, sounds=2, num_inference_steps=5)
    assert count() == 2 * 5 * 2  # 13 windows, 8 at a time
    assert count(cuts_s=[0.32 * number for number in range(1, 20)]) == 2 * 5 * 3  # 20 windows


def test_sounds_of_shots_fade_at_cuts_alone():
    joined = join_shots([np.ones(100), np.ones(50)], 10)
    assert np.array_equal(joined[:90], np.ones(90)) and np.array_equal(joined[110:], np.ones(40))
    assert joined[99] == joined[100] == pytest.approx(0.05)
    assert np.array_equal(join_shots([np.ones(7)], 10), np.ones(7))


@pytest.mark.parametrize("cuts_s", [[0.0], [2.0, 1.0], [7.0]])
def test_cuts_that_are_none_are_refused(cuts_s):
    with pytest.raises(UsageError, match="Give times within it, in ascending order"):
        shots_of(6.4, cuts_s, DURATION_S, 12.5)
