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
from stav2a import recipe
from stav2a.cli.main import main
from stav2a.components.backbones import UNetBackbone
from stav2a.components.global_poolers import NoPooler
from stav2a.components.local_heads import NoLocalHead
from stav2a.data.media import MediaError, read_audio, read_video, write_clip, write_wav
from stav2a.data.mel import SAMPLE_RATE
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.run_folder import RunFolderError
from stav2a.models.stav2a import PretrainedError
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.sampling import ClassifierFree, FastSampler, ReferenceSampler, TwoWeights, ddim, video_to_audio
from stav2a.utils.errors import StaV2AError, UsageError
from tests import tiny
from tests.cli.test_generate_command import FPS, write_video
from tests.hub import COMMIT
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
        ({"video": None, "prompt": "a", "split_shots": True}, "there is no video with shots"),
        ({"duration_s": 2.0}, "duration_s = 2.0, but a video's sound lasts as long as the video"),
        ({"video": None, "prompt": "a", "duration_s": 0.0}, "duration_s = 0.0: expected more than 0"),
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


def text_to_audio(**more: Any) -> VideoToAudioPipeline:
    """A pipeline of a model that reads no video."""
    model = tiny.model(local_head=NoLocalHead, global_pooler=NoPooler, backbone=UNetBackbone)
    tiny.shake(model)
    settings: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0, **more}
    return VideoToAudioPipeline(
        model, **{"sampler": FastSampler, "scheduler": ddim, "prediction_type": "epsilon", **settings}
    )


def test_text_alone_gives_sounds_of_any_duration():
    pipe = text_to_audio()
    first, second = pipe(prompt=["a low drum", "a high bell"], seed=3).audios
    assert len(first) == len(second) == round(tiny.DURATION_S * SAMPLE_RATE)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(pipe(prompt="a high bell", seed=3).audios[0], second)
    several = pipe(prompt="a low drum", num_waveforms_per_prompt=2, duration_s=1.5).audios
    assert [len(each) for each in several] == [24_000, 24_000]
    assert np.abs(several[0][-1000:]).max() > 0 and not np.array_equal(*several)


def test_a_model_that_reads_the_video_makes_none_without_it_unless_it_was_trained_so(pipe, tmp_path):
    with pytest.raises(UsageError) as told:
        pipe(prompt="a low drum")
    assert str(told.value) == (
        "there is no video, but this model was always trained with one. Give a video; or take a model that "
        "was trained with stage.joint.video_dropout above 0, or one of text to audio, such as that of "
        "recipes/finetuned_t2a.gin."
    )
    with pytest.raises(UsageError, match="there is no video, and no prompt in its place"):
        pipe(prompt=["a low drum", " "])
    pipe.save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "sampling.json").read_text())
    assert settings["knows_no_video"] is False
    (tmp_path / "saved" / "sampling.json").write_text(json.dumps({**settings, "knows_no_video": True}))
    knowing = VideoToAudioPipeline.from_pretrained(tmp_path / "saved")
    black = np.zeros((8, 16, 16, 3), np.uint8)
    without, with_one = (
        knowing(prompt="a low drum").audios[0],
        knowing(black, "a low drum", frame_rate_hz=12.5).audios[0],
    )
    assert without.shape == with_one.shape and not np.array_equal(without, with_one)


@pytest.mark.parametrize(("dropout", "known"), [("0.0", False), ("0.1", True)])
def test_a_recipe_says_whether_its_model_knows_no_video(dropout, known):
    recipes = ["recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin"]
    bound = [f"stage.joint.video_dropout = {dropout}"]
    experiment = recipe.load(recipes, bound, root=Experiment).build()
    assert VideoToAudioPipeline.of(experiment, tiny.model()).knows_no_video is known


def test_half_precision_is_near_and_kept(pipe, video, tmp_path):
    expected = pipe(video, "a low drum", guidance_scale=1.0).audios[0]
    pipe.save_pretrained(tmp_path / "whole")
    half = VideoToAudioPipeline.from_pretrained(tmp_path / "whole").to(torch.bfloat16)
    assert next(half.model.parameters()).dtype == torch.float32
    found = half(video, "a low drum", guidance_scale=1.0).audios[0]
    assert 0 < np.abs(found - expected).mean() < 0.3 * np.abs(expected).mean()
    half.save_pretrained(tmp_path / "half")
    again = VideoToAudioPipeline.from_pretrained(tmp_path / "half")
    np.testing.assert_array_equal(again(video, "a low drum", guidance_scale=1.0).audios[0], found)
    np.testing.assert_array_equal(
        again.to("cpu", torch.float32)(video, "a low drum", guidance_scale=1.0).audios[0], expected
    )
    with pytest.raises(UsageError, match="dtype was torch.int8. Expected one of torch.float32, "):
        half.to(dtype=torch.int8)
    with pytest.raises(UsageError, match="sampler.reference computes in the precision of the weights"):
        text_to_audio(sampler=ReferenceSampler).to(torch.float16)


