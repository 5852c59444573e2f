from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stav2a.components.backbones import (
    FDN,
    LocalEmbedding,
    PlainEmbedding,
    UNetBackbone,
    UNetControlNet,
    UNetControlNetFDN,
    UNetControlNetMasked,
    UNetControlNetPlain,
    UNetControlNetReleased,
    UNetControlNetXS,
)
from stav2a.components.local_heads import LinearHead
from stav2a.data.filters import KeepAll
from stav2a.registry import RegistryError
from stav2a.training.stages import JointStage
from stav2a.utils.checkpoints import save_weights, state
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


CONTROLLED: dict[str, Any] = {
    "masked": UNetControlNetMasked,
    "fdn": UNetControlNetFDN,
    "released": UNetControlNetReleased,
    "plain": partial(UNetControlNetPlain, channels=(4,)),
    "xs": UNetControlNetXS,
}
LOOKS_PAST_PADDING = ("masked", "fdn", "xs")


def controlled(name: str, *, local_dim: int = 16, **changes: Any) -> Any:
    """A backbone on a U-Net of two layers a resolution, both away from their first weights."""
    torch.manual_seed(0)
    unet = tiny.unet(latent_channels=4, cond_dim=WIDTH, layers_per_block=2)
    tiny.shake(unet)
    return CONTROLLED[name](unet, local_dim, **changes).eval()


@pytest.fixture
def wide(inputs) -> Inputs:
    """Local features of 16 channels, which one halving brings to the latent's 8 frequencies."""
    return {**inputs, "e_lv": torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(2))}


@torch.no_grad()
@pytest.mark.parametrize("name", CONTROLLED)
def test_every_new_control_changes_nothing(name, wide):
    backbone = controlled(name)
    backbone.start_from_t2a()
    expected = UNetBackbone(backbone.unet, 16)(**wide)
    torch.testing.assert_close(backbone(**wide), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CONTROLLED)
