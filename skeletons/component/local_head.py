"""The local head `my_name`: features of the video on the time axis of the latent."""

from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register


@register("local_head", "my_name")
class MyName(nn.Module):
    """Video features on the latent's frames, projected by a small network.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.
        dim: Width of the local features, D_l.

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, D_l)

    Example:
        >>> import torch
        >>> MyName(in_dim=8, length=10, dim=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 10, 4])
    """

    # The assembly supplies the wired arguments; a recipe sets those after the star, by name.
    def __init__(self, in_dim: int, length: int, *, dim: int = 64) -> None:
        super().__init__()
        self.dim, self.length = dim, length  # neighbouring components read `dim`
        self.project = nn.Sequential(nn.Linear(in_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        nn.init.normal_(self.project[0].weight)  # features have unit length: see docs/components.md, Rules

    def forward(self, e_v: Tensor) -> Tensor:
        x = functional.interpolate(e_v.transpose(1, 2), size=self.length, mode="linear")  # (B, D_v, T)
        return self.project(x.transpose(1, 2))
