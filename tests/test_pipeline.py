"""`VideoToAudioPipeline`: the five lines of the README, every form of its arguments, and its folder."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stav2a
from stav2a.cli.main import main
from stav2a.data.media import MediaError, read_audio, read_video
from stav2a.data.mel import SAMPLE_RATE
from stav2a.experiments.run_folder import RunFolderError
from stav2a.models.stav2a import PretrainedError
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.sampling import ClassifierFree, FastSampler, ReferenceSampler, TwoWeights, ddim, video_to_audio
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.cli.test_generate_command import FPS, write_video
from tests.sampling.given import CAPTIONS, error, features, made, sample

ANOTHER_PROCESS = """
import sys
import numpy as np
from stav2a import VideoToAudioPipeline
pipe = VideoToAudioPipeline.from_pretrained(sys.argv[1])
np.save(sys.argv[3], pipe(sys.argv[2], "a low drum", seed=3).audios[0])
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    write_video(path, 30)
    return path


@pytest.fixture(scope="module")
def pipe() -> VideoToAudioPipeline:
    model = tiny.model()
    tiny.shake(model)
    model.autoencoder.shift.fill_(0.1)  # type: ignore[union-attr]
    settings: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0}
    return VideoToAudioPipeline(
        model, sampler=FastSampler, scheduler=ddim, prediction_type="epsilon", **settings
    )


def test_the_package_has_the_pipeline_and_nothing_else_by_that_way():
    assert stav2a.VideoToAudioPipeline is VideoToAudioPipeline
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        stav2a.Pipeline  # noqa: B018


def test_a_video_gets_a_sound_as_long_as_its_picture(pipe, video):
    found = pipe(video)
    assert found.sampling_rate == SAMPLE_RATE and len(found.audios) == 1
    assert found.audios[0].shape == (round(30 / FPS * SAMPLE_RATE),) and np.abs(found.audios[0]).max() > 0


def test_every_form_of_a_video_gives_the_same_sound(pipe, video):
    expected = pipe(video, "a low drum").audios[0]
    with video.open("rb") as opened:
        found = pipe([str(video), opened, io.BytesIO(video.read_bytes())], "a low drum").audios
    frames = pipe(read_video(video), "a low drum", frame_rate_hz=FPS).audios
    for each in (*found, *frames):
        np.testing.assert_array_equal(each, expected)


def test_texts_seeds_and_variants_change_the_sound(pipe, video):
    plain, prompted, negative, other = (
        pipe(video, **given).audios[0]
        for given in ({}, {"prompt": "a low drum"}, {"negative_prompt": "a low drum"}, {"seed": 1})
    )
    assert len({each.tobytes() for each in (plain, prompted, negative, other)}) == 4
    both = pipe([video, video], ["", "a low drum"], num_waveforms_per_prompt=2).audios
    assert [each.tobytes() for each in (both[0], both[1], both[2])] == [
        each.tobytes() for each in (plain, other, prompted)
    ]
    generator = torch.Generator().manual_seed(0)
    drawn = [pipe(video, generator=generator).audios[0].tobytes() for _ in range(2)]
    again = pipe(video, generator=torch.Generator().manual_seed(0)).audios[0].tobytes()
    assert drawn[0] != drawn[1] and drawn[0] == again


def test_a_negative_prompt_stands_in_place_of_the_null_text():
    model, null = made(), [""] * len(CAPTIONS)
    for sampler in (FastSampler(), ReferenceSampler()):
        plain = sample(sampler, model, guidance_scale=2.0)
        settings: dict[str, Any] = {"scheduler": ddim("v_prediction"), "num_inference_steps": 4}
        settings |= {"guidance_scale": 2.0, "seeds": (1, 5, 9)}
        asked = sampler(model, features(), CAPTIONS, negative_captions=null, **settings)
        same = sampler(model, features(), CAPTIONS, **settings)
        away = sampler(model, features(), CAPTIONS, negative_captions=CAPTIONS, **settings)
        alone = sampler(model, features(), CAPTIONS, **(settings | {"guidance_scale": 1.0}))
        assert torch.equal(asked, same) and error(away, alone) <= 1e-5 and plain.shape == same.shape


