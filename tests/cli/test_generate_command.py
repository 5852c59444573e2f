"""`stav2a generate`: sound for videos of any length, their picture untouched; every bad input explained."""

import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.data.media import probe, read_audio, write_clip, write_wav
from stav2a.data.mel import SAMPLE_RATE
from stav2a.experiments import run_folder
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.run_folder import RunFolder
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.sampling.guiders import NullText
from stav2a.utils.errors import printable
from stav2a.utils.store import save_tensors
from tests.data.strange_films import film

RECIPES = ["recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin"]
DURATION_S = 2.56  # of the model
FPS = 25


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run whose model has learnt nothing."""
    loaded = recipe.load(RECIPES, root=Experiment)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "untrained")
    facts = {"recipe": "cn_onset_gvf", "environment": {}, "git": {}}
    folder.begin(signature=loaded.signature(), snapshot=loaded.snapshot(), facts=facts)
    save_tensors(folder.weights, loaded.build().model().state_dict())
    folder.add(seconds=1.0, finished=True)
    return folder.path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """long, short and exact, as long as 2.5, 0.4 and 1 times the model's clips."""
    folder = tmp_path_factory.mktemp("videos")
    for name, times in (("long", 2.5), ("short", 0.4), ("exact", 1.0)):
        write_video(folder / f"{name}.mp4", round(times * DURATION_S * FPS))
    return folder


