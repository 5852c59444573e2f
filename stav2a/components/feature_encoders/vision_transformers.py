"""Public vision transformers as feature encoders: CLIP, VideoMAE and V-JEPA 2, all by transformers.

Each has its own normalisation of colours inside. Frames are squashed to its square, like CAVP's, where
the public processors crop. Features have unit length, like CAVP's, which heads and poolers count on.
"""

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from stav2a.components.feature_encoders.loading import build
from stav2a.registry import register

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
