"""Convolutions by Winograd's minimal filtering: 16 products for four outputs, where 36 are usual.

F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1: the
picture is cut into tiles of 4x4 that overlap by two, and a tile's transform is multiplied with the kernel's.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

# The kernel's transform, G; those of the tiles and of the products are sums, written out below.
KERNEL = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
Grid = Sequence[Sequence[Tensor]]


class Winograd(nn.Module):
    """In the place of a 3x3 convolution with padding 1.

    Args:
        convolution: Whose place it takes.

    Shapes:
        (B, C, T, F) -> (B, D, T, F), in memory with the channels last
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        kernels = torch.einsum("xi,dcij,yj->xycd", KERNEL, weight.double().cpu(), KERNEL)
        self.kernels = nn.Parameter(kernels.flatten(0, 1).to(weight), requires_grad=False)  # (16, C, D)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padding = (0, 0, 1, 1 + width % 2, 1, 1 + height % 2)
        x = nn.functional.pad(x.permute(0, 2, 3, 1), padding).contiguous()
        tiles = torch.stack(list(chain(*along_both(_tiles, _corners(x)))))  # (16, B, T/2, F/2, C)
        products = torch.bmm(tiles.flatten(1, 3), self.kernels).view(4, 4, *tiles.shape[1:4], -1)
        made = torch.stack(list(chain(*along_both(_outputs, [list(row) for row in products]))))
        y = made.unflatten(0, (2, 2)).permute(2, 3, 0, 4, 1, 5)  # (B, T/2, 2, F/2, 2, D)
        y = y.flatten(3, 4).flatten(1, 2)[:, :height, :width]
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)


def _corners(x: Tensor) -> Grid:
    """(B, T + 2, F + 2, C) -> what stands at each of the 4x4 places of its tiles, (B, T/2, F/2, C) each.

    Taken by strides, which a compiler has to keep; else it puts the channels elsewhere, and can't vectorise.
    """
    batch, height, width, channels = x.shape
    picture, row, column, channel = x.stride()
    sizes = (4, 4, batch, height // 2 - 1, width // 2 - 1, channels)
    return [list(each) for each in x.as_strided(sizes, (row, column, picture, 2 * row, 2 * column, channel))]


def along_both(transform: Callable[[Sequence[Tensor]], Sequence[Tensor]], grid: Grid) -> Grid:
    """Apply a transform to a grid's rows, then to its columns."""
    columns = list(zip(*(transform(row) for row in grid), strict=True))
    return list(zip(*(transform(column) for column in columns), strict=True))


def _tiles(d: Sequence[Tensor]) -> Sequence[Tensor]:
    """B^T d."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _outputs(m: Sequence[Tensor]) -> Sequence[Tensor]:
    """A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def filter_minimally(network: Any) -> None:
    """Replace a network's 3x3 convolutions of stride 1."""
    for parent in list(network.modules()):
        for name, each in parent.named_children():
            if fits(each):
                setattr(parent, name, Winograd(each))


def fits(module: nn.Module) -> bool:
    """Whether it is a convolution that `Winograd` can take the place of."""
    if not isinstance(module, nn.Conv2d):
        return False
    plain = module.groups == 1 and module.padding_mode == "zeros"
    sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
    return plain and sizes == ((3, 3), (1, 1), (1, 1), (1, 1))
