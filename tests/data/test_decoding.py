"""Stretches of a file, and clips that are too large for the memory."""

import numpy as np
import pytest

from stav2a.data.media import ClipLimits, ClipNote, MediaError, decode
from tests.data.hostile import tone, video, write

LONG_S = 6.0


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """6 s of picture, a tone of growing loudness beside it."""
    folder = tmp_path_factory.mktemp("long")
    ramp = tone(LONG_S) * np.linspace(0, 1, round(LONG_S * 16_000))
    return write(folder / "long.mp4", frames=150, sound=ramp.astype(np.float32))


def test_a_stretch_holds_the_picture_and_the_sound_of_the_same_time(long):
    whole, part = decode(long), decode(long, start_s=2.0, duration_s=1.5)
    assert (part.frames.shape[0], part.duration_s, part.pts_s[0]) == (38, pytest.approx(1.5), 0)
    np.testing.assert_array_equal(part.frames, whole.frames[50:88])
    audio = part.audio[: round(1.4 * 16_000)]
    np.testing.assert_allclose(audio, whole.audio[32_000 : 32_000 + len(audio)], atol=2e-3)
    assert len(part.audio) == 24_000 and part.notes == ()


def test_a_stretch_may_end_with_the_file(long):
    assert len(decode(long, start_s=5.0, duration_s=3.0).frames) == 25


def test_a_stretch_outside_the_file_is_refused(long):
    with pytest.raises(MediaError, match="no frame from 9 s on; the picture lasts 6.00 s. Choose a stretch"):
        decode(long, start_s=9.0)


def test_a_stretch_of_a_file_that_is_too_long_is_read(long):
    limits = ClipLimits(seconds=2.0)
    with pytest.raises(MediaError, match="6 s long; a clip has at most 2 s. Cut it into clips"):
        decode(long, limits=limits)
    assert len(decode(long, duration_s=2.0, limits=limits).frames) == 50


def test_pictures_too_large_for_the_memory_are_reduced_with_a_note(long):
    whole, small = decode(long), decode(long, limits=ClipLimits(frame_bytes=150 * 32 * 32 * 3))
    assert (small.frames.shape, small.reduction) == ((150, 32, 32, 3), 2.0)
    assert small.notes == (ClipNote("picture reduced", (64, 64, 32, 32)),)
    assert str(small.notes[0]) == "picture reduced from 64×64 to 32×32 to fit into memory"
    means = whole.frames.reshape(150, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.corrcoef(small.frames.mean(axis=3).ravel(), means.mean(axis=3).ravel())[0, 1] > 0.95


def test_too_many_frames_are_refused(long):
    with pytest.raises(MediaError, match="150 frames; a clip has at most 100. Lower its frame rate first."):
        decode(long, limits=ClipLimits(frames=100))


def test_even_frames_are_shown_by_their_number_uneven_ones_by_their_times(long, tmp_path):
    np.testing.assert_array_equal(decode(long).times_s, np.arange(150) / 25)
    stamps = [40 * i + 1000 * (i > 15) for i in range(30)]
    uneven = decode(video("vfr.mp4", stamps=stamps)(tmp_path))
    np.testing.assert_allclose(uneven.times_s, np.array(stamps) / 1000, atol=1e-3)
