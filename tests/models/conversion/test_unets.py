import json

import pytest

from stav2a.models.conversion.layouts import UNETS, find_unet
from stav2a.utils.torch_files import ConvertError
from tests.components import golden


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tango", 865.9), ("vta_ldm_pretrain", 187.9), ("stav2a", 187.9)],
)
def test_the_published_sizes(name, millions):
    built = UNETS[name].build()
    assert all(p.is_meta for p in built.parameters())
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("name", UNETS)
def test_the_configuration_written_beside_the_weights_gives_the_same_sizes_again(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(UNETS[name].build().to_json_string())
    found = find_unet(str(path))
    assert found.parameters == UNETS[name].parameters
    assert (found.latent_channels, found.cond_dim) == (8, 1024)


def test_sizes_in_a_file():
    found = find_unet(str(golden.GOLDEN / "released_step_unet.json"))
    assert found.parameters["block_out_channels"] == (128, 64, 96, 96)
    assert found.parameters["attention_levels"] == (False, True, True, True)


def test_a_setting_that_ours_can_not_have_is_named(tmp_path):
    path = tmp_path / "config.json"
    config = json.loads((golden.GOLDEN / "released_step_unet.json").read_text())
    path.write_text(json.dumps(config | {"act_fn": "gelu", "dual_cross_attention": True}))
    with pytest.raises(ConvertError) as error:
        find_unet(str(path))
    assert str(error.value) == (
        f"{path}: unet.stable_diffusion can't have act_fn = 'gelu', dual_cross_attention = True."
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"block_out_channels": 3}'])
def test_a_file_that_is_none(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConvertError, match="is no diffusers configuration of a UNet2DConditionModel"):
        find_unet(str(path))


def test_an_unknown_name_is_told_with_those_known():
    with pytest.raises(ConvertError) as error:
        find_unet("tanga")
    assert str(error.value) == (
        "--unet tanga: no such file, and no U-Net of that name. Known: tango, vta_ldm_pretrain, stav2a."
    )
