import pytest
import torch
from torch import Tensor, nn

from stav2a.components.backbones import LocalEmbedding, UNetBackbone, UNetControlNet
from tests import tiny

LOCAL, WIDTH = 6, 16
Inputs = dict[str, Tensor]


@pytest.fixture
def unet() -> nn.Module:
    torch.manual_seed(0)
    return tiny.unet(latent_channels=4, cond_dim=WIDTH).eval()


@pytest.fixture
def inputs() -> Inputs:
    rng = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True, True, False, False, True]] * 2)
    return {
        "z_t": torch.randn(2, 4, 8, 8, generator=rng),
        "t": torch.tensor([3, 700]),
        "c": torch.randn(2, 5, WIDTH, generator=rng),
        "mask": mask,
        "e_lv": torch.randn(2, 8, LOCAL, generator=rng),
    }


@torch.no_grad()
def test_a_new_controlnet_changes_nothing(unet, inputs):
    tiny.shake(unet)
    controlled = UNetControlNet(unet, LOCAL).eval()
    controlled.start_from_t2a()
    torch.testing.assert_close(
        controlled(**inputs), UNetBackbone(unet, LOCAL)(**inputs), rtol=1e-6, atol=1e-6
    )


@torch.no_grad()
def test_a_trained_controlnet_reads_the_local_features_in_time(unet, inputs):
    controlled = UNetControlNet(unet, LOCAL).eval()
    tiny.shake(controlled)
    other = {**inputs, "e_lv": inputs["e_lv"].flip(1)}
    assert (controlled(**inputs) - controlled(**other)).abs().max() > 1e-3
    assert torch.equal(UNetBackbone(unet, LOCAL)(**inputs), UNetBackbone(unet, LOCAL)(**other))


@torch.no_grad()
def test_the_controlnet_starts_as_a_copy_of_the_trained_unet(unet):
    controlled = UNetControlNet(unet, LOCAL)
    tiny.shake(unet)  # the text-to-audio stages train it after the model is assembled
    ours, theirs = controlled.controlnet.state_dict(), unet.state_dict()
    shared = [name for name in ours if name in theirs]
    assert any(not torch.equal(ours[name], theirs[name]) for name in shared)
    controlled.start_from_t2a()
    ours = controlled.controlnet.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    prefixes = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    assert set(shared) == {name for name in theirs if name.startswith(prefixes)}
    ours["conv_in.weight"].add_(1)
    assert not torch.equal(ours["conv_in.weight"], unet.state_dict()["conv_in.weight"])  # no shared memory


@pytest.mark.parametrize("freeze", [True, False])
def test_freezing_freezes_exactly_the_unet(unet, freeze):
    controlled = UNetControlNet(unet, LOCAL, freeze_unet=freeze).requires_grad_(False)
    controlled.start_from_t2a()
    trainable = {name for name, p in controlled.named_parameters() if p.requires_grad}
    everything = {name for name, _ in controlled.named_parameters()}
    unets = {name for name in everything if name.startswith("unet.")}
    assert unets and trainable == (everything - unets if freeze else everything)


@torch.no_grad()
def test_masked_text_has_no_influence(unet, inputs):
    tiny.shake(unet)
    backbone = UNetBackbone(unet, LOCAL)
    before = backbone(**inputs)
    changed = inputs["c"] + 5 * ~inputs["mask"].unsqueeze(-1)
    torch.testing.assert_close(backbone(**{**inputs, "c": changed}), before, rtol=1e-5, atol=1e-6)
    changed = inputs["c"] + inputs["mask"].unsqueeze(-1)
    assert (backbone(**{**inputs, "c": changed}) - before).abs().max() > 1e-3


@torch.no_grad()
def test_the_local_features_are_added_at_every_frequency_of_their_time():
    embed = LocalEmbedding(LOCAL, 3)
    e_lv = torch.zeros(1, 9, LOCAL)
    silent = embed(e_lv)
    e_lv[0, 4] = 1
    found = embed(e_lv)
    assert found.shape == (1, 3, 9, 1)  # broadcast over F
    assert (found - silent).abs().amax(dim=(0, 1, 3)).nonzero().flatten().tolist() == [3, 4, 5]
