"""Local heads: video features on the time axis of the latent, the temporal condition (sec. II-B1)."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import RegistryError, register
from stav2a.utils.checkpoints import load_weights


@register("local_head", "none")
class NoLocalHead(nn.Module):
    """No temporal condition: zero channels for every latent frame.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, 0)
    """

    dim = 0

    def __init__(self, in_dim: int, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, e_v: Tensor) -> Tensor:
        return e_v.new_zeros(e_v.shape[0], self.length, 0)


@register("local_head", "linear")
class LinearHead(nn.Module):
    """Features of the encoder, resampled and projected: the plain "CN" of Table III.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.
        dim: Width of the local features, D_l.

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, D_l)

    Example:
        >>> LinearHead(in_dim=8, length=10, dim=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 10, 4])
    """

    def __init__(self, in_dim: int, length: int, *, dim: int = 128) -> None:
        super().__init__()
        self.dim, self.length = dim, length
        self.project = nn.Linear(in_dim, dim)
        nn.init.normal_(self.project.weight)  # maps features of unit length to unit variance

    def forward(self, e_v: Tensor) -> Tensor:
        return self.project(resample(e_v, self.length))


@register("local_head", "onset")
class OnsetHead(nn.Module):
    """Local features learned by predicting the onsets of the sound from the video (sec. II-B1, eq. 1).

    The features are resampled to the length of the latent, narrowed, and concatenated with their means over
    expanding context windows; a linear layer on top gives the onset logits of the pretext task.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.
        dim_per_window: Width of the narrowed features and of the mean of each window.
        windows: Half-widths w of the context windows, in latent frames: mean of x[i-w : i+w].

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, D_l) with D_l = dim_per_window * (1 + len(windows))

    Example:
        >>> OnsetHead(in_dim=8, length=10, dim_per_window=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 10, 20])
    """

    def __init__(
        self, in_dim: int, length: int, *, dim_per_window: int = 128, windows: tuple[int, ...] = (1, 2, 4, 8)
    ) -> None:
        super().__init__()
        _check(windows, "local_head.onset.windows")
        self.length, self.windows = length, windows
        self.dim = dim_per_window * (1 + len(windows))
        self.narrow = nn.Sequential(
            nn.Linear(in_dim, 2 * dim_per_window),
            nn.GELU(),
            nn.Linear(2 * dim_per_window, dim_per_window),
            nn.GELU(),
        )
        self.onset = nn.Linear(self.dim, 1)

    def forward(self, e_v: Tensor) -> Tensor:
        return with_window_means(self.narrow(resample(e_v, self.length)), self.windows)

    def onset_logits(self, e_v: Tensor) -> Tensor:
        """e_v (B, L, D_v) -> logits (B, T) of an onset in each latent frame."""
        return self.onset(self(e_v)).squeeze(-1)


@register("local_head", "onset_track")
class OnsetTrackHead(nn.Module):
    """Predicted times of the onsets: 1 in their latent frames, 0 elsewhere.

    The temporal condition of FoleyCrafter (Zhang et al. 2024), which marks sounding intervals. The detector
    is that of `local_head.onset`. The threshold passes no gradient: only the onset stage trains it.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.
        dim_per_window: Width of the detector's narrowed features and of the mean of each window.
        windows: Half-widths w of the context windows, in latent frames: mean of x[i-w : i+w].

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, 1)

    Example:
        >>> OnsetTrackHead(in_dim=8, length=10, dim_per_window=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 10, 1])
    """

    dim = 1

    def __init__(
        self, in_dim: int, length: int, *, dim_per_window: int = 128, windows: tuple[int, ...] = (1, 2, 4, 8)
    ) -> None:
        super().__init__()
        _check(windows, "local_head.onset_track.windows")
        self.detector = OnsetHead(in_dim, length, dim_per_window=dim_per_window, windows=windows)

    def forward(self, e_v: Tensor) -> Tensor:
        return (self.onset_logits(e_v) > 0).to(e_v.dtype).unsqueeze(-1)

    def onset_logits(self, e_v: Tensor) -> Tensor:
        """e_v (B, L, D_v) -> logits (B, T) of an onset in each latent frame."""
        return self.detector.onset_logits(e_v)


@register("local_head", "nearest")
class NearestHead(nn.Module):
    """Features of the encoder, upsampled by repetition: the input of the released plain "CN".

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.
        upsampling: Latent frames per video frame; 6.25 is the release's 25 Hz over 4 Hz.

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, D_v)

    Example:
        >>> head = NearestHead(in_dim=1, length=7, upsampling=2.0)
        >>> head(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten().tolist()
        [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    """

    def __init__(self, in_dim: int, length: int, *, upsampling: float = 6.25) -> None:
        super().__init__()
        self.dim, self.length, self.upsampling = in_dim, length, upsampling

    def forward(self, e_v: Tensor) -> Tensor:
        return upsample(e_v, self.length, self.upsampling, parameter="local_head.nearest.upsampling")


@register("local_head", "onset_released")
class ReleasedOnsetHead(nn.Module):
    """The onset head as released: context windows at the frame rate of the video, before upsampling.

    Here e_lv is the hidden layer of an onset classifier of two classes: no onset, onset.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        length: Latent frames, T. Wired.
        dim: Width of the local features, D_l, and of the mean of each window.
        windows: Half-widths w of the context windows, in video frames: mean of x[i-w : i+w].
        upsampling: Latent frames per video frame; 6.25 is the release's 25 Hz over 4 Hz.
        checkpoint: Folder of frozen weights; None trains from scratch.

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T, D_l)

    Example:
        >>> ReleasedOnsetHead(in_dim=8, length=32, dim=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 32, 4])
    """

    def __init__(
        self,
        in_dim: int,
        length: int,
        *,
        dim: int = 128,
        windows: tuple[int, ...] = (1, 2, 4, 8),
        upsampling: float = 6.25,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        _check(windows, "local_head.onset_released.windows")
        self.dim, self.length, self.windows, self.upsampling = dim, length, windows, upsampling
        self.fc1 = nn.Linear(in_dim, 2 * dim)
        self.fc2 = nn.Linear(2 * dim, 2 * dim)
        self.fc3 = nn.Linear(2 * dim, dim)
        self.fc4 = nn.Linear(dim, dim)
        self.l1 = nn.Linear(dim * (1 + len(windows)), dim)
        self.l2 = nn.Linear(dim, 2)
        load_weights(self, checkpoint, parameter="local_head.onset_released.checkpoint")
        self.requires_grad_(checkpoint is None)

    def forward(self, e_v: Tensor) -> Tensor:
        parameter = "local_head.onset_released.upsampling"
        x = upsample(self.context(e_v), self.length, self.upsampling, parameter=parameter)
        return functional.silu(self.l1(x))

    def context(self, e_v: Tensor) -> Tensor:
        """e_v (B, L, D_v) -> narrowed features and their window means (B, L, dim * (1 + windows))."""
        x = functional.gelu(self.fc1(e_v))
        x = functional.gelu(self.fc2(x))
        return with_window_means(self.fc4(functional.gelu(self.fc3(x))), self.windows)

    def class_logits(self, e_v: Tensor) -> Tensor:
        """e_v (B, L, D_v) -> logits (B, T, 2) of no onset and of an onset in each latent frame."""
        return self.l2(self(e_v))

    def onset_logits(self, e_v: Tensor) -> Tensor:
        """e_v (B, L, D_v) -> logits (B, T) of an onset in each latent frame.

        The cross entropy of two classes is the binary cross entropy of the difference of their logits, so
        the onset stage trains this head with the loss of the release.
        """
        no_onset, onset = self.class_logits(e_v).unbind(dim=-1)
        return onset - no_onset


def resample(x: Tensor, length: int) -> Tensor:
    """(B, L, D) -> (B, length, D), linear in time; unchanged where the length is the same."""
    if x.shape[1] == length:
        return x
    y = functional.interpolate(rearrange(x, "b l d -> b d l"), size=length, mode="linear")
    return rearrange(y, "b d t -> b t d")


def window_mean(x: Tensor, w: int) -> Tensor:
    """Mean of x[max(i - w, 0) : min(i + w, T)] for every frame i of x (B, T, D)."""
    total = functional.pad(x.cumsum(dim=1), (0, 0, 1, 0))  # total[i] = x[0] + … + x[i - 1]
    i = torch.arange(x.shape[1], device=x.device)
    start, end = (i - w).clamp(min=0), (i + w).clamp(max=x.shape[1])
    return (total[:, end] - total[:, start]) / (end - start).unsqueeze(-1)


def with_window_means(x: Tensor, windows: tuple[int, ...]) -> Tensor:
    """x (B, T, D) and its window means, concatenated: (B, T, D * (1 + len(windows)))."""
    return torch.cat([x, *(window_mean(x, w) for w in windows)], dim=-1)


def upsample(x: Tensor, length: int, upsampling: float, *, parameter: str) -> Tensor:
    """(B, L, D) -> (B, length, D): frame i is x[floor(i / upsampling)], and the last one beyond the end.

    Raises:
        RegistryError: L * upsampling differs from the length by more than one frame of the video.
    """
    made = x.shape[1] * upsampling
    if abs(length - made) > upsampling + 1:
        raise RegistryError(
            f"{parameter} = {upsampling} makes {made:g} latent frames of {x.shape[1]} video frames, but the "
            f"latent has {length}.",
            advice=f"Bind {parameter} = {length / x.shape[1]:g}, the latent's frame rate over the video's.",
        )
    i = torch.arange(length, dtype=torch.float64, device=x.device)
    source = (i / upsampling + 1e-9).long()  # rounding may give 2.999… for 3
    return x[:, source.clamp(max=x.shape[1] - 1)]


def _check(windows: tuple[int, ...], parameter: str) -> None:
    if any(w < 1 for w in windows):
        raise RegistryError(f"{parameter} = {windows}: a half-width must be 1 or more.")
