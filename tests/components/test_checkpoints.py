"""Weights from a folder, for every component that takes them."""

from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stav2a.components.autoencoders import MelVAE, MMAudioMelVAE, Oobleck
from stav2a.components.feature_encoders import CAVP
from stav2a.components.vocoders import BigVGAN, HiFiGAN
from stav2a.utils.checkpoints import CheckpointError, holder, load_weights, save_weights, state
from stav2a.utils.errors import UsageError
from stav2a.utils.files import new_folder
from tests import tiny

VAE = partial(MelVAE, block_out_channels=(8,), latent_channels=4, layers_per_block=1, patch=4)
COMPONENTS: dict[str, Any] = {
    "feature_encoder.cavp": partial(CAVP, width=4, blocks=(1, 1), dim=8),
    "autoencoder.kl": VAE,
    "autoencoder.mmaudio": partial(MMAudioMelVAE, bins=8, latent_channels=4, hidden_channels=8),
    "autoencoder.oobleck": partial(
        Oobleck, hidden_size=8, downsampling_ratios=(4, 8), channel_multiples=(1, 2)
    ),
    "unet.stable_diffusion": partial(tiny.unet, latent_channels=4, cond_dim=8),
    "vocoder.hifigan": partial(HiFiGAN, upsample_initial_channel=32),
    "vocoder.bigvgan": partial(
        BigVGAN, bins=8, upsample_initial_channel=8, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4)
    ),
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


def test_a_file_cut_off_is_told(tmp_path):
    save_file(VAE().state_dict(), tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model.safetensors can't be read \(.*make it again"):
        VAE(checkpoint=str(tmp_path))


def test_a_part_kept_elsewhere_stays_as_it_is(tmp_path):
    source, other = VAE(), VAE()
    tiny.shake(source)
    save_weights(tmp_path / "model.safetensors", state(source, without="vae.decoder."))
    before = other.state_dict()["vae.decoder.conv_in.weight"].clone()
    load_weights(other, str(tmp_path), parameter="x", without="vae.decoder.")
    assert torch.equal(other.vae.encoder.conv_in.weight, source.vae.encoder.conv_in.weight)
    assert torch.equal(other.vae.decoder.conv_in.weight, before)


def test_a_folder_fills_the_component_or_the_stock_model_that_it_wraps():
    vocoder = HiFiGAN(upsample_initial_channel=32)
    assert holder(vocoder) is vocoder.generator
    vae = VAE()
    assert holder(vae) is vae
    pair = torch.nn.ModuleList([vocoder, torch.nn.Linear(1, 1)])
    assert holder(pair) is pair  # the stock model is only a part of it


def test_tensors_that_share_memory_are_written_each(tmp_path):
    table = torch.arange(6.0).view(2, 3)
    save_weights(tmp_path / "a.safetensors", {"a": table, "b": table, "c": table[1], "d": table.T})
    found = load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["a"], table) and torch.equal(found["b"], table)
    assert torch.equal(found["c"], table[1]) and torch.equal(found["d"], table.T)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_new_folder_takes_no_other_ones_place(kind, tmp_path):
    path = tmp_path / "new"
    {"folder": path.mkdir, "file": path.touch, "link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(
        UsageError, match="new is there already. Choose another folder, or move it away first."
    ):
        with new_folder(path):
            pass


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "some" / "where") as folder:
        (folder / "whole").touch()
        assert not (tmp_path / "some" / "where").exists()
    assert (tmp_path / "some" / "where" / "whole").exists()
