"""The authors' release, by its numbers: heads, and one guided step of the whole wiring.

The release's own code made the numbers, for weights and inputs drawn as tests/components/golden.py does.
"""

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stav2a.components.autoencoders import MelVAE
from stav2a.components.backbones import UNetControlNetReleased
from stav2a.components.feature_encoders import CAVP
from stav2a.components.global_poolers import FactorGraphPooler
from stav2a.components.local_heads import ReleasedOnsetHead
from stav2a.components.text_encoders import TinyMT5
from stav2a.components.unets import stable_diffusion
from stav2a.models.stav2a import STAV2A, assemble
from stav2a.sampling import guided
from tests import tiny
from tests.components import golden

TOLERANCE = 1e-4
OURS = {  # the release's prefixes, and ours
    "unet.": "backbone.unet.",
    "controlnet.": "backbone.controlnet.",
    "trans_cvap_feature.": "local_head.",
    "pre_onset.": "local_head.",
    "global_video_feature.fc.": "global_pooler.fc.",
    "global_video_feature.fga.un_models.0.embed.": "global_pooler.embed.",
    "global_video_feature.fga.un_models.0.feature_reduce.": "global_pooler.feature_reduce.",
    "global_video_feature.fga.pp_models.0.embed_X.": "global_pooler.embed_x.",
    "global_video_feature.fga.pp_models.0.embed_Y.": "global_pooler.embed_y.",
    "global_video_feature.fga.reduce_potentials.0.": "global_pooler.reduce_potentials.",
    "global_video_feature.conv.": "global_pooler.conv.",
}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's keys in our model."""
    return {
        ours + key.removeprefix(theirs): tensor
        for key, tensor in state.items()
        for theirs, ours in OURS.items()
        if key.startswith(theirs)
    }


def released(**changes) -> STAV2A:
    """The released wiring; the blocks that the golden numbers don't touch are as small as can be."""
    wiring = {
        "feature_encoder": partial(CAVP, width=4, blocks=(1, 1, 1, 1)),
        "text_encoder": partial(TinyMT5, dim=1024, layers=1, vocabulary=8, max_length=4),
        "local_head": ReleasedOnsetHead,
        "global_pooler": FactorGraphPooler,
        "backbone": UNetControlNetReleased,
        "autoencoder": partial(
            MelVAE, block_out_channels=(8, 16), latent_channels=8, layers_per_block=1, patch=2,
            mel_mean=0.0, mel_std=1.0,
        ),
        "unet": partial(
            stable_diffusion, block_out_channels=(128, 64, 96, 96), attention_head_dim=(8, 8, 8, 8),
            attention_levels=(False, True, True, True), layers_per_block=1, norm_num_groups=16,
            use_linear_projection=False,
        ),
    }  # fmt: skip
    return assemble(tiny.factories(**{**wiring, **changes}), duration_s=10.24).eval()


def load(model: STAV2A, shapes: Mapping[str, list[int]]) -> None:
    """Put the golden weights in: none too many, none missing in the blocks they are for."""
    found = renamed(golden.weights(shapes))
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert len(found) == len(shapes) and not unexpected
    blocks = {".".join(key.split(".")[:2]) for key in found}
    assert not [key for key in missing if ".".join(key.split(".")[:2]) in blocks]


@pytest.fixture(scope="module")
def keys() -> dict[str, list[int]]:
    return json.loads((golden.GOLDEN / "released_step_keys.json").read_text())


@pytest.fixture(scope="module")
def heads(keys) -> STAV2A:
    model = released(unet=tiny.unet)
    load(model, {key: shape for key, shape in keys.items() if not key.startswith(("unet.", "controlnet."))})
    return model


@torch.no_grad()
def test_the_released_heads_numbers_come_out(heads):
    expected = np.load(golden.GOLDEN / "heads.npz")
    e_v = functional.normalize(golden.normal(0, 2, 40, 512), dim=-1)
    found = {
        "windows": heads.local_head.context(e_v),
        "e_lv": heads.local_head(e_v),
        "logits": heads.local_head.class_logits(e_v),
        "e_gv": heads.global_pooler(e_v),
    }
    errors = {name: golden.error(found[name], expected[name]) for name in expected.files}
    print(errors)
    assert len(errors) == 4 and max(errors.values()) < TOLERANCE


@torch.no_grad()
def test_a_guided_step_of_the_whole_released_wiring_comes_out(keys):
    expected = np.load(golden.GOLDEN / "released_step.npz")
    model = released()
    load(model, keys)
    e_v = functional.normalize(golden.normal(0, 1, 40, 512), dim=-1)
    e_text, z_t = 0.5 * golden.normal(1, 2, 7, 1024), golden.normal(2, 1, 8, 256, 16)
    mask = torch.arange(7) < torch.tensor([[1], [5]])
    null, prompt = (model.condition(e_v, e_text[i : i + 1], mask[i : i + 1]) for i in range(2))
    both, t = null + prompt, torch.tensor([500])
    twice = (z_t.repeat(2, 1, 1, 1), t.repeat(2))
    found = dict(zip(("null", "prompt"), model.predict(*twice, both).split(1), strict=True))
    found["guided"] = guided(model, z_t, t, both, 3.0)
    down, found["mid"] = model.backbone.control(*twice, both.c, both.mask, both.e_lv)
    found["down0"] = down[0][:, ::16, ::8]
    errors = {name: golden.error(found[name], expected[name]) for name in expected.files}
    print(errors)
    assert len(errors) == 5 and max(errors.values()) < TOLERANCE
