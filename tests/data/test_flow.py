import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from stav2a import registry
from stav2a.data.filters import AVAlignFilter, KeepAll
from stav2a.data.media import Decoded
from stav2a.data.onsets import SuperFlux
from stav2a.data.optical_flow import Farneback, SparseFarneback, motion
from stav2a.metrics.alignment import aa_align, video_peaks_s


def moving(shifts: list[int]) -> np.ndarray:
    """A random texture that has moved this many pixels to the right, a frame."""
    coarse = np.random.default_rng(0).uniform(0, 255, (24, 24)).repeat(4, axis=0).repeat(4, axis=1)
    texture = ((coarse + np.roll(coarse, 1, 0) + np.roll(coarse, 1, 1)) / 3).astype(np.uint8)
    return np.stack([np.roll(texture, shift, axis=1) for shift in shifts])


def test_motion_is_in_pixels_a_frame_and_repeats_its_first_value():
    trajectory = motion(moving([0, 0, 2, 2, 3]))
    assert trajectory.shape == (5,)
    np.testing.assert_allclose(trajectory, [0, 0, 2, 0, 1], atol=0.3)


def test_a_reduced_size_gives_native_pixels():
    np.testing.assert_allclose(motion(moving([0, 0, 2, 2]), size=48), [0, 0, 2, 0], atol=0.5)


def test_rgb_and_grey_have_the_same_motion():
    grey = moving([0, 1, 3])
    np.testing.assert_allclose(motion(np.repeat(grey[..., None], 3, axis=3)), motion(grey), atol=0.02)


def test_two_frames_have_no_peaks():
    with pytest.raises(ValueError, match="AV-Align was given 2 frames; motion has peaks from 3 on"):
        motion(moving([0, 1]))


def test_peaks_are_strict_inner_maxima_above_the_threshold():
    trajectory = np.array([9, 0, 1, 0, 0.1, 0, 2, 2, 0, 0.11, 0, 5])
    np.testing.assert_allclose(video_peaks_s(trajectory, 10), [0.2, 0.9])


@pytest.mark.parametrize(
    ("onsets", "peaks", "expected"),
    [
        ([0.5], [0.53], 1.0),
        ([0.5], [0.54], 0.0),  # the tolerance is exclusive
        ([0.5, 0.51], [0.5], 2.0),  # as released, many may hit one
        ([0.5, 1.0], [0.5, 2.0], 1 / 3),
        ([0.5], [], 0.0),
        ([], [0.5], 0.0),
    ],
)
def test_av_align_as_released(onsets, peaks, expected):
    assert aa_align(onsets, peaks, tolerance_s=0.04, matching="released") == pytest.approx(expected)


def test_av_align_of_nothing_is_not_a_number():
    assert math.isnan(aa_align([], [], tolerance_s=0.04, matching="released"))


def clip(shifts: list[int], onset_s: float | None) -> Decoded:
    audio = np.zeros(16_000, np.float32)
    if onset_s is not None:
        start = round(onset_s * 16_000)
        audio[start : start + 800] = np.random.default_rng(0).uniform(-0.5, 0.5, 800)
    frames = moving(shifts)
    return Decoded(frames, np.arange(len(frames)) / 25, 25.0, len(frames) / 25, audio, 16_000)


JERK_AT_10 = [0] * 10 + [3] * 15


def test_the_filter_keeps_sound_that_begins_with_motion_and_says_why():
    decision = AVAlignFilter(detector=SuperFlux)(clip(JERK_AT_10, 0.4))
    assert (decision.keep, decision.score) == (True, 1.0)
    assert decision.reason == "kept: 1.00 ≥ 0.2 (1 onsets, 1 peaks of motion)"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (clip(JERK_AT_10, 0.7), "rejected: 0.00 < 0.2 (1 onsets, 1 peaks of motion)"),
        (clip([0] * 25, 0.4), "rejected: 0.00 < 0.2 (1 onsets, 0 peaks of motion)"),
        (clip([0] * 25, None), "rejected: no onset and no motion"),
        (clip([0, 1], 0.4), "rejected: 2 frames, too few for motion"),
    ],
)
def test_the_filter_rejects_the_rest_and_says_why(given, reason):
    decision = AVAlignFilter(detector=SuperFlux)(given)
    assert not decision.keep
    assert decision.reason == reason


def test_no_filter_keeps_all():
    assert KeepAll()(clip([0, 1], None)).keep


@pytest.mark.parametrize("size", [(96, 96), (120, 212), (67, 251)])
def test_solved_for_every_pixel_the_sparse_flow_is_opencvs(size):
    frames = textured(size)
    np.testing.assert_allclose(SparseFarneback(step=1)(frames), Farneback()(frames), atol=1e-3)


def test_solved_for_every_second_pixel_it_is_nearly_that():
    frames = textured((240, 320))
    sparse, exact = SparseFarneback()(frames), Farneback()(frames)
    np.testing.assert_allclose(sparse, exact, rtol=0.01)
    assert not np.array_equal(sparse, SparseFarneback(step=1)(frames))


def test_small_pictures_are_solved_for_every_pixel():
    frames = textured((96, 96))
    np.testing.assert_array_equal(SparseFarneback()(frames), SparseFarneback(step=1)(frames))


def test_the_filter_takes_any_flow():
    given = clip(JERK_AT_10, 0.4)
    sparse = AVAlignFilter(detector=SuperFlux, flow=SparseFarneback)(given)
    assert sparse == AVAlignFilter(detector=SuperFlux)(given)
    with pytest.raises(registry.RegistryError, match="optical_flow was given onset_detector.superflux"):
        AVAlignFilter(flow=SuperFlux)


def test_frames_at_uneven_times_move_at_their_own_times():
    even = clip(JERK_AT_10, 0.6)
    late = even.pts_s + 0.2 * (np.arange(25) >= 10)  # the jerk is shown 0.2 s later
    uneven = replace(even, pts_s=late)
    assert not AVAlignFilter(detector=SuperFlux)(even).keep
    assert AVAlignFilter(detector=SuperFlux)(uneven).keep


def test_reduced_frames_are_counted_in_the_files_own_pixels():
    slow = clip([0] * 10 + [1] * 15, 0.4)
    reduced = replace(slow, frames=slow.frames[:, ::2, ::2], reduction=2.0)
    assert AVAlignFilter(detector=SuperFlux)(reduced).keep


def textured(size: tuple[int, int]) -> np.ndarray:
    """A smooth random picture that turns and grows a little from frame to frame."""
    noise = np.random.default_rng(0).uniform(0, 255, (size[0] + 40, size[1] + 40)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    middle = (size[1] / 2 + 20, size[0] / 2 + 20)
    turned = [
        cv2.warpAffine(smooth, cv2.getRotationMatrix2D(middle, angle, 1 + angle / 100), smooth.shape[::-1])
        for angle in (0.0, 0.5, 2.0, 2.2)
    ]
    return np.stack(turned)[:, 20:-20, 20:-20]