def test_audio_is_the_file_that_generate_writes(pipe, video, tmp_path):
    (found,) = pipe(video, output_type="audio").audios
    write_wav(tmp_path / "a.wav", pipe(video).audios[0], SAMPLE_RATE)
    assert found == (tmp_path / "a.wav").read_bytes()


def test_a_model_goes_to_the_hub_and_comes_back(pipe, video, hub, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text("# A card\n")
    carded = VideoToAudioPipeline.from_pretrained(tmp_path / "saved")
    address = carded.push_to_hub("lab/drums", token="hf_test", commit_message="First")
    assert address == f"{hub.address}/lab/drums/commit/{COMMIT}"
    uploaded = hub.repositories["lab/drums"]
    weights = uploaded["backbone/model.safetensors"]
    assert uploaded["README.md"] == b"# A card\n"
    assert weights == (tmp_path / "saved/backbone/model.safetensors").read_bytes()
    assert weights in hub.objects.values()
    assert {token for method, _, token in hub.requests if method == "POST"} == {"Bearer hf_test"}
    loaded = VideoToAudioPipeline.from_pretrained("lab/drums")
    np.testing.assert_array_equal(loaded(video, "a low drum").audios[0], pipe(video, "a low drum").audios[0])
    sent = sum(method == "PUT" for method, _, _ in hub.requests)
    carded.push_to_hub("lab/drums", token="hf_test")
    assert sum(method == "PUT" for method, _, _ in hub.requests) == sent > 0  # the same weights are there


def refusal(pipe: VideoToAudioPipeline, name: str, **more: Any) -> str:
    with pytest.raises(StaV2AError) as told:
        pipe.push_to_hub(name, **more)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_the_hub_refuses_is_one_line(pipe, hub):
    assert refusal(pipe, "lab/drums") == (
        "there is no token for the Hugging Face hub. Log in with `hf auth login`, or set HF_TOKEN, by a "
        "token with the right to write."
    )
    assert refusal(pipe, "drums") == "'drums' has no owner on the hub. Expected OWNER/MODEL."
    assert refusal(pipe, "a/b/c").endswith("Expected OWNER/MODEL.") and hub.requests == []
    hub.refused["lab/drums"] = 401
    assert "the hub does not accept the token (401). Log in" in refusal(pipe, "lab/drums", token="hf_test")
    hub.refused["lab/drums"] = 403
    assert "the token has no right to write to lab (403). Take a token" in refusal(
        pipe, "lab/drums", token="hf_test"
    )
    hub.refused = {"objects": 403}
    assert "the token has no right to write to lab (403)" in refusal(pipe, "lab/bells", token="hf_test")
    assert hub.repositories["lab/bells"] == {}  # no commit without its files
    with pytest.raises(PretrainedError, match="there is no folder lab/none, and it can't be had") as told:
        VideoToAudioPipeline.from_pretrained("lab/none")
    assert "\n" not in str(told.value)


def test_a_private_model_goes_into_no_public_repository(pipe, hub):
    hub.repositories["lab/drums"] = {}
    hub.public.add("lab/drums")
    assert "lab/drums is on the hub already, where everyone can read it. Nothing was uploaded." in refusal(
        pipe, "lab/drums", private=True, token="hf_test"
    )
    assert hub.repositories["lab/drums"] == {}
    pipe.push_to_hub("lab/bells", private=True, token="hf_test")
    assert hub.repositories["lab/bells"] and hub.public == {"lab/drums"}


def test_a_hub_that_can_not_be_reached_is_named(pipe, hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "lab/drums can't be uploaded, as the hub (http://127.0.0.1:1) can't be reached: " in refusal(
        pipe, "lab/drums", token="hf_test"
    )


def test_a_video_of_several_sounds_is_read_once(pipe, video, monkeypatch):
    seen: list[Path] = []
    read = video_to_audio.read_windows

    def noted(film: Path, *more: Any) -> Any:
        seen.append(film)
        return read(film, *more)

    monkeypatch.setattr(video_to_audio, "read_windows", noted)
    found = pipe(video, num_waveforms_per_prompt=3).audios
    assert len({each.tobytes() for each in found}) == 3 and seen == [video]


def test_shots_of_a_file_and_of_frames_have_sounds_of_their_own(pipe, tmp_path):
    frames = np.full((32, 32, 48, 3), 30, np.uint8)
    frames[16:] = 220
    write_clip(tmp_path / "cut.mp4", frames, FPS, np.zeros(20_480), SAMPLE_RATE)
    path = tmp_path / "cut.mp4"
    whole, file = (pipe(path, split_shots=split).audios[0] for split in (False, True))
    (given,) = pipe(read_video(path), frame_rate_hz=FPS, split_shots=True).audios
    assert whole.shape == file.shape and not np.array_equal(whole, file)
    np.testing.assert_array_equal(file, given)
