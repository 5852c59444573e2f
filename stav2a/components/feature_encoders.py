"""Feature encoders: one feature of unit length for each video frame."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from stav2a.data.front_ends import AudioLDMMel
from stav2a.registry import register
from stav2a.utils.audio_tower import AudioTower
from stav2a.utils.checkpoints import CheckpointError, load_weights, skips_weights


@register("feature_encoder", "cavp")
class CAVP(nn.Module):
    """Video tower of CAVP: SlowOnly ResNet and a projection of each frame (sec. II-B; Diff-Foley [10]).

    The temporal convolutions of the last two stages span neighbouring frames, so a clip is encoded in one
    call: encoding it in chunks changes the result.

    Args:
        width: Channels of the stem; 64 is ResNet-50's.
        blocks: Bottlenecks in each of the four stages.
        dim: Width of the feature of a frame, D_v.
        frame_rate_hz: Expected frames per second.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of frozen weights; None trains from scratch.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Example:
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


@register("feature_encoder", "cavp_two_towers")
class TwoTowerCAVP(CAVP):
    """CAVP that keeps the sound's tower, which embeds sound in the space of its features (Diff-Foley [10]).

    The video's tower is `feature_encoder.cavp`, which drops the sound's after training. With both a sampler
    can compare a sound with the video (`sampler.similarity_guided`).

    Args:
        width: Channels of the stem; 64 is ResNet-50's.
        blocks: Bottlenecks in each of the four stages.
        dim: Width of the feature of a frame, D_v.
        frame_rate_hz: Expected frames per second.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of frozen weights of both towers; None trains from scratch.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Example:
        >>> encoder = TwoTowerCAVP(width=4, blocks=(1, 1, 1, 1), dim=8)
        >>> encoder.audio_tower(torch.zeros(2, 1, 64, 64), frames=5).shape
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
        super().__init__(
            width=width, blocks=blocks, dim=dim, frame_rate_hz=frame_rate_hz, frame_size=frame_size
        )
        self.audio_tower = AudioTower(AudioLDMMel.bins, dim)
        load_weights(self, checkpoint, parameter="feature_encoder.cavp_two_towers.checkpoint")
        self.requires_grad_(checkpoint is None)


class SlowOnly(nn.Module):
    """ResNet of bottlenecks over (time, height, width), without strides in time."""

    def __init__(self, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = _conv_norm(3, width, (1, 7, 7), stride=2)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.out_dim = width
        for stage, count in enumerate(blocks):
            layer, planes = nn.Sequential(), width * 2**stage
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(Bottleneck(self.out_dim, planes, stride, temporal=stage >= 2))
                self.out_dim = planes * Bottleneck.expansion
            self.add_module(f"layer{stage + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, L, H, W) -> (B, D, L)."""
        conv1, pool, *stages = self.children()
        x = pool(functional.relu(conv1(x)))
        for stage in stages:
            x = stage(x)
        return x.mean(dim=(3, 4))


