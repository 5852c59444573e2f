"""Diffusion transformers in the place of the U-Net, this package's and a user's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from stav2a import recipe
from stav2a.components.backbones import DiTBackbone, UNetBackbone, UNetControlNet
from stav2a.components.local_heads import LinearHead, NoLocalHead
from stav2a.components.unets import DiT, MMDiT
from stav2a.data.filters import KeepAll
from stav2a.experiments.dry_run import dry_run
from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import STAV2A
from stav2a.registry import RegistryError
from stav2a.sampling import FastSampler, ReferenceSampler
from stav2a.training.denoising import Flow
from stav2a.training.stages import JointStage, T2APretrain
from stav2a.utils.checkpoints import save_weights
from stav2a.utils.errors import StaV2AError
from tests import tiny
from tests.sampling.given import error, sample

KINDS: dict[str, Callable[..., Any]] = {
    "dit": partial(DiT, width=16, layers=2, heads=2),
    "mmdit": partial(MMDiT, width=16, joint_layers=2, single_layers=1, heads=2),
}
LOCAL, COND = 6, 12
every_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind: str) -> Any:
    torch.manual_seed(0)
    return KINDS[kind](latent_channels=4, cond_dim=COND, latent_bins=8).eval()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        "z_t": torch.randn(2, 4, 10, 8, generator=rng),
        "t": torch.tensor([3.5, 700.0]),
        "c": torch.randn(2, 5, COND, generator=rng),
        "mask": torch.tensor([[True, True, False, False, True]] * 2),
        "e_lv": torch.randn(2, 10, LOCAL, generator=rng),
    }


@every_kind
@torch.no_grad()
def test_it_is_called_and_answers_like_the_u_net_of_diffusers(kind, inputs):
    unet = built(kind)
    tiny.shake(unet)
    given = (inputs["z_t"], inputs["t"], inputs["c"])
    (prediction,) = unet(*given, encoder_attention_mask=inputs["mask"], return_dict=False)
    assert prediction.shape == inputs["z_t"].shape
    assert torch.equal(unet(*given, encoder_attention_mask=inputs["mask"]).sample, prediction)
    everything = torch.ones_like(inputs["mask"])
    assert torch.equal(unet(*given).sample, unet(*given, encoder_attention_mask=everything).sample)


@every_kind
@torch.no_grad()
def test_it_reads_time_tokens_and_order_but_no_padding(kind, inputs):
    backbone = UNetBackbone(built(kind), LOCAL)
    tiny.shake(backbone, 0.3)
    expected, masked = backbone(**inputs), ~inputs["mask"][..., None]
    padding = torch.where(masked, inputs["c"] + 3, inputs["c"])
    torch.testing.assert_close(backbone(**{**inputs, "c": padding}), expected)
    for other in (
        {"t": inputs["t"] + 100},
        {"c": torch.where(masked, inputs["c"], inputs["c"] + 3)},
    ):
        assert (backbone(**{**inputs, **other}) - expected).abs().max() > 1e-3
    flipped = backbone(**{**inputs, "z_t": inputs["z_t"].flip(2)}).flip(2)
    assert (flipped - expected).abs().max() > 1e-3


@every_kind
@torch.no_grad()
def test_at_first_the_video_model_is_the_text_to_audio_model(kind, inputs):
    unet = built(kind)
    tiny.shake(unet)
    backbone = DiTBackbone(unet, LOCAL).eval()
    backbone.start_from_t2a()
    expected = UNetBackbone(unet, LOCAL)(**inputs)
    torch.testing.assert_close(backbone(**inputs), expected, rtol=1e-5, atol=1e-5)
    tiny.shake(backbone.embed)
    other = backbone(**{**inputs, "e_lv": inputs["e_lv"].flip(1)})
    assert (backbone(**inputs) - other).abs().max() > 1e-3


@every_kind
@torch.no_grad()
def test_local_features_modulate_their_own_frame(kind, inputs):
    """Without attention nothing of a frame's features reaches the others."""
    backbone = DiTBackbone(built(kind), LOCAL).eval()
    tiny.shake(backbone)
    for name, part in backbone.named_modules():
        if name.endswith("attention_gate"):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    e_lv = inputs["e_lv"].clone()
    e_lv[:, 3] += 1
    moved = (backbone(**{**inputs, "e_lv": e_lv}) - backbone(**inputs)).abs().amax(dim=(0, 1, 3))
    assert moved[3] > 1e-3 and moved[torch.arange(10) != 3].max() == 0


