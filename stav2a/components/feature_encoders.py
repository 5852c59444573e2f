"""CAVP, the encoder of the paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register
from stav2a.utils.checkpoints import CheckpointError, left_out, load_weights


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


ADVICE = "Give a folder with config.json and model.safetensors, or bind None to train from nothing."


def build(kind: Any, config: Any, checkpoint: str | None, name: str, same: Mapping[str, str]) -> Any:
    """A transformers model.

    Args:
        kind: Its class.
        config: Its configuration where there is no checkpoint.
        checkpoint: A folder, whose own configuration counts; None gives random weights.
        name: Of the component.
        same: Fields of the configuration that a checkpoint must share, with the component's names for them.

    Raises:
        CheckpointError: No such model there, one of other sizes, or only a part of it.
    """
    if checkpoint is None:
        return kind(config)
    where = f"feature_encoder.{name}.checkpoint = {checkpoint!r}"

    def agreed() -> Any:
        return _agreed(config, where, checkpoint, name, same)

    if left_out(f"feature_encoder.{name}.checkpoint", checkpoint, agreed):
        return kind(config)
    found = agreed()
    options = {"config": found, "dtype": torch.float32, "output_loading_info": True}
    model, told = _from_folder(kind, where, checkpoint, **options)
    if missing := sorted(told["missing_keys"]):
        raise CheckpointError(
            f"{where} lacks {len(missing)} of the weights of {kind.__name__}, first {missing[0]}. "
            "Give the folder of such a model, as transformers saves it."
        )
    return model


def _agreed(config: Any, where: str, checkpoint: str, name: str, same: Mapping[str, str]) -> Any:
    """The checkpoint's own configuration, which shares what it must."""
    if not (Path(checkpoint) / "config.json").is_file():  # transformers would take its defaults
        raise CheckpointError(f"{where}: no config.json there. {ADVICE}")
    found = _from_folder(type(config), where, checkpoint)
    for field, parameter in same.items():
        selector = f"feature_encoder.{name}.{parameter}"
        _compare(where, selector, getattr(config, field), getattr(found, field))
    return found


