"""The authors' release through the command: every key in its place, and the published numbers come out."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from stav2a.cli.main import main
from stav2a.components.feature_encoders import CAVP
from stav2a.components.text_encoders import TinyMT5
from stav2a.models.conversion.converters import ConversionOptions, convert
from stav2a.models.conversion.layouts import find_unet
from stav2a.models.stav2a import STAV2A, PretrainedError
from stav2a.sampling import guided
from stav2a.utils.checkpoints import converted_facts
from tests import tiny
from tests.components import golden
from tests.models.conversion import published_layouts as layouts

UNET = golden.GOLDEN / "released_step_unet.json"
SMALL = {  # what the golden numbers don't touch
    "feature_encoder": partial(CAVP, width=4, blocks=(1, 1, 1, 1)),
    "text_encoder": partial(TinyMT5, dim=1024, layers=1, vocabulary=8, max_length=4),
    "autoencoder": partial(
        tiny.factories()["autoencoder"], latent_channels=8, patch=2, mel_mean=0.0, mel_std=1.0
    ),
    "vocoder": tiny.factories()["vocoder"],
}


@pytest.fixture(scope="module")
def keys() -> dict[str, list[int]]:
    return json.loads((golden.GOLDEN / "released_step_keys.json").read_text())


@pytest.fixture(scope="module")
def folder(keys, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("released")
    torch.save(golden.weights(keys), path / "pytorch_model_2.bin")
    output = str(path / "converted")
    given = ["--checkpoint", str(path / "pytorch_model_2.bin"), "--unet", str(UNET), "--output", output]
    assert main(["convert", "released", *given]) == 0
    return path / "converted"


@pytest.mark.parametrize("slot", ["unet", "backbone"])
def test_the_denoiser_says_what_it_predicts_and_reads(folder, slot):
    facts = converted_facts(str(folder / slot))
    assert (facts["predicts"], facts["reads"]) == ("v_prediction", "text_encoder.mt5")


@torch.no_grad()
def test_a_guided_step_of_the_converted_release_has_the_published_numbers(folder):
    expected = np.load(golden.GOLDEN / "released_step.npz")
    model = STAV2A.from_pretrained(folder, **SMALL)
    e_v = functional.normalize(golden.normal(0, 1, 40, 512), dim=-1)
    e_text, z_t = 0.5 * golden.normal(1, 2, 7, 1024), golden.normal(2, 1, 8, 256, 16)
    mask = torch.arange(7) < torch.tensor([[1], [5]])
    null, prompt = (model.condition(e_v, e_text[i : i + 1], mask[i : i + 1]) for i in range(2))
    found = guided(model, z_t, torch.tensor([500]), null + prompt, 3.0)
    error = golden.error(found, expected["guided"])
    print(f"guided step: {error:.1e} relative")
    assert error < 1e-4


def test_every_tensor_is_the_releases_own(folder, keys):
    model, weights = STAV2A.from_pretrained(folder, **SMALL), golden.weights(keys)
    found = model.backbone.state_dict() | {
        f"{'trans_cvap_feature' if name.startswith('fc') else 'pre_onset'}.{name}": tensor
        for name, tensor in model.local_head.state_dict().items()
    }
    same = [name for name in found if torch.equal(found[name], weights[name])]
    assert sorted(same) == sorted(name for name in keys if not name.startswith("global_video_feature."))
    assert torch.equal(
        model.global_pooler.embed_y.bias, weights["global_video_feature.fga.pp_models.0.embed_Y.bias"]
    )


def test_encoders_in_the_file_come_too(keys, tmp_path):
    state = golden.weights(keys) | layouts.t5("text_encoder.")
    state |= {f"extract_cavp.stage1_model.{name}": tensor for name, tensor in layouts.cavp().items()}
    small = golden.weights({name: shape for name, shape in keys.items() if "fc1" in name})
    state |= {name: tensor[:, :8] if tensor.ndim == 2 else tensor for name, tensor in small.items()}
    state["global_video_feature.fc.weight"] = torch.zeros(1024, 8)
    torch.save(state, tmp_path / "all.bin")
    choices = ConversionOptions(**{**vars(layouts.CHOICES), "unet": find_unet(str(UNET))})
    told = convert("released", [tmp_path / "all.bin"], tmp_path / "out", choices)
    assert "left out  extract_cavp.stage1_model.spec_encoder.* (1 tensors)" in told
    assert "to add    the tokenizer's files of google/mt5-large, into " in told
    loaded = CAVP(**layouts.CAVP, checkpoint=str(tmp_path / "out" / "feature_encoder"))
    head = state["extract_cavp.stage1_model.video_project_head.weight"]
    assert torch.equal(loaded.video_project_head.weight, head)
    config = json.loads((tmp_path / "out" / "text_encoder" / "config.json").read_text())
    assert config["architectures"] == ["MT5EncoderModel"] and config["d_model"] == 16


def test_a_block_that_the_release_lacks_is_asked_for(folder):
    given = {slot: SMALL[slot] for slot in ("feature_encoder", "text_encoder")}
    with pytest.raises(PretrainedError) as error:
        STAV2A.from_pretrained(folder, **given)
    assert str(error.value) == (
        f"{folder} has no autoencoder and no vocoder. Give what is to be there: "
        "from_pretrained(DIR, autoencoder=FACTORY, vocoder=FACTORY)."
    )


def test_a_key_that_is_missing_is_named(keys, tmp_path, capsys):
    weights = golden.weights(keys)
    del weights["pre_onset.l2.bias"]
    torch.save(weights, tmp_path / "a.bin")
    given = ["released", "--checkpoint", str(tmp_path / "a.bin"), "--unet", str(UNET)]
    assert main(["convert", *given, "--output", str(tmp_path / "out")]) == 1
    assert "1 missing: pre_onset.l2.bias" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
