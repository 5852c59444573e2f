"""Condition fusers: joining text and video tokens for cross attention."""

import torch
from torch import Tensor, nn

from stav2a.registry import RegistryError, register
from stav2a.utils.errors import check_bounds


@register("condition_fuser", "concat")
class Concat(nn.Module):
    """Text tokens followed by video tokens (sec. II-C2, eq. 5). Video tokens are never masked.

    Args:
        cond_dim: Width of the tokens, D_c. Wired.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0+K, D_c), mask (B, K0+K)

    Example:
        >>> text, mask, video = torch.zeros(1, 3, 8), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 2, 8)
        >>> c, mask = Concat(cond_dim=8)(text, mask, video)
        >>> c.shape, mask.tolist()
        (torch.Size([1, 5, 8]), [[False, False, False, True, True]])
    """

    def __init__(self, cond_dim: int) -> None:
        super().__init__()

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([e_text, e_gv], dim=1), torch.cat([mask, mask.new_ones(e_gv.shape[:2])], dim=1)


@register("condition_fuser", "video_first")
class VideoFirst(nn.Module):
    """Video tokens followed by text tokens: for backbones that attend to the two apart.

    The place of the video tokens does not depend on the length of the text, nor on its padding.

    Args:
        cond_dim: Width of the tokens, D_c. Wired.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K+K0, D_c), mask (B, K+K0)
    """

    video_first = True

    def __init__(self, cond_dim: int) -> None:
        super().__init__()

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([e_gv, e_text], dim=1), torch.cat([mask.new_ones(e_gv.shape[:2]), mask], dim=1)


@register("condition_fuser", "video_only")
class VideoOnly(nn.Module):
    """Video tokens alone: the text is left out, in training and in sampling (Diff-Foley, Luo et al. 2023).

    Guidance has no effect then, as both of its branches are the same.

    Args:
        cond_dim: Width of the tokens, D_c. Wired.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K, D_c), mask (B, K)

    Raises:
        RegistryError: There are no video tokens.
    """

    def __init__(self, cond_dim: int) -> None:
        super().__init__()

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        _check_tokens("video_only", e_gv)
        return e_gv, mask.new_ones(e_gv.shape[:2])


@register("condition_fuser", "sum")
class Sum(nn.Module):
    """Sum of the video tokens added to every unmasked text token; the number of tokens stays the text's.

    Args:
        cond_dim: Width of the tokens, D_c. Wired.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0, D_c), mask (B, K0)

    Example:
        >>> text, mask, video = torch.zeros(1, 2, 1), torch.tensor([[True, False]]), torch.ones(1, 4, 1)
        >>> c, mask = Sum(cond_dim=1)(text, mask, video)
        >>> c.flatten().tolist(), mask.tolist()
        ([4.0, 0.0], [[True, False]])
    """

    def __init__(self, cond_dim: int) -> None:
        super().__init__()

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        return e_text + mask.unsqueeze(-1) * e_gv.sum(dim=1, keepdim=True), mask


@register("condition_fuser", "cross_attention")
class TextToVideoAttention(nn.Module):
    """Text tokens that attend to the video tokens (as the visual-aligned text of T2AV, Mo et al. 2024).

    What they find is added to them and starts at zero, so that the denoiser first reads the text alone.

    Args:
        cond_dim: Width of the tokens, D_c. Wired.
        heads: Number of attention heads; a divisor of the width of the tokens.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0, D_c), mask (B, K0)

    Raises:
        RegistryError: The heads do not divide the width, or there are no video tokens.
        UsageError: There are no heads.
    """

    def __init__(self, cond_dim: int, *, heads: int = 8) -> None:
        super().__init__()
        check_bounds("condition_fuser.cross_attention.heads", heads, 1)
        if cond_dim % heads:
            raise RegistryError(
                f"condition_fuser.cross_attention.heads = {heads} does not divide {cond_dim}, the tokens' "
                "width.",
                advice="Bind condition_fuser.cross_attention.heads = "
                f"{max(n for n in range(1, heads) if cond_dim % n == 0)}.",
            )
        self.norm_text, self.norm_video = nn.LayerNorm(cond_dim), nn.LayerNorm(cond_dim)
        self.attention = nn.MultiheadAttention(cond_dim, heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        _check_tokens("cross_attention", e_gv)
        video = self.norm_video(e_gv)
        return e_text + self.attention(self.norm_text(e_text), video, video, need_weights=False)[0], mask


def _check_tokens(name: str, e_gv: Tensor) -> None:
    if not e_gv.shape[1]:
        raise RegistryError(
            f"condition_fuser.{name} needs video tokens, and run.global_pooler = @global_pooler.none gives "
            "none.",
            advice="Bind run.global_pooler = @global_pooler.frames, or another pooler.",
        )
