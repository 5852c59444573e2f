"""PaSST [Koutini et al., 2022], a spectrogram transformer of AudioSet: a classifier of av-benchmark's.

Names and shapes of tensors, and the numbers of the front end, are those of the package hear21passt 0.0.26;
with equal random weights both give the same numbers (docs/metrics.md).
"""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from stav2a.metrics.judges.judge import PublishedJudge, padded, records
from stav2a.registry import register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

RATE, LONGEST_S = 32_000, 10
WINDOW, HOP, BINS, MELS, HIGHEST_HZ = 800, 320, 1024, 128, 15_000
EMPHASIS, FLOOR = 0.97, 1e-5
SHIFT, SCALE = 4.5, 5.0  # of the log-mels
PATCH, STRIDE = 16, 10
CLASSES, WIDTH, DEPTH, HEADS = 527, 768, 12, 12
OUTPUTS = np.dtype([("embedding", np.float32, WIDTH), ("logits", np.float32, CLASSES)])

# hear21passt's names -> those of torch's encoder layer; both keep queries, keys and values in one tensor.
RENAMED = (
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"blocks.\1.self_attn.in_proj_"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"blocks.\1.self_attn.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc", r"blocks.\1.linear"),
)
UNNEEDED = ("head_dist.weight", "head_dist.bias")  # a head of training, which the published model doesn't use


@register("judge", "passt")
class PaSST(PublishedJudge):
    """PaSST-S of AudioSet, 10 s at 32 kHz: an embedding of 768 numbers and 527 logits.

    As in av-benchmark, a sound loses its mean, is cut to its first 10 s, and a shorter one is filled up with
    silence.

    Args:
        weights: The file passt-s-f128-p16-s10-ap.476-swa.pt; None looks for it in the folder of all weights.

    Shapes:
        audio (S,) -> a record (): embedding (768,), logits (527,)
    """

    name = "PaSST"
    published = "passt-s-f128-p16-s10-ap.476-swa.pt"
    source = "github.com/kkoutini/PaSST (release v0.0.1-audioset)"
    sample_rate = RATE

    @property
    def front_end(self) -> str:
        return f"32 kHz, no mean, the first {LONGEST_S} s, zero-padded, {MELS} mels of 0 to {HIGHEST_HZ} Hz"

    def load(self) -> "PatchTransformer":
        model = PatchTransformer()
        load_state(model, renamed(read(self.file, ["model"]).tensors), f"{self.file}: weights of {self.name}")
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        centred = np.stack([sound - sound.mean() for sound in sounds])
        first = self.tensor(padded(centred[:, : LONGEST_S * RATE], LONGEST_S * RATE))
        return records(OUTPUTS, *self.model(torch.stack([log_mels(sound) for sound in first])))


class PatchTransformer(nn.Module):
    """Transformer of overlapping patches of a log-mel picture, with a place for each row and each column.

    Its embedding is the mean of two tokens, one of the class and one of distillation.

    Args:
        frames: Frames of the picture; each column of patches has a place of its own.
        width: Width of the tokens.
        depth: Number of layers.
        heads: Number of attention heads.
        classes: Number of classes.

    Shapes:
        (B, 128, frames) -> embeddings (B, width), logits (B, classes)
    """

    def __init__(
        self,
        *,
        frames: int = LONGEST_S * RATE // HOP,
        width: int = WIDTH,
        depth: int = DEPTH,
        heads: int = HEADS,
        classes: int = CLASSES,
    ) -> None:
        super().__init__()
        rows, columns = ((size - PATCH) // STRIDE + 1 for size in (MELS, frames))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, PATCH, stride=STRIDE)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, width))  # of the two tokens
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, width, rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, width, 1, columns))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-6,
                batch_first=True, norm_first=True,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.patch_embed["proj"](mels[:, None]) + self.time_new_pos_embed + self.freq_new_pos_embed
        tokens = torch.cat((self.cls_token, self.dist_token), dim=1) + self.new_pos_embed
        x = torch.cat((tokens.expand(len(mels), -1, -1), patches.flatten(2).transpose(1, 2)), dim=1)
        for block in self.blocks:
            x = block(x)
        embedding = self.norm(x[:, :2]).mean(dim=1)
        return embedding, self.head(embedding)


def log_mels(sound: Tensor) -> Tensor:
    """Log-mel picture of a sound at 32 kHz, about within -1.4 and 2.

    Shapes:
        (S,) -> (128, (S - 1) // 320 + 1)
    """
    emphasised = sound[1:] - EMPHASIS * sound[:-1]
    window = torch.hann_window(WINDOW, periodic=False, device=sound.device)
    spectrum = torch.stft(emphasised, BINS, HOP, WINDOW, window, center=True, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(dim=-1)
    return ((mel_bank().to(sound.device) @ power + FLOOR).log() + SHIFT) / SCALE


@functools.cache
def mel_bank() -> Tensor:
    """Kaldi's triangular filters, drawn on the mel scale.

    Shapes:
        -> (128, 513)
    """
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=BINS // 2 + 1,
        num_mel_filters=MELS,
        min_frequency=0.0,
        max_frequency=HIGHEST_HZ,
        sampling_rate=RATE,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(bank.T.astype(np.float32))


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under the names of `PatchTransformer`."""
    found = {}
    for name, tensor in tensors.items():
        if name in UNNEEDED:
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found
