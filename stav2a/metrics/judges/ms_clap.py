"""Microsoft's CLAP of 2023 [Elizalde et al.], the judge of PAM.

The package msclap can't be installed beside numpy 2. Its parts are in other packages: the audio tower is
HTS-AT, as in transformers' CLAP; the text tower is GPT-2; the front end is torchlibrosa's. With equal random
weights they agree with msclap 1.3.4 to 4e-6 (docs/metrics.md).
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stav2a.metrics.judges.judge import TokenizerBeside, tokenizer_in
from stav2a.registry import register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

RATE, WINDOW, HOP, MELS = 44_100, 1024, 320, 64
MEL_RATE, LOWEST_HZ, HIGHEST_HZ = 32_000, 50, 14_000  # HTS-AT's own: sound at 44.1 kHz is taken for 32 kHz
AUDIO_WIDTH, TEXT_WIDTH, WIDTH = 768, 768, 1024
FRAMES = 1024  # that HTS-AT's picture holds
PART, STEP = 689, 344  # frames: longer sounds are taken in parts, whose embeddings are averaged
END = " <|endoftext|>"

# msclap's names -> transformers'.
RENAMED = (
    (r"^audio_encoder\.base\.htsat\.(spectrogram_extractor|logmel_extractor)\.", r"front_end.\1."),
    (r"^audio_encoder\.base\.htsat\.", "tower."),
    (r"^audio_encoder\.projection\.", "audio_projection."),
    (r"^caption_encoder\.base\.", "text."),
    (r"^caption_encoder\.projection\.", "text_projection."),
    (r"^(tower\..*)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"^(tower\..*)\.attn\.", r"\1.attention.self."),
    (r"^(tower\..*)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(tower\..*)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^(tower\..*)\.norm1\.", r"\1.layernorm_before."),
    (r"^(tower\..*)\.norm2\.", r"\1.layernorm_after."),
    (r"^tower\.bn0\.", "tower.batch_norm."),
)

# Class heads that no embedding needs, and masks that every version makes for itself.
UNNEEDED = re.compile(r"htsat\.(tscam_conv|head)\.|\.attn_mask$|\.attn\.(bias|masked_bias)$")


@register("judge", "ms_clap")
class MSClap(TokenizerBeside):
    """MS-CLAP 2023: an embedding of sounds and texts in one space.

    Args:
        weights: The file CLAP_weights_2023.pth, with a folder gpt2 beside it that holds GPT-2's tokenizer;
            None looks for both in the folder of all weights.
        segment_s: Length of the segments that sounds are taken in, in seconds, the last one from the end on,
            shorter sounds repeated: 7 as by PAM's authors, 10 as in the paper's code.

    Shapes:
        audio (S,) -> (segments, 1024)
    """

    name = "MS-CLAP 2023"
    published = "CLAP_weights_2023.pth"
    source = "huggingface.co/microsoft/msclap"
    sample_rate = RATE
    tokenizer_name, tokenizer_source = "gpt2", "huggingface.co/openai-community/gpt2"

    def __init__(self, *, weights: str | None = None, segment_s: float = 7.0) -> None:
        super().__init__(weights=weights)
        self.segment_s = segment_s

    @property
    def front_end(self) -> str:
        return f"44.1 kHz, segments of {self.segment_s:g} s, 64 mels"

    def load(self) -> "Towers":
        model = Towers()
        tensors = renamed(read(self.file, ["model"]).tensors)
        load_state(model, tensors, f"{self.file}: weights of {self.name}")
        return model

    @functools.cached_property
    def tokenizer(self) -> Any:
        return tokenizer_in(self.tokenizer_folder)

    def prepare(self) -> None:
        super().prepare()
        self.tokenizer  # noqa: B018

    @property
    def scale(self) -> float:
        """Factor of the cosines before softmax."""
        return float(self.model.logit_scale.detach().exp())

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        parts = np.concatenate([segments(sound, round(self.segment_s * RATE)) for sound in sounds])
        return np.split(self.model.features(self.tensor(parts)).cpu().numpy(), len(sounds))

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts.

        Shapes:
            N texts -> (N, 1024)
        """
        with torch.no_grad():
            tokens = [self.tokenizer(text + END, return_tensors="pt")["input_ids"] for text in texts]
            return torch.cat([self.model.read(ids.to(self.device)) for ids in tokens]).cpu().numpy()


class Projection(nn.Module):
    """Projection from a tower's width to the common one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, WIDTH, bias=False)
        self.linear2 = nn.Linear(WIDTH, WIDTH, bias=False)
        self.layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        first = self.linear1(x)
        return self.layer_norm(first + self.linear2(nn.functional.gelu(first)))


class Towers(nn.Module):
    """Audio and text tower, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        from torchlibrosa.stft import LogmelFilterBank, Spectrogram
        from transformers import ClapAudioConfig, GPT2Config, GPT2Model
        from transformers.models.clap.modeling_clap import ClapAudioEncoder

        self.front_end = nn.ModuleDict(
            {
                "spectrogram_extractor": Spectrogram(n_fft=WINDOW, hop_length=HOP),
                "logmel_extractor": LogmelFilterBank(
                    sr=MEL_RATE, n_fft=WINDOW, n_mels=MELS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, top_db=None
                ),
            }
        )
        self.tower = ClapAudioEncoder(ClapAudioConfig(num_mel_bins=MELS))
        self.audio_projection = Projection(AUDIO_WIDTH)
        self.text = GPT2Model(GPT2Config())
        self.text_projection = Projection(TEXT_WIDTH)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def features(self, sounds: Tensor) -> Tensor:
        """(B, S) at 44.1 kHz -> (B, 1024)."""
        mels = self.front_end["logmel_extractor"](self.front_end["spectrogram_extractor"](sounds))
        frames = mels.shape[2]
        if frames <= FRAMES:
            parts = [mels]
        else:
            parts = [mels[:, :, start : start + PART] for start in range(0, frames - PART - 1, STEP)]
        pooled = torch.stack([self.tower(part).pooler_output for part in parts]).mean(dim=0)
        return self.audio_projection(pooled)

    def read(self, tokens: Tensor) -> Tensor:
        """(B, K) tokens, the end last -> (B, 1024)."""
        return self.text_projection(self.text(tokens).last_hidden_state[:, -1])


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under transformers' names, with queries, keys and values apart."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if UNNEEDED.search(name):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".attention.self.qkv." in name:
            for part, own in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[name.replace("qkv", part)] = own
        else:
            found[name] = tensor
    return found


def segments(sound: np.ndarray, samples: int) -> np.ndarray:
    """Equal segments of a sound: repeated if it is shorter; the last segment reaches back from the end.

    Shapes:
        (S,) -> (parts, samples)

    Example:
        >>> segments(np.arange(5.0), 2).tolist(), segments(np.arange(2.0), 3).tolist()
        ([[0.0, 1.0], [2.0, 3.0], [3.0, 4.0]], [[0.0, 1.0, 0.0]])
    """
    if len(sound) <= samples:
        return np.resize(sound, samples)[None]
    whole = len(sound) // samples
    parts = list(sound[: whole * samples].reshape(whole, samples))
    return np.stack(parts + ([sound[-samples:]] if len(sound) % samples else []))
