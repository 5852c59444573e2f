"""Weights from a folder, for every component that takes them."""

from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stav2a.checkpoints import CheckpointError
from stav2a.components.autoencoders import MelVAE
from stav2a.components.feature_encoders import CAVP
from stav2a.components.vocoders import HiFiGAN
from tests import tiny

VAE = partial(MelVAE, block_out_channels=(8,), latent_channels=4, layers_per_block=1, patch=4)
COMPONENTS: dict[str, Any] = {
    "feature_encoder.cavp": partial(CAVP, width=4, blocks=(1, 1), dim=8),
    "autoencoder.kl": VAE,
    "unet.stable_diffusion": partial(tiny.unet, latent_channels=4, cond_dim=8),
    "vocoder.hifigan": partial(HiFiGAN, upsample_initial_channel=32),
}
TRAINED_ON = {"unet.stable_diffusion"}  # the others are frozen once they have their weights


@pytest.mark.parametrize("file", ["model.safetensors", "diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("name", COMPONENTS)
def test_the_weights_of_a_folder_are_taken_whole(name, file, tmp_path):
    source = COMPONENTS[name]()
    tiny.shake(source)
    save_file(getattr(source, "generator", source).state_dict(), tmp_path / file)
    loaded = COMPONENTS[name](checkpoint=str(tmp_path))
    assert all(torch.equal(t, loaded.state_dict()[key]) for key, t in source.state_dict().items())
    assert all(p.requires_grad == (name in TRAINED_ON) for p in loaded.parameters())


def test_whitening_comes_with_the_weights(tmp_path):
    source = VAE()
    source.whiten(tiny.clips()[1])
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    assert torch.equal(VAE(checkpoint=str(tmp_path)).scale, source.scale)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_folder_without_weights_is_told_by_the_recipes_name(name, tmp_path):
    with pytest.raises(CheckpointError) as error:
        COMPONENTS[name](checkpoint=str(tmp_path / "nowhere"))
    told = str(error.value)
    assert told.startswith(f"{name}.checkpoint = ") and "no weights there" in told
    assert "Expected model.safetensors or diffusion_pytorch_model.safetensors" in told


def test_weights_of_another_model_are_told_key_by_key(tmp_path):
    state = VAE().state_dict()
    state["shift"] = torch.zeros(5, 1, 1)
    state["extra"] = state.pop("scale")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        VAE(checkpoint=str(tmp_path))
    for fault in ("missing scale", "unknown extra", "shift is (5, 1, 1), expected (4, 1, 1)"):
        assert fault in str(error.value)