def _from_folder(kind: Any, where: str, checkpoint: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(checkpoint, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where} can't be loaded: {str(error).splitlines()[0]} {ADVICE}") from error


def _compare(where: str, selector: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise CheckpointError(
            f"{where}: the checkpoint has {found} where {selector} = {wanted}. Bind {selector} = {found}, "
            "or give another checkpoint."
        )


Colours = tuple[float, float, float]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # of every public vision transformer here


@register("feature_encoder", "clip")
class CLIP(nn.Module):
    """CLIP's image tower on each frame by itself: what VTA-LDM hears with.

    The defaults are ViT-L/14's, at VTA-LDM's two frames a second.

    Args:
        dim: Width of a frame's feature, D_v.
        width: Of the transformer.
        layers: Of the transformer.
        frame_rate_hz: Frames a second the encoder is given.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of a CLIP model as transformers saves it, which is then frozen; None trains
            from nothing.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Raises:
        CheckpointError: No such model there, or one of other sizes.

    Example:
        >>> CLIP(dim=8, width=16, layers=1, frame_size=28)(torch.rand(2, 5, 3, 28, 28)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        *,
        dim: int = 768,
        width: int = 1024,
        layers: int = 24,
        frame_rate_hz: float = 2.0,
        frame_size: int = 224,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        self.dim, self.frame_rate_hz, self.frame_size = dim, frame_rate_hz, frame_size
        config = CLIPVisionConfig(
            projection_dim=dim,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=_heads(width),
            image_size=frame_size,
            patch_size=14,
        )
        same = {"projection_dim": "dim", "hidden_size": "width", "num_hidden_layers": "layers"}
        same["image_size"] = "frame_size"
        self.encoder = build(CLIPVisionModelWithProjection, config, checkpoint, "clip", same)
        self.requires_grad_(checkpoint is None)

    def forward(self, video: Tensor) -> Tensor:
        frames = rearrange(_normalised(video, CLIP_MEAN, CLIP_STD), "b l c h w -> (b l) c h w")
        e_v = self.encoder(frames).image_embeds
        return functional.normalize(rearrange(e_v, "(b l) d -> b l d", b=len(video)), dim=-1)


@register("feature_encoder", "videomae")
class VideoMAE(nn.Module):
    """VideoMAE on a few frames at a time; a frame's feature is the mean over its patches.

    The defaults are the base model's. It sees pieces of a fixed number of frames, one after the other, and
    frames in pairs: both of a pair get the same feature. The last piece is filled with the last frame.

    Args:
        dim: Width of a frame's feature, D_v, and of the transformer.
        layers: Of the transformer.
        frames: Of one piece.
        frame_rate_hz: Frames a second the encoder is given.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of a VideoMAE model as transformers saves it, which is then frozen; None trains
            from nothing.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Raises:
        CheckpointError: No such model there, or one of other sizes.

    Example:
        >>> VideoMAE(dim=8, layers=1, frames=4, frame_size=16)(torch.rand(2, 5, 3, 16, 16)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        *,
        dim: int = 768,
        layers: int = 12,
        frames: int = 16,
        frame_rate_hz: float = 8.0,
        frame_size: int = 224,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import VideoMAEConfig, VideoMAEModel

        self.dim, self.frames = dim, frames
        self.frame_rate_hz, self.frame_size = frame_rate_hz, frame_size
        config = VideoMAEConfig(
            hidden_size=dim,
            intermediate_size=4 * dim,
            num_hidden_layers=layers,
            num_attention_heads=_heads(dim),
            num_frames=frames,
            image_size=frame_size,
        )
        same = {"hidden_size": "dim", "num_hidden_layers": "layers", "num_frames": "frames"}
        same["image_size"] = "frame_size"
        self.encoder = build(VideoMAEModel, config, checkpoint, "videomae", same)
        self.requires_grad_(checkpoint is None)

    def forward(self, video: Tensor) -> Tensor:
        whole = _filled(_normalised(video, IMAGENET_MEAN, IMAGENET_STD), self.frames)
        pieces = rearrange(whole, "b (n l) c h w -> (b n) l c h w", l=self.frames)
        patches = self.encoder(pixel_values=pieces).last_hidden_state
        pairs = self.frames // self.encoder.config.tubelet_size
        e_v = reduce(patches, "(b n) (l p) d -> b (n l) d", "mean", b=len(video), l=pairs)
        return _for_each_frame(e_v, video.shape[1], self.encoder.config.tubelet_size)


@register("feature_encoder", "vjepa2")
class VJEPA2(nn.Module):
    """V-JEPA 2's encoder on the whole clip; a frame's feature is the mean over its patches.

    The defaults are ViT-L's at 256 pixels. It sees frames in pairs: both of a pair get the same feature.

    Args:
        dim: Width of a frame's feature, D_v, and of the transformer.
        layers: Of the transformer.
        frame_rate_hz: Frames a second the encoder is given.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of a V-JEPA 2 model as transformers saves it, which is then frozen; None trains
            from nothing.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Raises:
        CheckpointError: No such model there, or one of other sizes.

    Example:
        >>> VJEPA2(dim=16, layers=1, frame_size=32)(torch.rand(2, 5, 3, 32, 32)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        *,
        dim: int = 1024,
        layers: int = 24,
        frame_rate_hz: float = 4.0,
        frame_size: int = 256,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import VJEPA2Config, VJEPA2Model

        self.dim, self.frame_rate_hz, self.frame_size = dim, frame_rate_hz, frame_size
        config = VJEPA2Config(
            hidden_size=dim,
            num_hidden_layers=layers,
            num_attention_heads=_heads(dim),
            crop_size=frame_size,
            pred_num_hidden_layers=1,  # the predictor is left out
        )
        same = {"hidden_size": "dim", "num_hidden_layers": "layers", "crop_size": "frame_size"}
        self.encoder = build(VJEPA2Model, config, checkpoint, "vjepa2", same).encoder
        self.requires_grad_(checkpoint is None)

    def forward(self, video: Tensor) -> Tensor:
        tubelet = self.encoder.config.tubelet_size
        whole = _filled(_normalised(video, IMAGENET_MEAN, IMAGENET_STD), tubelet)
        patches = self.encoder(pixel_values_videos=whole).last_hidden_state
        e_v = reduce(patches, "b (l p) d -> b l d", "mean", l=whole.shape[1] // tubelet)
        return _for_each_frame(e_v, video.shape[1], tubelet)


def _heads(width: int) -> int:
    return max(1, width // HEAD_WIDTH)


def _normalised(video: Tensor, mean: Colours, std: Colours) -> Tensor:
    shift, scale = (video.new_tensor(each).view(3, 1, 1) for each in (mean, std))
    return (video - shift) / scale


def _filled(video: Tensor, multiple: int) -> Tensor:
    """The last frame repeated, until the frames are a multiple."""
    missing = -video.shape[1] % multiple
    return torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)


def _for_each_frame(e_v: Tensor, length: int, times: int) -> Tensor:
    """Features of several frames each -> one a frame, of unit length."""
    return functional.normalize(repeat(e_v, "b l d -> b (l r) d", r=times)[:, :length], dim=-1)
