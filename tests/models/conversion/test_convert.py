"""Every converter: random weights in the published layout, converted, loaded, and the same to the bit."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stav2a.cli.convert import CheckpointKind
from stav2a.cli.main import main
from stav2a.components.autoencoders import MelVAE, MMAudioMelVAE, Oobleck
from stav2a.components.feature_encoders import CAVP
from stav2a.components.text_encoders import T5
from stav2a.components.vocoders import BigVGAN, HiFiGAN
from stav2a.models.conversion.converters import CONVERTERS, ConversionOptions, convert
from stav2a.models.conversion.layouts import UNETS
from stav2a.utils.checkpoints import CheckpointError, converted_facts
from stav2a.utils.errors import UsageError
from stav2a.utils.torch_files import ConvertError
from tests import tiny
from tests.components import golden
from tests.models.conversion import published_layouts as layouts

every_kind = pytest.mark.parametrize("kind", layouts.CHECKPOINTS)
UNET = partial(tiny.unet, latent_channels=4, cond_dim=8)


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def converted(kind: str, tmp_path: Path, state: object, choices: ConversionOptions = layouts.CHOICES) -> Path:
    convert(kind, [saved(state, tmp_path / "source.bin")], tmp_path / "out", choices)
    return tmp_path / "out"


def all_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(kind: str, tmp_path: Path, state: object) -> str:
    """What is said of a checkpoint that does not fit; nothing may be left behind."""
    with pytest.raises(ConvertError) as error:
        converted(kind, tmp_path, state)
    assert [path.name for path in tmp_path.iterdir()] == ["source.bin"]
    return str(error.value)


def test_every_kind_is_tested():
    assert set(CONVERTERS) == {*layouts.CHECKPOINTS, "released"}


def test_cavp_comes_through(tmp_path):
    state = layouts.cavp()
    folder = converted(
        "cavp", tmp_path, {"epoch": 66, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    )
    loaded = CAVP(**layouts.CAVP, checkpoint=str(folder)).eval()
    assert all_equal(loaded.state_dict(), {k: v for k, v in state.items() if k.startswith("video")})
    assert loaded(torch.rand(1, 3, 3, 16, 16)).isfinite().all()


def test_the_video_encoder_at_full_size_has_the_published_keys():
    shapes = CONVERTERS["cavp"].parts({}, ConversionOptions())[0].shapes()
    lines = (golden.GOLDEN / "cavp_keys.txt").read_text().split("\n")
    assert sorted(f"{key} {shape}" for key, shape in shapes.items()) == [line for line in lines if line]


@torch.no_grad()
def test_audioldm_comes_through(tmp_path):
    folder = converted("audioldm", tmp_path, {"state_dict": layouts.audioldm()})
    vae = MelVAE(**layouts.VAE, checkpoint=str(folder / "vae")).eval()
    vocoder = HiFiGAN(**layouts.HIFIGAN, checkpoint=str(folder / "vocoder")).eval()
    mel = tiny.clips()[1][:1]
    mean, std = vae.encode(mel)
    raw = vae.posterior(mel)
    torch.testing.assert_close(mean, raw.mean * layouts.SCALE_FACTOR)
    torch.testing.assert_close(std, raw.std * layouts.SCALE_FACTOR)
    torch.testing.assert_close(vae.decode(mean), vae.decode_raw(raw.mean), rtol=1e-4, atol=1e-5)
    assert vocoder(vae.decode(mean)).isfinite().all()


def test_the_autoencoder_is_the_one_that_diffusers_makes_of_the_same_keys(tmp_path):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    theirs = convert_ldm_vae_checkpoint(
        layouts.ldm_vae("first_stage_model."), {"down_block_types": [""] * 3, "up_block_types": [""] * 3}
    )
    folder = converted("audioldm", tmp_path, layouts.audioldm())
    ours = MelVAE(**layouts.VAE, checkpoint=str(folder / "vae"))
    theirs = {name: tensor.reshape(ours.vae.state_dict()[name].shape) for name, tensor in theirs.items()}
    assert all_equal(ours.vae.state_dict(), theirs)
    assert torch.equal(ours.scale, torch.full((4, 1, 1), 1 / layouts.SCALE_FACTOR))
    assert not ours.shift.any()
    config = json.loads((folder / "vae" / "config.json").read_text())["stav2a"]
    assert config["converted"]["scale_factor"] == pytest.approx(layouts.SCALE_FACTOR)


@pytest.mark.parametrize("kind", ["audioldm", "hifigan"])
def test_the_vocoder_comes_through(kind, tmp_path):
    folder = converted(kind, tmp_path, layouts.CHECKPOINTS[kind]())
    folder = folder / "vocoder" if kind == "audioldm" else folder
    found = HiFiGAN(**layouts.HIFIGAN, checkpoint=str(folder)).generator.state_dict()
    assert not found.pop("mean").any() and (found.pop("scale") == 1).all()
    assert all_equal({name.replace("upsampler", "ups"): t for name, t in found.items()}, layouts.hifigan())


def test_a_weight_that_training_left_apart_is_multiplied_out(tmp_path):
    conv = nn.Conv1d(64, 32, 7)
    normed = nn.utils.weight_norm(conv)
    with torch.no_grad():
        normed.weight_g.mul_(1.5)
    state = {"generator": layouts.hifigan()}
    del state["generator"]["conv_pre.weight"]
    state["generator"] |= {f"conv_pre.{name}": t.detach() for name, t in normed.state_dict().items()}
    folder = converted("hifigan", tmp_path, state)
    nn.utils.remove_weight_norm(conv)
    assert torch.equal(load_file(folder / "model.safetensors")["conv_pre.weight"], conv.weight)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tango", "vta_ldm"])
def test_the_unet_comes_through(kind, tmp_path):
    from diffusers import UNet2DConditionModel

    state = layouts.CHECKPOINTS[kind]()
    folder = converted(kind, tmp_path, state) / "unet"
    reads = {"tango": "text_encoder.t5", "vta_ldm": "frames by CLIP and a linear layer"}[kind]
    facts = converted_facts(str(folder))
    assert (facts["predicts"], facts["reads"]) == ("v_prediction", reads)
    loaded = UNET(checkpoint=str(folder))
    expected = {name.removeprefix("unet."): t for name, t in state.items() if name.startswith("unet.")}
    assert all_equal(loaded.state_dict(), expected)
    stock = UNet2DConditionModel.from_pretrained(folder)
    given = torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 5, 8)
    torch.testing.assert_close(loaded(*given).sample, stock(*given).sample)


@torch.no_grad()
def test_tangos_text_encoder_comes_through(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    state = layouts.CHECKPOINTS["tango"]()
    folder = converted("tango", tmp_path, state) / "text_encoder"
    with pytest.raises(CheckpointError, match="text_encoder.t5.checkpoint"):
        T5(checkpoint=str(folder))  # the tokenizer is not in the file
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "drum": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    encoder = T5(checkpoint=str(folder))
    found = {f"text_encoder.{name}": tensor for name, tensor in encoder.encoder.state_dict().items()}
    assert all_equal(found, {name: t for name, t in state.items() if name.startswith("text_encoder.")})
    assert encoder(["drum"])[0].isfinite().all()
    assert encoder.encoder.config.d_kv == 8 and encoder.encoder.config.is_gated_act


def test_tangos_autoencoder_comes_with_its_scale_factor(tmp_path):
    main = saved(layouts.CHECKPOINTS["tango"](), tmp_path / "main.bin")
    vae = saved(layouts.ldm_vae() | layouts.hifigan("vocoder."), tmp_path / "vae.bin")
    with pytest.raises(ConvertError, match=r'give --scale-factor X, the "scale_factor" of vae_config.json'):
        convert("tango", [main, vae], tmp_path / "out", layouts.CHOICES)
    choices = ConversionOptions(**{**vars(layouts.CHOICES), "scale_factor": 0.5})
    convert("tango", [main, vae], tmp_path / "out", choices)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "text_encoder", "unet", "vae", "vocoder"
    ]  # fmt: skip
    loaded = MelVAE(**layouts.VAE, checkpoint=str(tmp_path / "out" / "vae"))
    assert torch.equal(loaded.scale, torch.full((4, 1, 1), 2.0))


@pytest.mark.parametrize("kind", ["mmaudio", "oobleck"])
def test_an_autoencoder_of_another_front_end_comes_with_its_scale_factor(kind, tmp_path):
    state = layouts.CHECKPOINTS[kind]()
    folder = converted(kind, tmp_path, state)
    made = {"mmaudio": MMAudioMelVAE, "oobleck": Oobleck}[kind]
    found = made(**getattr(layouts.CHOICES, kind), checkpoint=str(folder)).state_dict()
    factor = {"mmaudio": 0.417, "oobleck": 1.0}[kind]
    assert not found.pop("shift").any() and torch.equal(found.pop("scale"), torch.full((4, 1, 1), 1 / factor))
    prefix = "" if kind == "mmaudio" else "vae."
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("mel_converter.")}
    assert all_equal({name.removeprefix(prefix): tensor for name, tensor in found.items()}, kept)


def test_bigvgan_comes_through(tmp_path):
    folder = converted("bigvgan", tmp_path, {"generator": layouts.bigvgan()})
    found = BigVGAN(**layouts.BIGVGAN, checkpoint=str(folder)).generator.state_dict()
    assert all_equal(found, layouts.bigvgan())


def test_half_precision_is_kept_as_it_is(tmp_path):
    state = {name: t.half() for name, t in layouts.hifigan().items()}
    folder = converted("hifigan", tmp_path, state)
    assert torch.equal(load_file(folder / "model.safetensors")["conv_pre.bias"], state["conv_pre.bias"])


@every_kind
def test_every_key_that_does_not_fit_is_named(kind, tmp_path):
    state = layouts.CHECKPOINTS[kind]()
    names = [
        name
        for name in state
        if name.endswith((".weight", ".weight_v")) and not CONVERTERS[kind].leaves_out(name)
    ]
    gone, reshaped = names[0], names[1]
    del state[gone]
    state[reshaped] = torch.zeros(*state[reshaped].shape, 2)
    prefix = CONVERTERS[kind].known_by[-1]
    state[f"{prefix}something.new"] = torch.ones(1)
    told = refused(kind, tmp_path, state)
    assert f"source.bin does not fit {kind}, and nothing was written:\n" in told
    assert f"  1 missing: {gone}" in told
    assert f"  1 unexpected: {prefix}something.new" in told
    assert f"  1 of another shape: {reshaped} is {tuple(state[reshaped].shape)}, expected " in told


def test_many_keys_are_counted(tmp_path):
    state = layouts.hifigan() | {f"discriminator.{i}": torch.ones(1) for i in range(60)}
    told = refused("hifigan", tmp_path, state)
    assert "  60 unexpected: discriminator.0, discriminator.1, " in told and ", and 10 more" in told


def test_published_sizes_other_than_its_kinds_own_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(UNETS, "tiny", layouts.CHOICES.unet)
    state = {name: t for name, t in layouts.CHECKPOINTS["vta_ldm"]().items()}
    with pytest.raises(ConvertError) as error:
        converted("vta_ldm", tmp_path, state, ConversionOptions())
    assert str(error.value).endswith("\n  Its U-Net has the sizes of --unet tiny.")


def test_a_duplicate_that_differs_is_named(tmp_path):
    state = layouts.CHECKPOINTS["tango"]()
    state["text_encoder.encoder.embed_tokens.weight"] = torch.zeros(8, 16)
    told = refused("tango", tmp_path, state)
    assert (
        "1 different from the original: text_encoder.encoder.embed_tokens.weight is not text_encoder.shared"
        in told
    )


def test_a_checkpoint_of_another_kind_is_told_with_its_own(tmp_path):
    told = refused("cavp", tmp_path, layouts.audioldm())
    assert "source.bin is no checkpoint of cavp: its keys begin with first_stage_model, scale_factor" in told
    assert told.endswith("Perhaps: stav2a convert audioldm")


def test_a_file_given_twice_is_told(tmp_path):
    path = saved(layouts.hifigan(), tmp_path / "a.bin")
    with pytest.raises(ConvertError, match="holds conv_post.bias, as a file before it does. Give each file"):
        convert("hifigan", [path, path], tmp_path / "out", layouts.CHOICES)


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="out is there already. Choose another folder, or move it away"):
        converted("hifigan", tmp_path, layouts.hifigan())


def test_safetensors_are_taken_and_give_the_same(tmp_path):
    save_file(layouts.hifigan(), tmp_path / "a.safetensors")
    convert("hifigan", [tmp_path / "a.safetensors"], tmp_path / "one", layouts.CHOICES)
    convert("hifigan", [saved(layouts.hifigan(), tmp_path / "a.bin")], tmp_path / "two", layouts.CHOICES)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_answer_says_what_came_went_and_is_allowed(tmp_path):
    path = saved({"state_dict": layouts.cavp(), "epoch": 66}, tmp_path / "cavp.ckpt")
    told = convert("cavp", [path], tmp_path / "out", layouts.CHOICES).splitlines()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told[:5] == [
        f"read      {path}  sha256 {sha256}",
        "licence   Apache-2.0 (Diff-Foley)",
        "left out  spec_encoder.* (1 tensors)",
        "left out  logit_scale",
        "left out  epoch",
    ]
    assert told[5].startswith(f"wrote     {tmp_path / 'out'}  feature_encoder.cavp, 0.0 M numbers")
    assert f"  feature_encoder.cavp.checkpoint = {str(tmp_path / 'out')!r}" in told
    assert "  feature_encoder.cavp.blocks = (1, 1, 1, 1)" in told
    config = json.loads((tmp_path / "out" / "config.json").read_text())["stav2a"]
    assert config["component"] == "feature_encoder.cavp" and config["parameters"]["dim"] == 8
    assert config["converted"]["files"] == [{"name": "cavp.ckpt", "sha256": sha256}]
    assert config["converted"]["licence"] == "Apache-2.0 (Diff-Foley)"


def test_the_command_says_what_it_did(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("stav2a.models.conversion.converters.HIFIGAN", layouts.HIFIGAN)
    path = saved(layouts.hifigan(), tmp_path / "a.bin")
    given = ["hifigan", "--checkpoint", str(path), "--output"]
    assert main(["convert", *given, str(tmp_path / "new" / "vocoder")]) == 0
    assert "\nlicence   unknown to us: read the page you have them from" in capsys.readouterr().out
    assert (tmp_path / "new" / "vocoder" / "model.safetensors").is_file()
    assert main(["convert", *given, str(tmp_path / "new" / "vocoder")]) == 2
    assert "vocoder is there already." in capsys.readouterr().err


def test_a_missing_file_is_one_line_and_an_exit_code(tmp_path, capsys):
    assert (
        main(["convert", "cavp", "--checkpoint", str(tmp_path / "a.ckpt"), "--output", str(tmp_path / "out")])
        == 1
    )
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'a.ckpt'}: there is no such file. Download it first; see docs/weights.md.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_scale_factor_has_to_be_a_number_above_zero(value, tmp_path, capsys):
    given = ["tango", "--checkpoint", "a.bin", "--output", str(tmp_path / "out"), f"--scale-factor={value}"]
    assert main(["convert", *given]) == 2
    assert f"'{value}' is no number from 1e-6 to 1e6" in capsys.readouterr().err


def test_the_commands_kinds_are_the_converters():
    assert set(get_args(CheckpointKind)) == set(CONVERTERS)


def test_keys_of_no_part_are_left_out_where_the_user_says_so(tmp_path):
    state = layouts.CHECKPOINTS["vta_ldm"]() | {"video_encoder.linear.weight": torch.ones(2, 2)}
    assert "  1 unexpected: video_encoder.linear.weight" in refused("vta_ldm", tmp_path, state)
    choices = replace(layouts.CHOICES, left_out=("video_encoder.",))
    folder = converted("vta_ldm", tmp_path, state, choices) / "unet"
    assert all_equal(UNET(checkpoint=str(folder)).state_dict(), {
        name.removeprefix("unet."): t for name, t in state.items() if name.startswith("unet.")
    })  # fmt: skip
