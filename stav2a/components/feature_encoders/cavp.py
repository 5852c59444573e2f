"""CAVP, the encoder of the paper."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from stav2a.checkpoints import load_weights
from stav2a.registry import register


@register("feature_encoder", "cavp")
class CAVP(nn.Module):
    """CAVP's video tower: SlowOnly ResNet, a projection a frame, unit length (sec. II-B; Diff-Foley [10]).

    The temporal convolutions of the last two stages look at neighbouring frames, so a clip is
    encoded in one call: cutting it in chunks changes the result.

    Args:
        width: Channels of the stem; 64 is ResNet-50's.
        blocks: Bottlenecks in each of the four stages.
        dim: Width of a frame's feature, D_v.
        frame_rate_hz: Frames a second the encoder expects.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of weights, which are then frozen; None trains from nothing.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Example:
        >>> import torch
        >>> CAVP(width=4, blocks=(1, 1, 1, 1), dim=8)(torch.rand(2, 5, 3, 32, 32)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        dim: int = 512,
        frame_rate_hz: float = 4.0,
        frame_size: int = 224,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.frame_rate_hz, self.frame_size = dim, frame_rate_hz, frame_size
        self.video_encoder = SlowOnly(width, blocks)
        self.video_project_head = nn.Linear(self.video_encoder.out_dim, dim)
        load_weights(self, checkpoint, parameter="feature_encoder.cavp.checkpoint")
        self.requires_grad_(checkpoint is None)

    def forward(self, video: Tensor) -> Tensor:
        x = self.video_encoder(rearrange(video, "b l c h w -> b c l h w"))  # (B, D, L)
        e_v = self.video_project_head(rearrange(x, "b d l -> b l d"))
        return functional.normalize(e_v, dim=-1)


class SlowOnly(nn.Module):
    """ResNet with bottlenecks on (time, height, width); time is never strided."""

    def __init__(self, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width, (1, 7, 7), stride=2)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        channels = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            layer = nn.Sequential()
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(Bottleneck(channels, planes, stride, temporal=stage >= 2))
                channels = planes * Bottleneck.expansion
            self.add_module(f"layer{stage + 1}", layer)
        self.stages = len(blocks)
        self.out_dim = channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, L, H, W) -> (B, D, L)."""
        x = self.pool(functional.relu(self.conv1(x)))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x.mean(dim=(3, 4))


class Bottleneck(nn.Module):
    """1x1x1 (3x1x1 where `temporal`), 1x3x3, 1x1x1, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, *, temporal: bool) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = ConvNorm(channels, planes, (3 if temporal else 1, 1, 1))
        self.conv2 = ConvNorm(planes, planes, (1, 3, 3), stride=stride)
        self.conv3 = ConvNorm(planes, out, (1, 1, 1))
        changed = stride != 1 or channels != out
        self.downsample = ConvNorm(channels, out, (1, 1, 1), stride=stride) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv1(x))
        y = functional.relu(self.conv2(y))
        return functional.relu(self.conv3(y) + self.downsample(x))


class ConvNorm(nn.Module):
    """A convolution that keeps the length in time, then batch normalisation."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int, int], stride: int = 1) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(channels, out, kernel, (1, stride, stride), padding, bias=False)
        self.bn = nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))
