"""Tower of sound of the contrasts with picture and with text, which an encoder may keep, and their loss."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional


class AudioTower(nn.Module):
    """A small convolutional tower on log-mels: the sound's side of the contrast with the video or the text.

    Args:
        bins: Mel bins, M.
        dim: Width of an embedding, D_v.
        width: Channels of the first layers.

    Shapes:
        mel (B, 1, Tm, M), number of video frames L -> (B, L, D_v)
    """

    def __init__(self, bins: int, dim: int, width: int = 64) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.layers = nn.Sequential(
            nn.BatchNorm1d(bins),
            nn.Conv1d(bins, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(width, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(2 * width, dim, 1),
        )

    def forward(self, mel: Tensor, frames: int) -> Tensor:
        x = self.layers(rearrange(mel, "b 1 t m -> b m t"))
        return rearrange(functional.adaptive_avg_pool1d(x, frames), "b d l -> b l d")


def symmetric_contrast(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of rows that belong together, both ways (CLIP; Radford et al. 2021).

    Args:
        scale: Logarithm of the factor of the cosines.

    Shapes:
        a (N, D), b (N, D), scale () -> ()
    """
    a, b = functional.normalize(a, dim=-1), functional.normalize(b, dim=-1)
    logits = scale.exp() * a @ b.T
    same = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, same) + functional.cross_entropy(logits.T, same)) / 2
