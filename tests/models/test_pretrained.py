"""A whole model through a folder: the same to the bit, in another process too."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from stav2a import recipe
from stav2a.components.text_encoders import T5
from stav2a.components.vocoders import HiFiGAN
from stav2a.data.front_ends import AudioLDMMel
from stav2a.data.media import write_wav
from stav2a.data.mel import SAMPLE_RATE
from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import STAV2A, PretrainedError, assemble
from stav2a.registry import RegistryError
from stav2a.sampling import FastSampler, ddpm
from stav2a.sampling.waveforms import batches_of, generate
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.errors import UsageError
from tests import tiny

GENERATE = """
import sys
from pathlib import Path
from stav2a.models.stav2a import STAV2A
from tests.models.test_pretrained import write_sound
write_sound(STAV2A.from_pretrained(sys.argv[1]), Path(sys.argv[2]))
"""


def shaken(**changes) -> STAV2A:
    model = tiny.model(**changes)
    tiny.shake(model)
    model.autoencoder.shift.fill_(0.1)
    return model


def write_sound(model: STAV2A, path: Path) -> None:
    e_v = torch.linspace(-1, 1, 8 * 16).view(1, 8, 16)
    (audio,) = generate(
        model,
        [e_v],
        [0],
        ["a low drum"],
        sampler=FastSampler(),
        scheduler=ddpm(prediction_type="epsilon"),
        num_inference_steps=3,
        guidance_scale=2.0,
        seed=0,
        batches=batches_of(1),
    )
    write_wav(path, audio[0], SAMPLE_RATE)


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def folder(tmp_path) -> Path:
    shaken().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_every_tensor_comes_back_and_the_model_is_ready_for_use(folder):
    loaded = STAV2A.from_pretrained(folder)
    assert same(loaded, shaken())
    assert loaded.duration_s == tiny.DURATION_S and loaded.latent_shape == (4, 8, 8)
    assert not loaded.training


def test_a_folder_a_block_says_what_is_in_it(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([
        "autoencoder", "backbone", "condition_fuser", "config.json", "feature_encoder", "global_pooler",
        "local_head", "text_encoder", "unet", "vocoder",
    ])  # fmt: skip
    assert all((path / "model.safetensors").is_file() for path in folder.iterdir() if path.is_dir())
    config = json.loads((folder / "local_head" / "config.json").read_text())["stav2a"]
    assert config["component"] == "local_head.onset"
    assert config["parameters"] == {"dim_per_window": 8, "windows": [1, 2]}


@pytest.mark.slow
def test_another_process_makes_the_same_sound(folder, tmp_path):
    write_sound(shaken(), tmp_path / "here.wav")
    arguments = [sys.executable, "-c", GENERATE, folder, tmp_path / "there.wav"]
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "here.wav").read_bytes() == (tmp_path / "there.wav").read_bytes()


@pytest.mark.slow
def test_a_recipes_model_comes_back_without_the_recipe(tmp_path):
    loaded = recipe.load(["recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin"], root=Experiment)
    model = loaded.build().model()
    tiny.shake(model)
    model.save_pretrained(tmp_path / "model")
    loaded = STAV2A.from_pretrained(tmp_path / "model")
    assert same(loaded, model)
    assert loaded.described == model.described


def test_a_saved_again_model_is_the_same_files(folder, tmp_path):
    STAV2A.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in folder.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path


def test_blocks_can_be_used_as_checkpoints_of_their_own(tmp_path):
    model = shaken(vocoder=partial(HiFiGAN, upsample_initial_channel=32))
    model.save_pretrained(tmp_path / "model")
    loaded = HiFiGAN(upsample_initial_channel=32, checkpoint=str(tmp_path / "model" / "vocoder"))
    assert same(loaded, model.vocoder)
    unet = tiny.unet(latent_channels=4, cond_dim=16, checkpoint=str(tmp_path / "model" / "unet"))
    assert same(unet, model.block("unet"))
    assert same(STAV2A.from_pretrained(tmp_path / "model"), model)


def test_what_was_frozen_stays_so(tmp_path):
    model = shaken()
    model.feature_encoder.requires_grad_(False)
    model.block("unet").requires_grad_(False)
    model.save_pretrained(tmp_path / "model")
    loaded = STAV2A.from_pretrained(tmp_path / "model")
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == {
        name for name, p in model.named_parameters() if p.requires_grad
    }


def test_a_text_encoder_of_the_hub_is_kept_whole_with_its_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "drum": 3, "low": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "t5")
    config = T5Config(vocab_size=5, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    model = shaken(text_encoder=partial(T5, checkpoint=str(tmp_path / "t5"), max_length=7))
    model.save_pretrained(tmp_path / "model")
    loaded = STAV2A.from_pretrained(tmp_path / "model")
    assert same(loaded, model) and loaded.text_encoder.max_length == 7
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "model" / "text_encoder").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]  # what the umask gives
    ours, theirs = model.text_encoder(["low drum", ""]), loaded.text_encoder(["low drum", ""])
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert not any(p.requires_grad for p in loaded.text_encoder.parameters())


def test_a_folder_of_before_front_ends_has_audioldm_s(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["stav2a"].pop("front_end") == {"component": "front_end.audioldm_mel", "parameters": {}}
    (folder / "config.json").write_text(json.dumps(config))
    assert isinstance(STAV2A.from_pretrained(folder).front_end, AudioLDMMel)


def test_a_folder_is_not_written_over(folder):
    with pytest.raises(UsageError, match="model is there already. Choose another folder"):
        shaken().save_pretrained(folder)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stav2a.models.stav2a.save_weights", full)
    with pytest.raises(OSError, match="No space left"):
        shaken().save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_is_no_component_is_told(tmp_path):
    made = tiny.factories()["vocoder"]
    model = assemble(tiny.factories(vocoder=lambda: made()), duration_s=tiny.DURATION_S)
    with pytest.raises(PretrainedError) as error:
        model.save_pretrained(tmp_path / "model")
    assert str(error.value) == (
        "The vocoder was made by something that is no registered component with plain parameters, "
        "so another process could not make it again. Register it; see docs/components.md."
    )


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(PretrainedError) as error:
        STAV2A.from_pretrained(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds no model of ours: there is no config.json in it that says so. "
        "Give the folder that `save_pretrained` was given."
    )


def edited(folder: Path, block: str, **changes: object) -> None:
    path = folder / block / "config.json"
    config = json.loads(path.read_text())
    config["stav2a"] |= changes
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("block", "changes", "kind", "told"),
    [
        ("", {"format": 9}, PretrainedError, "was written in format 9, this version reads 1"),
        ("vocoder", {"component": "vocoder.gone"}, RegistryError, "No vocoder named 'gone'"),
        ("vocoder", {"component": "unet.stable_diffusion"}, PretrainedError, "which is no vocoder"),
        (
            "vocoder",
            {"parameters": {"iteration": 4}},
            PretrainedError,
            "sets vocoder.griffin_lim.iteration, which this version does not have. Did you mean iterations?",
        ),
        ("local_head", {"parameters": {"dim_per_window": 4}}, CheckpointError, "does not fit this model"),
    ],
)
def test_a_folder_of_another_version_is_told(block, changes, kind, told, folder):
    edited(folder, block, **changes)
    with pytest.raises(kind, match=told):
        STAV2A.from_pretrained(folder)


def test_a_truncated_file_is_told(folder):
    path = folder / "local_head" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors can't be read \(.*It is cut off or damaged"
    ):
        STAV2A.from_pretrained(folder)


def test_another_block_can_be_put_in_its_place(folder):
    other = partial(HiFiGAN, upsample_initial_channel=32)
    assert isinstance(STAV2A.from_pretrained(folder, vocoder=other).vocoder, HiFiGAN)


def test_a_block_of_an_unknown_name_is_told(folder):
    with pytest.raises(PretrainedError, match=r"No block named 'vocodr'. Did you mean vocoder\? Known: auto"):
        STAV2A.from_pretrained(folder, vocodr=HiFiGAN)
