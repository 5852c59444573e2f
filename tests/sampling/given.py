"""A small model that makes sound of random features, as the tests of samplers need it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.components.text_encoders import TinyMT5
from stav2a.models.stav2a import STAV2A
from stav2a.sampling import ddim
from tests import tiny

CAPTIONS = ["a low drum", "a high bell", "a drum"]


class Trimmed(TinyMT5):
    """Pads to the longest caption of a batch, as the pretrained encoders do."""

    def forward(self, captions: Any) -> tuple[Tensor, Tensor]:
        e_text, mask = super().forward(captions)
        longest = int(mask.sum(dim=1).max())
        return e_text[:, :longest], mask[:, :longest]


def made(**blocks: Any) -> STAV2A:
    """A small model in which every part counts."""
    text_encoder = partial(Trimmed, dim=16, layers=1, heads=2, vocabulary=64, max_length=12)
    model = tiny.model(**{"text_encoder": text_encoder, **blocks})
    tiny.shake(model.backbone, 0.05)
    return model


def features(clips: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return functional.normalize(torch.randn(clips, 8, 16, generator=rng), dim=-1)


def sample(
    sampler: Any, model: STAV2A, captions: Any = CAPTIONS, *, scheduler: Any = ddim, **changes: Any
) -> Tensor:
    settings: dict[str, Any] = {
        "e_v": features(len(captions)),
        "num_inference_steps": 5,
        "guidance_scale": 3.0,
        "seeds": [1 + 4 * i for i in range(len(captions))],
        **changes,
    }
    return sampler(model, captions=captions, scheduler=scheduler("v_prediction"), **settings)


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())
