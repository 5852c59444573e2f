"""Models of the sizes that are measured, with random weights, and what a sampler takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.components.autoencoders import MelVAE
from stav2a.components.backbones import UNetControlNet
from stav2a.components.condition_fusers import Concat
from stav2a.components.feature_encoders import CAVP
from stav2a.components.global_poolers import AttentivePooler
from stav2a.components.local_heads import LinearHead
from stav2a.components.unets import stable_diffusion
from stav2a.components.vocoders import GriffinLim
from stav2a.models.stav2a import STAV2A, assemble


class Words(nn.Module):
    """Random tokens of any number of words: no text encoder is timed here, and none has to be installed.

    Shapes:
        B captions -> e_text (B, K0, D_c) and mask (B, K0)
    """

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.dim, self.table = dim, nn.Embedding(length, dim)

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        counts = torch.tensor([1 + len(caption.split()) for caption in captions])
        places = torch.arange(self.table.num_embeddings)
        mask = (places < counts[:, None]).to(self.table.weight.device)
        return self.table.weight * mask.unsqueeze(-1), mask


@dataclass(frozen=True)
class Scale:
    """One size.

    Args:
        name: In tables.
        unet: Its U-Net.
        cond_dim: Width of the tokens.
        words: How many text tokens.
        local_dim: Width of the local features.
        duration_s: Of a clip.
        autoencoder: Decides the latent's shape.
    """

    name: str
    unet: Callable[..., Any]
    cond_dim: int
    words: int
    local_dim: int
    duration_s: float
    autoencoder: Callable[..., Any]

    def model(self, device: torch.device) -> STAV2A:
        """The model in evaluation mode, weights moved away from zero so that every part counts."""
        torch.manual_seed(0)
        made = assemble(
            {
                "feature_encoder": partial(CAVP, width=4, blocks=(1, 1, 1, 1), dim=64),
                "text_encoder": partial(Words, self.cond_dim, self.words),
                "local_head": partial(LinearHead, dim=self.local_dim),
                "global_pooler": AttentivePooler,
                "condition_fuser": Concat,
                "unet": self.unet,
                "backbone": UNetControlNet,
                "autoencoder": self.autoencoder,
                "vocoder": partial(GriffinLim, iterations=16),
            },
            duration_s=self.duration_s,
        )
        with torch.no_grad():
            for parameter in made.backbone.controlnet.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
        return made.to(device).eval()


LAPTOP = Scale(
    "laptop",
    unet=partial(
        stable_diffusion, block_out_channels=(32, 64, 128), attention_levels=(False, False, True),
        attention_head_dim=(4, 4, 4), layers_per_block=1, norm_num_groups=16,
    ),
    cond_dim=64,
    words=12,
    local_dim=320,
    duration_s=2.56,
    autoencoder=partial(MelVAE, block_out_channels=(32, 64), layers_per_block=1, patch=4),
)  # fmt: skip
PAPER = Scale(
    "paper",
    unet=stable_diffusion,  # Tango's
    cond_dim=1024,
    words=64,
    local_dim=512,
    duration_s=10.24,
    autoencoder=partial(MelVAE, block_out_channels=(128, 256, 512), layers_per_block=2, patch=1),
)
QUARTER = Scale(
    "quarter",
    unet=partial(stable_diffusion, block_out_channels=(80, 160, 320, 320), norm_num_groups=16),
    cond_dim=PAPER.cond_dim,
    words=PAPER.words,
    local_dim=PAPER.local_dim,
    duration_s=PAPER.duration_s,
    autoencoder=PAPER.autoencoder,
)
SCALES = {scale.name: scale for scale in (LAPTOP, QUARTER, PAPER)}
CAPTIONS = ("a spoon hits a glass", "a low drum far away", "steps on gravel", "a bell rings twice")


def given(model: STAV2A, batch: int, seed: int) -> dict[str, Any]:
    """Random video features, captions and seeds of one generation."""
    rng = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    length = round(model.duration_s * model.feature_encoder.frame_rate_hz)
    e_v = torch.randn(batch, length, model.feature_encoder.dim, generator=rng).to(device)
    return {
        "e_v": nn.functional.normalize(e_v, dim=-1),
        "captions": [CAPTIONS[i % len(CAPTIONS)] for i in range(batch)],
        "seeds": [2 * (seed * 1000 + i) for i in range(batch)],
    }