@every_kind
def test_every_parameter_learns_within_four_steps(kind, inputs):
    backbone = DiTBackbone(built(kind), LOCAL)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    target = torch.randn(inputs["z_t"].shape, generator=torch.Generator().manual_seed(2))
    for _ in range(4):
        optimizer.zero_grad()
        (backbone(**inputs) - target).square().mean().backward()
        optimizer.step()
    still = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


@every_kind
def test_activations_that_are_computed_again_give_the_same_gradient(kind, inputs):
    gradients, calls = [], []
    for recomputes in (False, True):
        backbone = DiTBackbone(built(kind), LOCAL)
        tiny.shake(backbone)
        layer = next(part for name, part in backbone.named_modules() if name.endswith("frames"))
        layer.mlp.register_forward_hook(lambda *_: calls.append(1))
        if recomputes:
            backbone.unet.enable_gradient_checkpointing()
        backbone(**inputs).square().mean().backward()
        gradients.append([p.grad for p in backbone.parameters()])
    assert len(calls) == 1 + 2
    assert all(torch.equal(kept, again) for kept, again in zip(*gradients, strict=True))


@every_kind
def test_the_stages_train_it_from_text_to_video(kind, tmp_path):
    model = tiny.model(unet=KINDS[kind], backbone=DiTBackbone, local_head=partial(LinearHead, dim=16))
    work = tiny.work(model, tmp_path, objective=Flow())
    pretrain = T2APretrain(data_filter=KeepAll, steps=60, batch_size=8)
    losses = [value for _, value in pretrain.run(work)["validation_loss"]]
    assert losses[-1] < losses[0], losses
    assert not any(p.abs().max() for p in model.backbone.embed.parameters())
    losses = [v for _, v in JointStage(data_filter=KeepAll, steps=20, batch_size=8).run(work)["loss"]]
    assert all(p.abs().max() for p in model.backbone.embed.parameters())
    assert all(torch.isfinite(torch.tensor(losses)))


@every_kind
@torch.no_grad()
def test_a_saved_model_is_made_again_with_the_bins_of_its_autoencoder(kind, inputs, tmp_path):
    factory = KINDS[kind]
    model = tiny.model(unet=factory, backbone=DiTBackbone)
    tiny.shake(model)
    model.save_pretrained(tmp_path / "model")
    assert "latent_bins" not in (tmp_path / "model/unet/config.json").read_text()
    again = STAV2A.from_pretrained(tmp_path / "model")
    z_t, c, mask = torch.randn(2, *model.latent_shape), torch.randn(2, 5, 16), inputs["mask"]
    given = (z_t, inputs["t"], c, mask, torch.randn(2, 8, model.local_head.dim))
    assert torch.equal(again.backbone(*given), model.backbone(*given))


@torch.no_grad()
def test_it_goes_on_from_its_checkpoint(tmp_path):
    trained = built("dit")
    tiny.shake(trained)
    save_weights(tmp_path / "model.safetensors", trained.state_dict())
    again = KINDS["dit"](latent_channels=4, cond_dim=COND, latent_bins=8, checkpoint=str(tmp_path))
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in again.state_dict().items())


def test_sizes_that_make_no_transformer_are_refused():
    with pytest.raises(RegistryError) as told:
        DiT(4, COND, 8, width=20, heads=4)
    assert str(told.value) == (
        "unet.dit.width = 20, heads = 4: expected heads of an even width. Take a width that 8 divides."
    )
    with pytest.raises(RegistryError, match="unet.mmdit.joint_layers = 0: expected 1 or more"):
        MMDiT(4, COND, 8, width=16, heads=2, joint_layers=0)


