"""Attention to the video tokens beside that to the text: what the decoupled backbone promises."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stav2a.components.backbones import UNetBackbone, UNetControlNetDecoupled, UNetControlNetMasked
from stav2a.components.condition_fusers import Concat, VideoFirst
from stav2a.components.global_poolers import FrameTokens, MeanPooler, NoPooler
from stav2a.data.filters import KeepAll
from stav2a.models.adapters import LoRA, merge
from stav2a.models.stav2a import STAV2A, encode_captions
from stav2a.registry import RegistryError
from stav2a.training.stages import JointStage
from stav2a.utils.errors import UsageError
from tests import tiny

VIDEO, WIDTH, LOCAL = 3, 16, 6


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Three video tokens, then five of the text, of which three count."""
    rng = torch.Generator().manual_seed(1)
    return {
        "z_t": torch.randn(2, 4, 8, 8, generator=rng),
        "t": torch.tensor([3, 700]),
        "c": torch.randn(2, 8, WIDTH, generator=rng),
        "mask": torch.tensor([[True] * 3 + [True, True, False, False, True]] * 2),
        "e_lv": torch.randn(2, 8, LOCAL, generator=rng),
    }


def text_of(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "c": inputs["c"][:, VIDEO:], "mask": inputs["mask"][:, VIDEO:]}


def cross_attentions(backbone: UNetControlNetDecoupled) -> list[Any]:
    return [each.attn2 for each in backbone.unet.modules() if hasattr(each, "attn2")]


def made(**changes: Any) -> UNetControlNetDecoupled:
    torch.manual_seed(0)
    unet = tiny.unet(latent_channels=4, cond_dim=WIDTH)
    tiny.shake(unet)
    return UNetControlNetDecoupled(unet, LOCAL, video_tokens=VIDEO, **changes).eval()


