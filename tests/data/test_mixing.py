"""The sound of a film from a new one and its own: rate, channels, level, loudness."""

from pathlib import Path

import numpy as np
import pytest

from stav2a.data.media import MixSettings, loudness_lufs, mix_sounds, read_audio, write_wav

RATE_HZ = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32).clip(-0.99, 0.99)


def tone(hz: float, sample_rate: int, amplitude: float, seconds: float = 2.0) -> np.ndarray:
    times_s = np.arange(round(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * hz * times_s)).astype(np.float32)


def test_without_settings_a_sound_is_left_to_the_bit():
    made = MixSettings()(NOISE, RATE_HZ, None)
    assert made.whole.tobytes() == made.new.tobytes() == NOISE.tobytes()
    assert made.sample_rate == RATE_HZ and made.remarks == ()


@pytest.mark.parametrize("sample_rate", [44_100, 48_000])
def test_stereo_is_two_equal_channels_of_the_resampled_sound(sample_rate):
    made = MixSettings(sample_rate=sample_rate, stereo=True)(tone(440, RATE_HZ, 0.5), RATE_HZ, None)
    assert made.whole.shape == (2, 2 * sample_rate) and made.sample_rate == sample_rate
    np.testing.assert_array_equal(made.whole[0], made.whole[1])
    inner = slice(2000, -2000)
    np.testing.assert_allclose(made.whole[0, inner], tone(440, sample_rate, 0.5)[inner], atol=1e-3)


# A tone of 997 Hz and full scale in one channel has -3.01 LUFS, by the definition of BS.1770.
@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 48_000])
def test_loudness_is_that_of_the_standard(sample_rate):
    assert loudness_lufs(tone(997, sample_rate, 0.1), sample_rate) == pytest.approx(-23.01, abs=0.05)


def test_silence_between_sounds_does_not_count():
    sound = tone(997, 48_000, 0.1)
    with_pause = np.concatenate([sound, np.zeros(10 * 48_000, np.float32)])
    assert loudness_lufs(with_pause, 48_000) == pytest.approx(-23.0, abs=0.6)
    assert loudness_lufs(np.zeros(48_000, np.float32), 48_000) == -70


@pytest.mark.parametrize("settings", [{}, {"sample_rate": 48_000, "stereo": True}])
def test_a_sound_is_brought_to_a_loudness(settings):
    made = MixSettings(loudness_lufs=-23.0, **settings)(NOISE, RATE_HZ, None)
    assert loudness_lufs(made.whole, made.sample_rate) == pytest.approx(-23, abs=0.1)
    assert made.remarks == () and made.new is made.whole


def test_peaks_bound_the_loudness_and_a_line_says_so():
    clicks = np.zeros(2 * RATE_HZ, np.float32)
    clicks[::4000] = 0.1
    made = MixSettings(loudness_lufs=-10.0)(clicks, RATE_HZ, None)
    assert np.abs(made.whole).max() <= 10 ** (-1 / 20)
    found = loudness_lufs(made.whole, RATE_HZ)
    assert made.remarks == (f"{found:.1f} LUFS, not -10: its peaks reach -1 dB",)
    silent = MixSettings(loudness_lufs=-23.0)(np.zeros(RATE_HZ, np.float32), RATE_HZ, None)
    assert silent.remarks == ("silent, or shorter than 0.4 s: not brought to -23 LUFS",)


def test_a_gain_ends_at_full_scale_and_a_line_says_so():
    quiet, loud = (MixSettings(gain_db=gain)(tone(440, RATE_HZ, 0.5), RATE_HZ, None) for gain in (-6.0, 20.0))
    assert np.abs(quiet.whole).max() == pytest.approx(0.5 * 10 ** (-6 / 20), rel=1e-3) and quiet.remarks == ()
    assert np.abs(loud.whole).max() == pytest.approx(1)
    assert loud.remarks == ("the new sound's level is changed by 6.0 dB, not 20: full scale",)


def test_a_mix_keeps_the_channels_of_the_own_sound_and_gives_the_new_one_alone():
    own = np.stack([tone(300, 48_000, 0.4), np.zeros(96_000, np.float32)])  # from the left
    settings = MixSettings(sample_rate=48_000, stereo=True, own_gain_db=-6.0, gain_db=-20.0)
    made = settings(NOISE, RATE_HZ, own)
    np.testing.assert_allclose(made.new, MixSettings(sample_rate=48_000, stereo=True, gain_db=-20.0)(
        NOISE, RATE_HZ, None
    ).whole)  # fmt: skip
    np.testing.assert_allclose(made.whole - made.new, own * 10 ** (-6 / 20), atol=1e-6)


def test_channels_are_lowered_together_under_a_new_sound():
    new = np.stack([np.full(1000, 0.4)] * 2)
    mixed = mix_sounds(new, np.stack([np.full(1000, 0.2), np.full(1000, 0.1)]), 1000, duck_db=20.0)
    np.testing.assert_allclose(mixed[:, 500], [0.42, 0.41], atol=1e-6)


def test_stereo_is_read_with_its_channels_and_mono_twice(tmp_path: Path):
    left, right = tone(300, RATE_HZ, 0.5), tone(900, RATE_HZ, 0.3)
    write_wav(tmp_path / "two.wav", np.stack([left, right]), RATE_HZ)
    write_wav(tmp_path / "one.wav", left, RATE_HZ)
    two, one = (read_audio(tmp_path / f"{name}.wav", RATE_HZ, stereo=True) for name in ("two", "one"))
    np.testing.assert_allclose(two, [left, right], atol=1e-4)
    np.testing.assert_allclose(one, [left, left], atol=1e-4)
    np.testing.assert_allclose(read_audio(tmp_path / "two.wav", RATE_HZ), (left + right) / 2, atol=1e-4)
