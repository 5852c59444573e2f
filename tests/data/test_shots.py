"""Cuts of a film."""

from pathlib import Path

import numpy as np
import pytest

from stav2a.data.media import Decoded, find_cuts, write_clip

FPS = 25


def pictures(*shots: tuple[int, int]) -> np.ndarray:
    """Shots of a number of frames and a brightness, with noise and a bar that moves."""
    rng = np.random.default_rng(0)
    frames = []
    for count, brightness in shots:
        for number in range(count):
            frame = np.clip(rng.normal(brightness, 4, (48, 64, 3)), 0, 255).astype(np.uint8)
            frame[:, number % 64] = 255
            frames.append(frame)
    return np.stack(frames)


def decoded(frames: np.ndarray) -> Decoded:
    times_s = np.arange(len(frames)) / FPS
    return Decoded(frames, times_s, float(FPS), len(frames) / FPS, np.zeros(0, np.float32), 1)


def test_cuts_are_found_in_a_file_and_in_frames(tmp_path: Path):
    frames = pictures((30, 40), (25, 160), (20, 90))
    write_clip(tmp_path / "x.mp4", frames, FPS, np.zeros(3 * 16_000), 16_000)
    assert find_cuts(tmp_path / "x.mp4") == pytest.approx([1.2, 2.2])
    assert find_cuts(decoded(frames)) == pytest.approx([1.2, 2.2])


@pytest.mark.parametrize("shots", [[(50, 90)], [(5, 40), (45, 160)], [(45, 40), (5, 160)]])
def test_movement_is_no_cut_and_the_ends_are_no_shots(shots):
    assert find_cuts(decoded(pictures(*shots))) == []


def test_a_flash_is_one_cut_at_most():
    assert find_cuts(decoded(pictures((25, 40), (1, 250), (25, 40)))) == [1.0]


def test_a_change_that_goes_on_is_no_cut():
    fading = np.stack([np.full((48, 64, 3), 5 * i, np.uint8) for i in range(50)])
    assert find_cuts(decoded(fading), threshold=1.0) == []