@torch.no_grad()
def test_a_new_one_reads_the_text_alone(inputs):
    backbone = made()
    backbone.start_from_t2a()
    expected = UNetBackbone(copy.deepcopy(backbone.unet), LOCAL)(**text_of(inputs))
    torch.testing.assert_close(backbone(**inputs), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_trained_one_reads_text_and_video_and_repeats_itself(inputs):
    backbone = made()
    tiny.shake(backbone)
    before = backbone(**inputs)
    assert torch.equal(backbone(**inputs), before)
    for place, reads in ((0, True), (VIDEO, True), (VIDEO + 2, False)):  # a video token, a word, padding
        c = inputs["c"].clone()
        c[:, place] += 3
        changed = (backbone(**{**inputs, "c": c}) - before).abs().max()
        assert changed > 1e-4 if reads else changed < 1e-5


@torch.no_grad()
def test_the_attentions_are_added_by_their_scale(inputs):
    """With the text's own keys and values, and its tokens as video, the attention counts 1 + scale times."""
    backbone, x, c = made(scale=0.5), torch.randn(2, 10, 16), torch.randn(2, 5, WIDTH)
    backbone.start_from_t2a()
    attention = cross_attentions(backbone)[0]
    backbone.video_values[0].load_state_dict(attention.to_v.state_dict())
    alone = attention(x, encoder_hidden_states=c)
    both = attention(x, encoder_hidden_states=c, ip_hidden_states=c)
    torch.testing.assert_close(both - attention.to_out[0].bias, 1.5 * (alone - attention.to_out[0].bias))


@torch.no_grad()
def test_without_video_the_unet_is_the_stock_one_bit_for_bit_and_keeps_its_names(inputs):
    torch.manual_seed(0)
    stock = tiny.unet(latent_channels=4, cond_dim=WIDTH).eval()
    tiny.shake(stock)
    backbone = made()
    assert backbone.unet.state_dict().keys() == stock.state_dict().keys()
    given = (inputs["z_t"], inputs["t"], inputs["c"])
    assert torch.equal(backbone.unet(*given, return_dict=False)[0], stock(*given, return_dict=False)[0])


@torch.no_grad()
def test_the_controlnet_reads_the_text(inputs):
    backbone = made()
    tiny.shake(backbone)
    masked = UNetControlNetMasked(backbone.unet, LOCAL).eval()
    masked.controlnet = backbone.controlnet
    down, mid = backbone.control(**inputs)
    expected, middle = masked.control(**text_of(inputs))
    assert torch.equal(mid, middle)
    assert all(torch.equal(*pair) for pair in zip(down, expected, strict=True))


@torch.no_grad()
def test_the_keys_start_as_the_trained_texts_and_the_values_at_zero():
    backbone = made()
    tiny.shake(backbone.unet)  # the text-to-audio stages train it after the model is assembled
    backbone.start_from_t2a()
    attentions = cross_attentions(backbone)
    assert len(attentions) == len(backbone.video_keys) > 1
    for attention, key, value in zip(attentions, backbone.video_keys, backbone.video_values, strict=True):
        assert torch.equal(key.weight, attention.to_k.weight) and not value.weight.any()
        assert key.weight.data_ptr() != attention.to_k.weight.data_ptr()


@pytest.mark.parametrize("freeze", [True, False])
def test_freezing_freezes_exactly_the_unet(freeze):
    backbone = made(freeze_unet=freeze).requires_grad_(False)
    backbone.start_from_t2a()
    frozen = {key for key, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == (
        {key for key, _ in backbone.named_parameters() if key.startswith("unet.")} if freeze else set()
    )


def test_all_that_is_new_learns_in_three_steps(inputs):
    backbone = made()
    backbone.start_from_t2a()
    new = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(new, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        backbone(**inputs).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in new)


def test_the_joint_stage_trains_it_and_leaves_the_unet(tmp_path):
    model = tiny.model(
        backbone=UNetControlNetDecoupled,
        condition_fuser=VideoFirst,
        global_pooler=partial(MeanPooler, tokens=4),
    )
    before = {key: t.clone() for key, t in model.backbone.state_dict().items()}
    JointStage(data_filter=KeepAll, steps=2, batch_size=4).run(tiny.work(model, tmp_path))
    changed = {
        key.split(".")[0] for key, t in model.backbone.state_dict().items() if not t.equal(before[key])
    }
    assert changed == {"controlnet", "video_keys", "video_values"}


@torch.no_grad()
def test_a_copy_has_layers_of_its_own(inputs):
    """As the fast sampler and the exported folder need it."""
    backbone = made()
    tiny.shake(backbone)
    expected, copied = backbone(**inputs), copy.deepcopy(backbone)
    tiny.shake(backbone, seed=1)
    assert torch.equal(copied(**inputs), expected)


@torch.no_grad()
def test_a_saved_model_is_loaded_bit_for_bit(tmp_path):
    model = tiny.model(backbone=UNetControlNetDecoupled, condition_fuser=VideoFirst)
    tiny.shake(model.backbone)
    model.save_pretrained(tmp_path / "model")
    again = STAV2A.from_pretrained(tmp_path / "model")
    e_v, z_t = torch.randn(2, 8, 16), torch.randn(2, 4, 8, 8)
    text = encode_captions(model, ["a drum", "a bell"])
    given = (z_t, torch.tensor([3, 700]), e_v, *text)
    assert torch.equal(again(*given), model(*given))


@pytest.mark.parametrize("others", [{"condition_fuser": Concat}, {"global_pooler": NoPooler}])
def test_without_video_tokens_at_the_beginning_it_is_refused(others):
    with pytest.raises(
        RegistryError,
        match=r"apart, and no video tokens stand at the beginning of .*\. Bind run\.condition_fu",
    ):
        tiny.model(backbone=UNetControlNetDecoupled, **{"condition_fuser": VideoFirst, **others})


@pytest.mark.parametrize("pooler, expected", [(FrameTokens, 8), (partial(MeanPooler, tokens=3), 3)])
def test_it_is_told_the_number_of_video_tokens(pooler, expected):
    model = tiny.model(backbone=UNetControlNetDecoupled, condition_fuser=VideoFirst, global_pooler=pooler)
    assert model.backbone.video_tokens == expected


def test_an_adapter_on_the_output_layers_is_refused_and_others_merge(inputs):
    backbone = made()
    LoRA(targets=("to_q", "to_k")).attach(backbone.unet)
    tiny.shake(backbone)
    with torch.no_grad():
        adapted = backbone(**inputs)
        merge(backbone.unet)
        torch.testing.assert_close(backbone(**inputs), adapted, rtol=1e-4, atol=1e-4)
    LoRA(targets=("to_out.0",)).attach(backbone.unet)
    with pytest.raises(UsageError) as error:
        backbone(**inputs)
    assert str(error.value) == (
        "backbone.unet_controlnet_decoupled reads the weights of to_out.0, which has an adapter. "
        "Leave 'to_out.0' out of adapter.lora.targets."
    )