def test_every_trained_control_reads_the_local_features_in_time(name, wide):
    backbone = controlled(name)
    tiny.shake(backbone)
    before = backbone(**wide)
    flipped = backbone(**{**wide, "e_lv": wide["e_lv"].flip(1)})
    assert (before - flipped).abs().max() > 1e-3
    one = {key: value[1:] for key, value in wide.items()}
    torch.testing.assert_close(backbone(**one), before[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CONTROLLED)
def test_which_controls_look_past_the_padding(name, wide):
    backbone = controlled(name)
    tiny.shake(backbone)
    padded = wide["c"] + 5 * ~wide["mask"].unsqueeze(-1)
    difference = (backbone(**{**wide, "c": padded}) - backbone(**wide)).abs().max()
    assert difference < 1e-4 if name in LOOKS_PAST_PADDING else difference > 1e-3


@pytest.mark.parametrize("name", CONTROLLED)
@pytest.mark.parametrize("freeze", [True, False])
def test_every_control_freezes_exactly_the_unet(name, freeze):
    backbone = controlled(name, freeze_unet=freeze).requires_grad_(False)
    backbone.start_from_t2a()
    trainable = {key for key, p in backbone.named_parameters() if p.requires_grad}
    everything = {key for key, _ in backbone.named_parameters()}
    unets = {key for key in everything if key.startswith("unet.")}
    assert unets and trainable == (everything - unets if freeze else everything)


@pytest.mark.parametrize("name", CONTROLLED)
def test_every_control_learns_in_two_steps(name, wide):
    """Zero layers pass no gradient at first; after one step all of them must."""
    backbone = controlled(name, freeze_unet=True)
    backbone.start_from_t2a()
    new = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(new, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        backbone(**wide).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in new)


@torch.no_grad()
def test_without_padding_the_mask_of_the_controlnet_changes_nothing(wide):
    everything = {**wide, "mask": torch.ones_like(wide["mask"])}
    masked = controlled("masked")
    plain = UNetControlNet(masked.unet, 16).eval()
    tiny.shake(masked)
    plain.load_state_dict(masked.state_dict())
    torch.testing.assert_close(masked(**everything), plain(**everything), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_released_embedding_sees_the_edges_of_the_frequencies():
    backbone = controlled("released", local_dim=LOCAL)
    tiny.shake(backbone)
    found = backbone.controlnet.controlnet_cond_embedding(torch.ones(1, LOCAL, 6, 5))
    assert found.shape == (1, backbone.width, 6, 5)
    torch.testing.assert_close(found[..., 1], found[..., 3])
    assert (found[..., 0] - found[..., 1]).abs().max() > 1e-3


@torch.no_grad()
def test_the_plain_embedding_shrinks_512_features_to_16_frequencies():
    embed = PlainEmbedding((8, 16, 32, 64, 128), 128)
    assert embed(torch.randn(1, 1, 256, 512)).shape == (1, 128, 256, 16)
    assert not embed(torch.randn(1, 1, 8, 512)).any()
    sizes = [tuple(layer.weight.shape[:2]) for layer in [embed.conv_in, *embed.blocks, embed.conv_out]]
    pairs = [(8, 8), (16, 8), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64), (128, 64)]
    assert sizes == [(8, 1), *pairs, (128, 128)]


def test_local_features_that_do_not_shrink_to_the_latent_are_refused(wide):
    backbone = controlled("plain", channels=(4, 8))
    with pytest.raises(RegistryError) as error:
        backbone(**wide)
    assert str(error.value) == (
        "backbone.unet_controlnet_plain.channels = (4, 8): 2 halvings make 4 of the 16 local features, but "
        "the latent has 8 frequencies. Bind backbone.unet_controlnet_plain.channels = (8,)."
    )
    assert controlled("plain", channels=(8,))(**wide).shape == wide["z_t"].shape


@torch.no_grad()
def test_feature_denormalisation_shifts_and_scales_what_is_normalised():
    fdn, x, e_lv = FDN(LOCAL, 8, 4), torch.randn(2, 8, 4, 6), torch.randn(2, 16, LOCAL)
    assert torch.equal(fdn(x, e_lv), x)
    fdn.gamma.bias.fill_(2.0)
    fdn.beta.bias.fill_(0.5)
    torch.testing.assert_close(fdn(x, e_lv), x + 2 * nn.functional.group_norm(x, 4) + 0.5)


@torch.no_grad()
def test_controlnet_xs_is_that_of_diffusers(wide):
    from diffusers import ControlNetXSAdapter, UNetControlNetXSModel

    ours = controlled("xs")
    tiny.shake(ours)
    widths, heads = ours.adapter.config.block_out_channels, ours.adapter.config.num_attention_heads
    stock = ControlNetXSAdapter.from_unet(ours.unet, block_out_channels=widths, num_attention_heads=heads)
    embedding = ours.adapter.controlnet_cond_embedding
    weights = {k: t for k, t in ours.adapter.state_dict().items() if "cond_embedding" not in k}
    assert not stock.load_state_dict(weights, strict=False).unexpected_keys
    theirs = UNetControlNetXSModel.from_unet(ours.unet, stock).eval()
    theirs.controlnet_cond_embedding = embedding
    everything = {**wide, "mask": torch.ones_like(wide["mask"])}
    expected = theirs(wide["z_t"], wide["t"], wide["c"], controlnet_cond=wide["e_lv"], return_dict=False)[0]
    # Theirs divides by another epsilon in the U-Net's normalisations than the U-Net itself.
    torch.testing.assert_close(ours(**everything), expected, rtol=1e-3, atol=1e-4)


def test_controlnet_xs_wants_two_layers_a_resolution(unet):
    with pytest.raises(RegistryError) as error:
        UNetControlNetXS(unet, LOCAL)
    assert str(error.value) == (
        "backbone.unet_controlnet_xs was given a U-Net of 1 layers a resolution; diffusers has it for 2 "
        "alone. Bind unet.stable_diffusion.layers_per_block = 2."
    )


@pytest.mark.parametrize("name", CONTROLLED)
def test_the_joint_stage_trains_every_control(name, tmp_path):
    model = tiny.model(
        backbone=CONTROLLED[name],
        unet=partial(tiny.unet, layers_per_block=2),
        local_head=partial(LinearHead, dim=16),
    )
    before = {key: t.clone() for key, t in model.backbone.state_dict().items()}
    JointStage(data_filter=KeepAll, steps=2, batch_size=4).run(tiny.work(model, tmp_path))
    changed = {
        key.split(".")[0] for key, t in model.backbone.state_dict().items() if not t.equal(before[key])
    }
    assert changed == {child for child, _ in model.backbone.named_children()} - (
        {"unet"} if name == "xs" else set()
    )


def test_a_controlnet_without_local_features_is_told():
    with pytest.raises(
        RegistryError, match=r"A ControlNet needs local features.*\n?.*run.backbone = @backbone.unet"
    ):
        UNetControlNet(tiny.unet(latent_channels=4, cond_dim=8), local_dim=0)


@torch.no_grad()
def test_the_released_controlnet_goes_on_from_its_checkpoint(unet, inputs, tmp_path):
    trained = UNetControlNetReleased(unet, LOCAL)
    trained.start_from_t2a()
    tiny.shake(trained)
    save_weights(tmp_path / "model.safetensors", state(trained, without="unet."))
    again = UNetControlNetReleased(unet, LOCAL, checkpoint=str(tmp_path))
    again.start_from_t2a()  # copies nothing over it
    assert torch.equal(again.eval()(**inputs), trained.eval()(**inputs))
    assert all(p.requires_grad for p in again.parameters())
