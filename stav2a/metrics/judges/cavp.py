"""CAVP of Diff-Foley [Luo et al., 2023]: agreement of sound and picture, window by window."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.metrics.judges.judge import AudioVisualJudge
from stav2a.registry import get, register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

RATE, WINDOW, HOP, BANDS = 16_000, 1024, 256, 128  # Hz, samples, samples, mels
LOWEST_HZ, HIGHEST_HZ = 125.0, 7600.0
QUIETEST_DB, RANGE_DB = -80.0, 100.0  # decibels of 0, and from 0 to 1
FRAME_RATE_HZ, FRAME_SIZE = 4.0, 224
FRAMES = 16  # of a window, at 4 fps: the largest value of each channel stands for all
SPECTRA = 256  # of a window: 16 of them a frame
POOLED = 16  # spectra that become one step of the sound's features
WIDTHS = (64, 128, 256, 512, 1024, 2048)
DIM = 512


@register("judge", "cavp")
class CAVPJudge(AudioVisualJudge):
    """Both towers of CAVP: embeddings of sound and picture in one space, one a window of 4 s.

    In a window the largest value of each channel is taken, as in CAVP's training. The last window reaches
    back from the end; a shorter clip is one window.

    Args:
        weights: The file cavp_epoch66.ckpt; None looks for it in the folder of all weights.

    Shapes:
        audio (S,) -> (windows, 512); frames (L, 224, 224, 3) at 4 fps -> (windows, 512)
    """

    name = "CAVP"
    published = "cavp_epoch66.ckpt"
    source = "huggingface.co/SimianLuo/Diff-Foley"
    sample_rate = RATE

    @property
    def front_end(self) -> str:
        return "16 kHz, 128 mels of 125 to 7600 Hz; 4 fps at 224 px; windows of 4 s"

    def load(self) -> "CAVPTowers":
        model = CAVPTowers()
        load_state(model, read(self.file, ["state_dict"]).tensors, f"{self.file}: weights of {self.name}")
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        features = self.model.spec_encoder(self.tensor(np.stack([spectrogram(sound) for sound in sounds])))
        return [pooled(each, SPECTRA // POOLED).numpy() for each in features.cpu()]

    def frame_times_s(self, duration_s: float) -> np.ndarray:
        return np.arange(max(1, round(duration_s * FRAME_RATE_HZ))) / FRAME_RATE_HZ

    def fit(self, frame: np.ndarray) -> np.ndarray:
        import cv2

        return cv2.resize(frame, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_LINEAR)

    def watch(self, frames: np.ndarray) -> np.ndarray:
        video = self.tensor(frames).permute(0, 3, 1, 2)[None] / 255
        return pooled(self.model.picture(video)[0].cpu(), FRAMES).numpy()


class CAVPTowers(nn.Module):
    """The towers under the checkpoint's names.

    Args:
        widths: Channels of the sound tower's six blocks.
        dim: Width of the common space.
        video: Sizes of the picture's tower, `feature_encoder.cavp`.
    """

    def __init__(
        self, widths: Sequence[int] = WIDTHS, dim: int = DIM, video: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        tower = get("feature_encoder", "cavp").factory(dim=dim, **(video or {}))
        self.video_encoder, self.video_project_head = tower.video_encoder, tower.video_project_head
        self.spec_encoder = SoundTower(widths, dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))  # of the training's loss

    def picture(self, video: Tensor) -> Tensor:
        """(B, L, 3, H, W) in [0, 1] -> (B, L, D)."""
        return self.video_project_head(self.video_encoder(video.transpose(1, 2)).transpose(1, 2))


class SoundTower(nn.Module):
    """Cnn14 that keeps time: an embedding for every 16 spectra.

    Shapes:
        (B, T, 128) -> (B, T // 16, D)
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(BANDS)
        for number, (before, width) in enumerate(zip((1, *widths), widths, strict=False), start=1):
            self.add_module(f"conv_block{number}", SpectralBlock(before, width))
        self.blocks = len(widths)
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.final_project = nn.Linear(widths[-1], dim)

    def forward(self, spectra: Tensor) -> Tensor:
        x = self.bn(spectra.transpose(1, 2)[..., None]).permute(0, 3, 2, 1)  # (B, 1, T, M)
        for number in range(1, self.blocks + 1):
            x = self.get_submodule(f"conv_block{number}")(x)
            left = self.blocks - number  # the last block pools nothing, the one before only frequencies
            if left:
                x = functional.avg_pool2d(x, (1 if left == 1 else 2, 2))
        x = x.mean(dim=3)  # (B, C, T')
        x = functional.max_pool1d(x, 3, 1, 1) + functional.avg_pool1d(x, 3, 1, 1)
        x = x.transpose(1, 2)
        for _ in range(2):  # the same layer twice, as in the authors' code
            x = functional.relu(self.fc1(x))
        return self.final_project(x)


class SpectralBlock(nn.Module):
    """Two convolutions with batch normalisation and ReLU."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """Mel spectrogram in decibels: 0 at -80 dB and below, 1 at 20 dB and above.

    Shapes:
        (S,) at 16 kHz -> (1 + S // 256, 128), padded with silence to 16 spectra at least
    """
    import librosa

    shortest = HOP * (POOLED - 1)
    padded = np.pad(sound, (0, max(0, shortest - len(sound))))
    mel = librosa.feature.melspectrogram(
        y=padded,
        sr=RATE,
        n_fft=WINDOW,
        hop_length=HOP,
        n_mels=BANDS,
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
        power=1.0,
    )
    decibels = 20 * np.log10(np.maximum(mel, 10 ** (QUIETEST_DB / 20)))
    return np.clip((decibels - QUIETEST_DB) / RANGE_DB, 0.0, 1.0).T.astype(np.float32)


def pooled(features: Tensor, steps: int) -> Tensor:
    """Largest value of each channel in every window; the last window reaches back from the end.

    Shapes:
        (T, D) -> (windows, D)

    Example:
        >>> pooled(torch.tensor([[3.0], [1.0], [2.0], [0.0], [1.0]]), 2)[:, 0].tolist()
        [3.0, 2.0, 1.0]
    """
    windows = list(features.split(steps))
    if len(windows) > 1 and len(windows[-1]) < steps:
        windows[-1] = features[-steps:]
    return torch.stack([window.amax(dim=0) for window in windows])