def test_steps_are_told_and_tensors_given(pipe, video):
    told: list[tuple[int, int]] = []

    def callback(given: VideoToAudioPipeline, step: int, timestep: Any, more: dict[str, Any]) -> None:
        assert given is pipe and more == {}
        told.append((step, int(timestep)))

    found = pipe(video, callback_on_step_end=callback, num_inference_steps=3, output_type="pt").audios[0]
    assert isinstance(found, torch.Tensor) and [step for step, _ in told] == [0, 1, 2]
    assert [t for _, t in told] == sorted((t for _, t in told), reverse=True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": ["a", "b"]}, "1 videos but 2 of prompt"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0"),
        ({"guidance_scale": -1.0}, "guidance_scale = -1"),
        ({"num_waveforms_per_prompt": 0}, "num_waveforms_per_prompt = 0"),
        ({"output_type": "wav"}, "output_type was 'wav'"),
        ({"video": np.zeros((2, 8, 8, 3), np.uint8)}, "frames came without frame_rate_hz"),
        ({"video": np.zeros((2, 8, 8)), "frame_rate_hz": 25}, r"frames are float64 \(2, 8, 8\)"),
    ],
)
def test_what_can_not_be_is_refused(pipe, video, given, told):
    with pytest.raises(UsageError, match=told):
        pipe(**({"video": video} | given))


def test_what_is_no_video_and_what_is_no_model_are_refused(pipe, tmp_path):
    with pytest.raises(MediaError):
        pipe(io.BytesIO(b"no film"))
    with pytest.raises(RunFolderError, match="not a run folder"):
        VideoToAudioPipeline.from_pretrained(tmp_path)
    (tmp_path / "sampling.json").write_text("{}")
    with pytest.raises(PretrainedError, match="sampling.json can't be read"):
        VideoToAudioPipeline.from_pretrained(tmp_path)


def test_a_saved_pipeline_gives_the_same_sound_in_another_process(pipe, video, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "sampling.json").read_text())
    assert settings["num_inference_steps"] == 2 and settings["scheduler"]["component"] == "scheduler.ddim"
    assert settings["guider"] == {"component": "guider.classifier_free", "parameters": {}}
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "saved"), str(video)]
    subprocess.run([*command, str(tmp_path / "sound.npy")], check=True, timeout=120)
    expected = pipe(video, "a low drum", seed=3).audios[0]
    np.testing.assert_array_equal(np.load(tmp_path / "sound.npy"), expected)
    VideoToAudioPipeline.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "sampling.json").read_text()) == settings
    output = tmp_path / "out"
    model = ["--model", str(tmp_path / "saved"), "--prompt", "a low drum", "--seed", "3"]
    assert main(["generate", str(video), *model, "--output", str(output)]) == 0
    np.testing.assert_allclose(read_audio(output / "clip.wav", SAMPLE_RATE), expected, atol=2 / 2**15)


def test_a_pipelines_guider_is_kept_and_its_video_weight_given_at_a_call(pipe, video, tmp_path):
    given: dict[str, Any] = {**pipe.factories, "guider": TwoWeights}
    given |= {"prediction_type": "epsilon", "num_inference_steps": 2, "guidance_scale": 2.0}
    guided = VideoToAudioPipeline(pipe.model, **given)
    guided.save_pretrained(tmp_path / "saved")
    loaded = VideoToAudioPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.guider == TwoWeights() == loaded.components["guider"]
    expected, plain, other = (
        each(video, "a low drum", **weight).audios[0]
        for each, weight in ((guided, {}), (pipe, {}), (guided, {"video_guidance_scale": 3.0}))
    )
    np.testing.assert_array_equal(loaded(video, "a low drum").audios[0], expected)
    assert len({each.tobytes() for each in (expected, plain, other)}) == 3
    as_plain = guided(video, "a low drum", video_guidance_scale=1.0).audios[0]
    np.testing.assert_allclose(as_plain, plain, atol=1e-3)
    pipe.save_pretrained(tmp_path / "of the text")
    with pytest.raises(UsageError) as told:
        VideoToAudioPipeline.from_pretrained(tmp_path / "of the text")(video, video_guidance_scale=2.0)
    assert str(told.value) == (
        "video_guidance_scale = 2.0, but guider.classifier_free weighs the text alone. Leave it out, or take "
        "a model whose recipe has run.guider = @guider.two_weights."
    )


def test_a_folder_from_before_there_were_guiders_has_that_of_equation_7(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "sampling.json"
    settings = json.loads(path.read_text())
    del settings["guider"]
    path.write_text(json.dumps(settings))
    assert VideoToAudioPipeline.from_pretrained(tmp_path / "saved").guider == ClassifierFree()


def test_generate_wants_one_model(video, tmp_path, capsys):
    assert main(["generate", str(video), "--output", str(tmp_path)]) == 2
    assert main(["generate", str(video), "--run", "a", "--model", "b", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("expected --run or --model, one of them") == 2


def test_a_video_of_several_sounds_is_read_once(pipe, video, monkeypatch):
    seen: list[Path] = []
    read = video_to_audio.read_windows

    def noted(film: Path, *more: Any) -> Any:
        seen.append(film)
        return read(film, *more)

    monkeypatch.setattr(video_to_audio, "read_windows", noted)
    found = pipe(video, num_waveforms_per_prompt=3).audios
    assert len({each.tobytes() for each in found}) == 3 and seen == [video]
