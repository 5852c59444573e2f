from functools import partial
from typing import Any

import pytest
import torch

from stav2a.components.autoencoders import MelVAE
from stav2a.components.backbones import UNetBackbone
from stav2a.components.feature_encoders import CAVP
from stav2a.components.global_poolers import AttentivePooler, NoPooler
from stav2a.components.local_heads import LinearHead, NoLocalHead
from stav2a.components.text_encoders import TinyMT5
from stav2a.models.stav2a import Conditions, as_video, assemble, encode_captions
from stav2a.registry import RegistryError
from stav2a.utils.errors import UsageError
from tests import tiny

WIDER: dict[str, Any] = {
    "feature_encoder": partial(CAVP, width=4, blocks=(1, 1), dim=10, frame_size=16),
    "text_encoder": partial(TinyMT5, dim=24, layers=1, heads=2, vocabulary=64, max_length=5),
    "autoencoder": partial(MelVAE, block_out_channels=(8,), latent_channels=6, layers_per_block=1, patch=4),
}


def predict(model, captions=tiny.CAPTIONS, frames: int = 8) -> torch.Tensor:
    e_v = model.feature_encoder(torch.rand(len(captions), frames, 3, 16, 16))
    z_t = torch.randn(len(captions), *model.latent_shape)
    return model(z_t, torch.tensor([5] * len(captions)), e_v, *encode_captions(model, captions))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        WIDER,
        {"local_head": partial(LinearHead, dim=5)},
        {"global_pooler": partial(AttentivePooler, tokens=7)},
        {"local_head": NoLocalHead, "global_pooler": NoPooler, "backbone": UNetBackbone},
    ],
    ids=["tiny", "other widths", "linear", "seven tokens", "text alone"],
)
def test_every_width_follows_from_its_neighbour(changes):
    model = tiny.model(**changes)
    assert predict(model).shape == (2, *model.latent_shape)


def test_the_latent_takes_its_shape_from_the_autoencoder_and_the_duration():
    model = tiny.model(**WIDER)
    assert model.latent_shape == (6, 16, 16)
    assert model.latent_rate_hz == pytest.approx(25.0)
    twice = assemble(tiny.factories(), duration_s=2 * tiny.DURATION_S)
    assert twice.latent_shape == (4, 16, 8)
    assert twice.local_head(torch.zeros(1, 8, 16)).shape[1] == 16


@torch.no_grad()
def test_conditions_are_text_then_video_tokens_and_local_features():
    model = tiny.model()
    e_v = torch.randn(2, 8, 16)
    e_text, mask = encode_captions(model, ["a low drum", ""])
    conditions = model.condition(e_v, e_text, mask)
    torch.testing.assert_close(conditions.c[:, :6], e_text)
    torch.testing.assert_close(conditions.c[:, 6:], model.global_pooler(e_v))
    torch.testing.assert_close(conditions.e_lv, model.local_head(e_v))
    assert conditions.mask.sum(dim=1).tolist() == [4 + 4, 1 + 4]


def test_conditions_add_up_to_one_batch_ours_first():
    ours = Conditions(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1, 4, 1))
    theirs = Conditions(torch.ones(2, 2, 3), torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 4, 1))
    both = ours + theirs
    assert both.c[:, 0, 0].tolist() == both.e_lv[:, 0, 0].tolist() == [0, 1, 1]
    assert both.mask[:, 0].tolist() == [False, True, True]


def test_a_duration_that_does_not_divide_is_told_with_one_that_does():
    with pytest.raises(UsageError) as error:
        assemble(tiny.factories(), duration_s=0.65)
    assert str(error.value) == (
        "run.duration_s = 0.65 makes 65 frames, which the autoencoder's downsampling of 8 does not "
        "divide. Choose a multiple of 0.08 s, such as 0.64."
    )


def test_a_component_of_another_slot_is_refused():
    with pytest.raises(
        RegistryError, match=r"local_head was given global_pooler\.attentive\. Write @local_head"
    ):
        assemble(tiny.factories(local_head=AttentivePooler), duration_s=tiny.DURATION_S)


@torch.no_grad()
def test_each_distinct_caption_is_encoded_once():
    model = tiny.model()
    captions = ["a bell", "a drum", "a bell", "", "a drum", "a bell"]
    asked: list[str] = []
    hook = model.text_encoder.register_forward_pre_hook(lambda _, given: asked.extend(given[0]))
    e_text, mask = encode_captions(model, captions)
    hook.remove()
    assert sorted(asked) == ["", "a bell", "a drum"]
    direct, own = model.text_encoder(captions)
    torch.testing.assert_close(e_text, direct, rtol=1e-5, atol=1e-6)
    assert torch.equal(mask, own)


def test_blocks_are_found_by_their_slot():
    model = tiny.model()
    assert model.block("unet") is model.backbone.unet
    assert model.block("local_head") is model.local_head


def test_frames_become_numbers_between_zero_and_one():
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    torch.testing.assert_close(as_video(frames).flatten(), torch.tensor([0.0, 0.2, 1.0]))


def same(ours, theirs) -> bool:
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    assert same(tiny.model(seed=3), tiny.model(seed=3))
    assert not same(tiny.model(seed=3).block("unet"), tiny.model(seed=4).block("unet"))


@pytest.mark.parametrize(
    ("slot", "changes"),
    [
        ("autoencoder", {"feature_encoder": WIDER["feature_encoder"]}),
        ("unet", {"local_head": NoLocalHead, "global_pooler": NoPooler, "backbone": UNetBackbone}),
        ("local_head", {"text_encoder": WIDER["text_encoder"]}),
    ],
)
def test_a_block_starts_with_the_same_weights_whatever_the_others_are(slot, changes):
    """Or a stage from the store would differ from the same stage trained here."""
    assert same(tiny.model().block(slot), tiny.model(**changes).block(slot))