def write_video(path: Path, frames: int) -> None:
    """A bar that moves; frame i is 2 i bright beside it."""
    brightness = (2 * np.arange(frames) % 256).astype(np.uint8)
    pictures = np.tile(brightness[:, None, None, None], (1, 32, 48, 3))
    for index, picture in enumerate(pictures):
        picture[:, index % 48] = 255
    rng = np.random.default_rng(0)
    write_clip(path, pictures, FPS, rng.uniform(-0.1, 0.1, frames * SAMPLE_RATE // FPS), SAMPLE_RATE)


@pytest.fixture(scope="module")
def made(run, videos, tmp_path_factory) -> tuple[Path, int]:
    """One call for two good videos with a bad one between them; its output folder and exit code."""
    bad = tmp_path_factory.mktemp("bad") / "broken.mp4"
    bad.write_bytes((videos / "long.mp4").read_bytes()[:4000])
    output = tmp_path_factory.mktemp("made") / "new" / "folder"
    files = [videos / "long.mp4", bad, videos / "short.mp4", videos / "exact.mp4"]
    return output, main(["generate", *map(str, files), "--run", str(run), "--output", str(output)])


def packets(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        return [(bytes(p), p.pts * p.time_base) for p in container.demux(video=0) if p.size]


def durations_s(path: Path) -> tuple[float, float]:
    """Of the picture and of the sound."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        return float(video.duration * video.time_base), float(audio.duration * audio.time_base)


def call(run: Path, output: Path, *arguments: object) -> int:
    return main(["generate", *map(str, arguments), "--run", str(run), "--output", str(output)])


@pytest.mark.parametrize("name", ["long", "short", "exact"])
def test_the_picture_is_copied_packet_by_packet(made, videos, name):
    assert packets(made[0] / f"{name}.mp4") == packets(videos / f"{name}.mp4")


@pytest.mark.parametrize("name", ["long", "short", "exact"])
def test_the_sound_is_as_long_as_the_picture(made, videos, name):
    picture_s, sound_s = durations_s(made[0] / f"{name}.mp4")
    assert abs(sound_s - picture_s) <= 1 / FPS
    samples = len(read_audio(made[0] / f"{name}.wav", SAMPLE_RATE))
    assert samples == round(probe(videos / f"{name}.mp4").duration_s * SAMPLE_RATE)


def test_the_mp4_holds_the_sound_of_the_wav(made):
    wav, mp4 = (read_audio(made[0] / f"short.{kind}", SAMPLE_RATE) for kind in ("wav", "mp4"))
    assert np.abs(wav).max() > 0
    length = min(len(wav), len(mp4))
    assert np.corrcoef(wav[:length], mp4[:length])[0, 1] > 0.7  # untrained models make noise, hard for AAC


def test_one_bad_file_does_not_stop_the_rest(made):
    assert made[1] == 1
    assert sorted(path.name for path in made[0].iterdir()) == [
        f"{name}.{kind}" for name in ("exact", "long", "short") for kind in ("mp4", "wav")
    ]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(run, videos, made, tmp_path, capsys):
    assert call(run, tmp_path / "same", videos / "short.mp4") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'same' / 'short.mp4'}\n"
    assert captured.err == f"1 of 1 videos have their sound, in {tmp_path / 'same'}\n"
    assert call(run, tmp_path / "other", videos / "short.mp4", "--seed", 1) == 0
    first, same, other = (
        (folder / "short.wav").read_bytes() for folder in (made[0], tmp_path / "same", tmp_path / "other")
    )
    assert first == same != other


def test_a_prompt_is_heard_and_steps_are_taken(run, videos, made, tmp_path):
    prompted = tmp_path / "prompted"
    assert call(run, prompted, videos / "short.mp4", "--prompt", "a dog", "--guidance", 2, "--steps", 1) == 0
    assert (prompted / "short.wav").read_bytes() != (made[0] / "short.wav").read_bytes()


def test_guidance_without_a_prompt_warns_and_is_not_computed(run, videos, tmp_path, capsys, made):
    assert call(run, tmp_path, videos / "short.mp4", "--guidance", 5) == 0
    assert "warning: --guidance has no effect without a --prompt." in capsys.readouterr().err
    assert (tmp_path / "short.wav").read_bytes() == (made[0] / "short.wav").read_bytes()


def test_a_prompt_that_the_guider_leaves_out_warns(run, videos, tmp_path, capsys):
    bare = VideoToAudioPipeline.from_pretrained(run)
    bare.factories["guider"] = NullText
    bare.save_pretrained(tmp_path / "model")
    for more, told in ((["--prompt", "a dog"], True), ([], False)):
        given = ["generate", str(videos / "short.mp4"), "--model", str(tmp_path / "model"), *more]
        assert main([*given, "--output", str(tmp_path / "sounds"), "--overwrite"]) == 0
        warning = "--prompt and --guidance have no effect: the run's guider leaves captions out."
        assert (warning in capsys.readouterr().err) is told


# Bad videos


def header_only(path: Path, **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()


def sound_only(path: Path) -> None:
    write_wav(path.with_suffix(".wav"), np.zeros(1600), SAMPLE_RATE)
    path.with_suffix(".wav").rename(path)


BAD = {
    "missing.mp4": (lambda path, _: None, "no such file"),
    "empty.mp4": (lambda path, _: path.write_bytes(b""), "an empty file (0 bytes)"),
    "text.mp4": (lambda path, _: path.write_text("no video\n" * 50), "not a readable video"),
    "folder.mp4": (lambda path, _: path.mkdir(), "a folder"),
    "truncated.mp4": (lambda path, good: path.write_bytes(good.read_bytes()[:3000]), "cut off"),
    "sound.mp4": (lambda path, _: sound_only(path), "no video stream"),
    "frameless.mp4": (lambda path, _: header_only(path), "no video stream with frames"),
    "rateless.mp4": (
        lambda path, _: header_only(path, movflags="empty_moov+frag_keyframe"),
        "no frame rate",
    ),
}


def test_bad_videos_are_told_on_one_line_each_and_leave_nothing(run, videos, tmp_path, capsys):
    paths = [tmp_path / name for name in BAD]
    for path in paths:
        BAD[path.name][0](path, videos / "short.mp4")
    output = tmp_path / "output"
    assert call(run, output, *paths) == 1
    captured = capsys.readouterr()
    *errors, summary = captured.err.splitlines()
    for path, line in zip(paths, errors, strict=True):
        assert line.startswith(f"error: {path}: ") and line.count(str(path)) == 1
        assert BAD[path.name][1] in line
    assert summary == f"0 of {len(BAD)} videos have their sound, in {output}"
    assert captured.out == "" and list(output.iterdir()) == []


# Bad commands


def test_two_videos_of_one_name_are_refused(run, tmp_path, capsys):
    assert call(run, tmp_path / "out", tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mov") == 2
    error = capsys.readouterr().err
    assert (
        f"error: {tmp_path}/a/x.mp4 and {tmp_path}/b/x.mov would both become {tmp_path}/out/x.wav." in error
    )
    assert not (tmp_path / "out").exists()


def test_an_input_is_never_written_over(run, tmp_path, capsys):
    video = tmp_path / "clip.mp4"
    write_video(video, 10)
    before = video.read_bytes()
    assert call(run, tmp_path / "." / "sub" / "..", video) == 2
    assert (
        "is one of the videos and would be written over. Choose another --output." in capsys.readouterr().err
    )
    assert video.read_bytes() == before


def test_a_recording_beside_the_video_is_never_replaced(run, videos, tmp_path, capsys):
    (tmp_path / "clip.mp4").write_bytes((videos / "short.mp4").read_bytes())
    recording = tmp_path / "out" / "clip.wav"
    write_wav(recording, np.ones(99), SAMPLE_RATE)
    before = recording.read_bytes()
    assert call(run, tmp_path / "out", tmp_path / "clip.mp4", "--steps", 1) == 2
    assert (
        f"error: {recording} is there already. Choose another --output, or give --overwrite to replace it."
        in capsys.readouterr().err
    )
    assert recording.read_bytes() == before
    assert call(run, tmp_path / "out", tmp_path / "clip.mp4", "--steps", 1, "--overwrite") == 0
    assert recording.read_bytes() != before


@pytest.mark.parametrize("name", ["short.mp4", "short.wav"])
def test_a_folder_in_the_place_of_the_output_is_told_before_the_work(videos, tmp_path, capsys, name):
    (tmp_path / name).mkdir()
    assert call(Path("no run"), tmp_path, videos / "short.mp4", "--overwrite") == 2  # not the run is told
    error = f"error: {tmp_path / name} is a folder, where a file is to be written. Move it away first.\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize("name", ["two\nlines", os.fsdecode(b"bad \xff byte"), "escape \x1b[2J"])
def test_the_path_of_a_film_is_one_line_whatever_its_name(run, videos, tmp_path, capsys, name):
    video = tmp_path / f"{name}.mp4"
    video.write_bytes((videos / "short.mp4").read_bytes())
    assert call(run, tmp_path / "out", video, tmp_path / f"no {name}.mkv", "--steps", 1) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/out/{printable(name)}.mp4\n"
    assert printed.err.startswith(f"error: {tmp_path}/no {printable(name)}.mkv: no such file.")
    assert len(printed.err.splitlines()) == 2
    assert (tmp_path / "out" / f"{name}.mp4").is_file()


def test_the_largest_guidance_gives_sound(run, videos, tmp_path):
    options = ("--prompt", "a dog", "--guidance", 1000)
    assert call(run, tmp_path, videos / "short.mp4", *options) == 0
    assert np.abs(read_audio(tmp_path / "short.wav", SAMPLE_RATE)).max() > 0


def test_a_picture_that_mp4_does_not_hold_goes_into_another_container(run, tmp_path, capsys):
    video = film(tmp_path / "x.webm", codec="libvpx")
    assert call(run, tmp_path / "copied", video, "--steps", 1) == 0
    assert call(run, tmp_path / "encoded", video, "--steps", 1, "--reencode") == 0
    assert capsys.readouterr().out.split() == [
        f"{tmp_path}/copied/x.mkv",
        f"{tmp_path}/encoded/x.mp4",
    ]
    assert [data for data, _ in packets(tmp_path / "copied" / "x.mkv")] == [d for d, _ in packets(video)]


def test_frames_that_an_edit_list_hides_get_sound_too(run, tmp_path, capsys):
    video = film(tmp_path / "x.mp4", times_s=[0.04 * i - 0.4 for i in range(50)])
    assert call(run, tmp_path / "out", video, "--steps", 1) == 0
    assert f"note: {video}: 10 frames that its edit list hides are shown\n" in capsys.readouterr().err
    assert probe(tmp_path / "out" / "x.mp4").frames == 50
    assert len(read_audio(tmp_path / "out" / "x.wav", SAMPLE_RATE)) == 2 * SAMPLE_RATE


def test_words_that_the_text_encoder_does_not_take_are_named(run, videos, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("stav2a.components.text_encoders._warned", set())
    prompt = "in a yard behind a house at night we hear a barking dog"
    assert call(run, tmp_path, videos / "short.mp4", "--steps", 1, "--prompt", prompt) == 0
    assert "the text encoder takes 11 words of a caption: 'barking dog' is left out" in caplog.text


def test_an_output_that_is_no_folder_is_refused(run, videos, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert call(run, tmp_path / "file" / "out", videos / "short.mp4") == 2
    assert (
        f"error: --output {tmp_path}/file/out can't be written (Not a directory)." in capsys.readouterr().err
    )


@pytest.fixture
def copy(run, tmp_path) -> RunFolder:
    """A copy of the run, to be spoilt."""
    folder = RunFolder(tmp_path / "copy")
    folder.path.mkdir()
    for path in run.iterdir():
        (folder.path / path.name).write_bytes(path.read_bytes())
    return folder


def refused(folder: RunFolder, videos: Path, tmp_path: Path, capsys) -> tuple[int, str]:
    code = call(folder.path, tmp_path / "out", videos / "short.mp4")
    assert not (tmp_path / "out").exists()
    return code, capsys.readouterr().err


def test_a_missing_run_folder(videos, tmp_path, capsys):
    code, error = refused(RunFolder(tmp_path / "nowhere"), videos, tmp_path, capsys)
    assert code == 2
    assert error.startswith(f"error: {tmp_path}/nowhere is not a run folder") and error.count("\n") == 1


@pytest.mark.parametrize("name", ["model.safetensors", "snapshot.gin"])
def test_an_unfinished_run(copy, videos, tmp_path, capsys, name):
    (copy.path / name).unlink()
    code, error = refused(copy, videos, tmp_path, capsys)
    assert code == 2
    assert error == (
        f"error: {copy.path} holds no finished run: {name} is missing. "
        "Give the `stav2a run` command that began it again; it continues where it stopped.\n"
    )


def test_a_run_that_is_being_made_again_gives_no_sound_of_its_old_weights(copy, videos, tmp_path, capsys):
    facts = copy.facts()
    copy.begin(signature=facts["signature"], snapshot=copy.snapshot.read_text(), facts={})
    code, error = refused(copy, videos, tmp_path, capsys)
    assert code == 2 and "holds no finished run: it was stopped before its end. Give the" in error


def test_a_run_finds_the_modules_that_lay_beside_its_recipe(tmp_path, monkeypatch, copy):
    (tmp_path / "parts_of_mine.py").write_text("MINE = 1\n")
    (tmp_path / "mine.gin").write_text(f"import parts_of_mine\nimport builtins\n{copy.snapshot.read_text()}")
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = recipe.load([tmp_path / "mine.gin"], trust=True, root=Experiment)
    assert loaded.own_modules() == {"builtins": "", "parts_of_mine": str(tmp_path)}
    copy.snapshot.write_text(loaded.snapshot())
    copy.add(modules=loaded.own_modules(), configuration=loaded.signature())
    assert copy.trust == ["--trust-recipe"]
    for path in (str(tmp_path), str(copy.path)):
        monkeypatch.setattr(sys, "path", [each for each in sys.path if each != path])
    monkeypatch.delitem(sys.modules, "parts_of_mine")
    run_folder.load(copy.path, trust=True)
    assert sys.modules["parts_of_mine"].__file__ == str(tmp_path / "parts_of_mine.py")
    monkeypatch.delitem(sys.modules, "parts_of_mine")
    with pytest.raises(recipe.RecipeError, match="Allow it with --trust-recipe"):
        run_folder.load(copy.path)


def test_a_run_of_another_format(copy, videos, tmp_path, capsys):
    (copy.path / "run.json").write_text(json.dumps({**copy.facts(), "format": 99}))
    code, error = refused(copy, videos, tmp_path, capsys)
    assert code == 2 and "was written in format 99, this version reads 1." in error


@pytest.mark.parametrize("weights", ["another model's", "cut off"])
def test_weights_of_another_model(copy, videos, tmp_path, capsys, weights):
    if weights == "cut off":
        copy.weights.write_bytes(copy.weights.read_bytes()[:5000])
    else:
        save_tensors(copy.weights, {"weight": torch.zeros(3)})
    code, error = refused(copy, videos, tmp_path, capsys)
    assert code == 2
    assert f"error: {copy.weights} does not fit snapshot.gin beside it" in error and error.count("\n") == 1


def test_a_model_that_gives_nan(copy, videos, tmp_path, capsys):
    state = run_folder.load(copy.path)[1].state_dict()
    next(value for name, value in state.items() if name.startswith("backbone.")).fill_(torch.nan)
    save_tensors(copy.weights, state)
    assert call(copy.path, tmp_path / "out", videos / "short.mp4") == 1
    assert "short.mp4: The model gives NaN: its training diverged. Train it again" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_edited_snapshot_warns(copy, caplog):
    text = copy.snapshot.read_text()
    assert "run.guidance_scale = 2.0" in text
    copy.snapshot.write_text(text.replace("run.guidance_scale = 2.0", "run.guidance_scale = 7.0"))
    run_folder.load(copy.path)
    assert f"{copy.snapshot} was edited, or made by another version of its components" in caplog.text


def test_a_run_s_own_snapshot_does_not_warn(run, caplog):
    run_folder.load(run)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "-1", "Invalid value for '--seed': Input should be greater than or equal to 0"),
        ("--steps", "0", "Invalid value for '--steps': Input should be greater than or equal to 1"),
        ("--steps", "many", "Invalid value for '--steps': Input should be a valid integer"),
        ("--guidance", "nan", "Invalid value for '--guidance': 'nan' is no number from 0 to 1000"),
        ("--guidance", "1e300", "Invalid value for '--guidance': '1e300' is no number from 0 to 1000"),
        ("--prompt", "a dog\x01", "error: --prompt holds the control character '\\x01'. Leave it out."),
    ],
)
def test_a_bad_value_is_told_before_anything_is_loaded(option, value, message, capsys):
    assert main(["generate", "x.mp4", "--run", "r", "--output", "o", option, value]) == 2
    assert message in capsys.readouterr().err