class Bottleneck(nn.Module):
    """Convolutions of 1x1x1 (3x1x1 where `temporal`), 1x3x3 and 1x1x1, with a residual connection."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, *, temporal: bool) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = _conv_norm(channels, planes, (3 if temporal else 1, 1, 1))
        self.conv2 = _conv_norm(planes, planes, (1, 3, 3), stride=stride)
        self.conv3 = _conv_norm(planes, out, (1, 1, 1))
        changed = stride != 1 or channels != out
        self.downsample = _conv_norm(channels, out, (1, 1, 1), stride=stride) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv1(x))
        y = functional.relu(self.conv2(y))
        return functional.relu(self.conv3(y) + self.downsample(x))


def _conv_norm(channels: int, out: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the length in time, followed by batch normalisation."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv3d(channels, out, kernel, (1, stride, stride), padding, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm3d(out)))


RGB = tuple[float, float, float]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # of all public vision transformers below
ADVICE = "Give a folder with config.json and model.safetensors, or bind None to train from nothing."


class VisionTransformer(nn.Module):
    """Base of the encoders of the transformers library.

    A checkpoint has a configuration of its own, which must share the fields in `sizes`; they are given by the
    component's parameters. Its weights are frozen.

    Raises:
        CheckpointError: The folder holds no such model, a model of other sizes, or only a part of it.
    """

    def __init__(
        self, name: str, model: Any, config: Any, sizes: Mapping[str, str], checkpoint: str | None
    ) -> None:
        super().__init__()
        selector = f"feature_encoder.{name}"
        where = f"{selector}.checkpoint = {checkpoint!r}"

        def from_folder(kind: Any, **options: Any) -> Any:
            try:
                return kind.from_pretrained(checkpoint, local_files_only=True, **options)
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise CheckpointError(f"{where} can't be loaded: {reason}", advice=ADVICE) from error

        def saved_config() -> Any:
            if not (Path(checkpoint or "") / "config.json").is_file():  # transformers would take its defaults
                raise CheckpointError(f"{where}: no config.json there.", advice=ADVICE)
            saved = from_folder(type(config))
            for parameter, field in sizes.items():
                wanted, found = getattr(config, field), getattr(saved, field)
                if wanted != found:
                    raise CheckpointError(
                        f"{where}: the checkpoint has {found} where {selector}.{parameter} = {wanted}.",
                        advice=f"Bind {selector}.{parameter} = {found}, or give another checkpoint.",
                    )
            return saved

        if checkpoint is None or skips_weights(f"{selector}.checkpoint", checkpoint, saved_config):
            self.encoder = model(config)
        else:
            options = {"config": saved_config(), "dtype": torch.float32, "output_loading_info": True}
            self.encoder, loading = from_folder(model, **options)
            if missing := sorted(loading["missing_keys"]):
                raise CheckpointError(
                    f"{where} lacks {len(missing)} of the weights of {model.__name__}, first {missing[0]}.",
                    advice="Give the folder of such a model, as transformers saves it.",
                )
        self.requires_grad_(checkpoint is None)


@register("feature_encoder", "clip")
class CLIP(VisionTransformer):
    """Image tower of CLIP on single frames: the encoder of VTA-LDM.

    The defaults are ViT-L/14's, at the two frames per second of VTA-LDM.

    Args:
        dim: Width of the feature of a frame, D_v.
        width: Transformer hidden size.
        layers: Number of transformer layers.
        frame_rate_hz: Expected frames per second.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of frozen weights of CLIP, as transformers saves it; None trains from scratch.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Raises:
        CheckpointError: The folder holds no such model, or a model of other sizes.

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
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            projection_dim=dim,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=_heads(width),
            image_size=frame_size,
            patch_size=14,
        )
        sizes = {"dim": "projection_dim", "width": "hidden_size", "layers": "num_hidden_layers"}
        sizes["frame_size"] = "image_size"
        super().__init__("clip", CLIPVisionModelWithProjection, config, sizes, checkpoint)
        self.dim, self.frame_rate_hz, self.frame_size = dim, frame_rate_hz, frame_size

    def forward(self, video: Tensor) -> Tensor:
        frames = rearrange(_standardize(video, CLIP_MEAN, CLIP_STD), "b l c h w -> (b l) c h w")
        e_v = self.encoder(frames).image_embeds
        return functional.normalize(rearrange(e_v, "(b l) d -> b l d", b=len(video)), dim=-1)