def test_a_denoiser_that_does_not_fit_its_backbone_is_refused():
    wired = {"latent_channels": 4, "cond_dim": COND}
    with pytest.raises(RegistryError) as told:
        DiTBackbone(tiny.unet(**wired), LOCAL)
    assert str(told.value) == (
        "backbone.dit needs a transformer that takes a frame_embedding, and UNet2DConditionModel does not. "
        "Bind run.unet = @unet.dit or @unet.mmdit, or run.backbone = @backbone.unet."
    )
    with pytest.raises(RegistryError) as told:
        UNetControlNet(built("mmdit"), LOCAL)
    assert str(told.value) == (
        "backbone.unet_controlnet needs the blocks of diffusers' U-Net, and MMDiT has none. "
        "Bind run.backbone = @backbone.dit, or run.unet = @unet.stable_diffusion."
    )
    with pytest.raises(RegistryError, match="backbone.dit needs local features"):
        DiTBackbone(built("dit"), 0)


class TheirDiT(nn.Module):
    """Layer of torch's own transformer, with one token a latent frame.

    Args:
        latent_channels: Channels of the latent. Wired.
        cond_dim: Width of the tokens. Wired.
        latent_bins: Frequencies of the latent. Wired.
        width: Width of the layer.
    """

    def __init__(self, latent_channels: int, cond_dim: int, latent_bins: int, *, width: int = 32) -> None:
        super().__init__()
        self.into, self.out = (
            nn.Linear(latent_channels * latent_bins, width),
            nn.Linear(width, latent_channels * latent_bins),
        )
        self.time, self.tokens = nn.Linear(1, width), nn.Linear(cond_dim, width)
        self.layer = nn.TransformerDecoderLayer(width, 2, 64, dropout=0.0, batch_first=True)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        return_dict: bool = True,
        encoder_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor]:
        x = self.into(rearrange(sample, "b c t f -> b t (c f)")) + self.time(timestep[:, None, None] / 1000)
        padding = None if encoder_attention_mask is None else ~encoder_attention_mask
        x = self.layer(x, self.tokens(encoder_hidden_states), memory_key_padding_mask=padding)
        return (rearrange(self.out(x), "b t (c f) -> b c t f", c=sample.shape[1]),)


def test_a_users_own_transformer_makes_sound_of_text(tmp_path, scratch_registry):
    theirs = scratch_registry.register("unet", "theirs")(TheirDiT)
    model = tiny.model(unet=theirs, backbone=UNetBackbone, local_head=NoLocalHead)
    stage = T2APretrain(data_filter=KeepAll, steps=40, batch_size=8)
    losses = [value for _, value in stage.run(tiny.work(model, tmp_path))["validation_loss"]]
    assert losses[-1] < 0.97 * losses[0], losses
    expected = sample(ReferenceSampler(), model.eval())
    assert error(sample(FastSampler(), model), expected) <= 1e-5


@pytest.mark.slow
def test_a_users_own_transformer_is_tried_with_a_recipe_and_refused_under_a_controlnet(scratch_registry):
    scratch_registry.register("unet", "theirs")(TheirDiT)
    bare = ("run.metrics = []", "run.classifier = None", "run.unet = @unet.theirs")

    def tried(name: str) -> Any:
        files = [f"recipes/{name}.gin", "recipes/scale/smoke.gin"]
        return dry_run(recipe.load(files, bare, root=Experiment).build())

    assert tried("pretrained_t2a").unchecked == []
    with pytest.raises(StaV2AError) as told:
        tried("cn")
    assert str(told.value) == (
        "backbone.unet_controlnet needs the blocks of diffusers' U-Net, and TheirDiT has none. "
        "Bind run.backbone = @backbone.unet, or run.unet = @unet.stable_diffusion."
    )