@register("feature_encoder", "videomae")
class VideoMAE(VisionTransformer):
    """VideoMAE on pieces of a few frames; the feature of a frame is the mean over its patches.

    The defaults are the base model's. The last piece is padded with the last frame. The model encodes
    frames in pairs: both frames of a pair get the same feature.

    Args:
        dim: Width of the feature of a frame, D_v, and transformer hidden size.
        layers: Number of transformer layers.
        frames: Frames of one piece.
        frame_rate_hz: Expected frames per second.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of frozen weights of VideoMAE, as transformers saves it; None trains from scratch.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Raises:
        CheckpointError: The folder holds no such model, or a model of other sizes.

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
        from transformers import VideoMAEConfig, VideoMAEModel

        config = VideoMAEConfig(
            hidden_size=dim,
            intermediate_size=4 * dim,
            num_hidden_layers=layers,
            num_attention_heads=_heads(dim),
            num_frames=frames,
            image_size=frame_size,
        )
        sizes = {"dim": "hidden_size", "layers": "num_hidden_layers", "frames": "num_frames"}
        sizes["frame_size"] = "image_size"
        super().__init__("videomae", VideoMAEModel, config, sizes, checkpoint)
        self.dim, self.frames, self.frame_rate_hz, self.frame_size = dim, frames, frame_rate_hz, frame_size

    def forward(self, video: Tensor) -> Tensor:
        padded = _pad_frames(_standardize(video, IMAGENET_MEAN, IMAGENET_STD), self.frames)
        pieces = rearrange(padded, "b (n l) c h w -> (b n) l c h w", l=self.frames)
        patches = self.encoder(pixel_values=pieces).last_hidden_state
        tubelet = self.encoder.config.tubelet_size
        e_v = reduce(patches, "(b n) (l p) d -> b (n l) d", "mean", b=len(video), l=self.frames // tubelet)
        return _spread(e_v, tubelet, video.shape[1])


@register("feature_encoder", "vjepa2")
class VJEPA2(VisionTransformer):
    """Encoder of V-JEPA 2 on the whole clip; the feature of a frame is the mean over its patches.

    The defaults are ViT-L's at 256 pixels. The model encodes frames in pairs: both frames of a pair get the
    same feature.

    Args:
        dim: Width of the feature of a frame, D_v, and transformer hidden size.
        layers: Number of transformer layers.
        frame_rate_hz: Expected frames per second.
        frame_size: Side of the square frames, in pixels.
        checkpoint: Folder of frozen weights of V-JEPA 2, as transformers saves it; None trains from scratch.

    Shapes:
        video (B, L, 3, H, W), RGB in [0, 1] -> e_v (B, L, D_v), every frame of unit length

    Raises:
        CheckpointError: The folder holds no such model, or a model of other sizes.

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
        from transformers import VJEPA2Config, VJEPA2Model

        config = VJEPA2Config(
            hidden_size=dim,
            num_hidden_layers=layers,
            num_attention_heads=_heads(dim),
            crop_size=frame_size,
            pred_num_hidden_layers=1,  # the predictor is not used
        )
        sizes = {"dim": "hidden_size", "layers": "num_hidden_layers", "frame_size": "crop_size"}
        super().__init__("vjepa2", VJEPA2Model, config, sizes, checkpoint)
        self.encoder = self.encoder.encoder
        self.dim, self.frame_rate_hz, self.frame_size = dim, frame_rate_hz, frame_size

    def forward(self, video: Tensor) -> Tensor:
        tubelet = self.encoder.config.tubelet_size
        padded = _pad_frames(_standardize(video, IMAGENET_MEAN, IMAGENET_STD), tubelet)
        patches = self.encoder(pixel_values_videos=padded).last_hidden_state
        e_v = reduce(patches, "b (l p) d -> b l d", "mean", l=padded.shape[1] // tubelet)
        return _spread(e_v, tubelet, video.shape[1])


def _heads(width: int) -> int:
    return max(1, width // HEAD_WIDTH)


def _standardize(video: Tensor, mean: RGB, std: RGB) -> Tensor:
    shift, scale = (video.new_tensor(each).view(3, 1, 1) for each in (mean, std))
    return (video - shift) / scale


def _pad_frames(video: Tensor, multiple: int) -> Tensor:
    """Repeat the last frame until the number of frames is a multiple."""
    missing = -video.shape[1] % multiple
    return torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)


def _spread(e_v: Tensor, tubelet: int, length: int) -> Tensor:
    """Features of `tubelet` frames each -> a feature of unit length for each of `length` frames."""
    return functional.normalize(repeat(e_v, "b l d -> b (l r) d", r=tubelet)[:, :length], dim=-1)
