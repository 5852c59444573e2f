"""VGGish [Hershey et al., 2017] as in torchvggish 0.2: the embedding of FAD."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stav2a.metrics.judges.judge import PublishedJudge, padded
from stav2a.registry import register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

RATE = 16_000
SHORTEST = 400 + 95 * 160  # samples of one window: 96 frames of 25 ms, 10 ms apart


@register("judge", "vggish")
class VGGish(PublishedJudge):
    """VGGish without its last ReLU and without PCA: 128 numbers a window of 0.96 s.

    Args:
        weights: The file vggish-10086976.pth; None looks for it in the folder of all weights.

    Shapes:
        audio (S,) -> (windows, 128); an incomplete last window is left out
    """

    name = "VGGish"
    published = "vggish-10086976.pth"
    source = "github.com/harritaylor/torchvggish (release v0.1)"
    sample_rate = RATE

    @property
    def front_end(self) -> str:
        return "16 kHz, 64 mels of 125 to 7500 Hz, windows of 0.96 s, last ReLU off, no PCA"

    def load(self) -> Any:
        from torch.nn import Sequential

        model = network()
        load_state(model, read(self.file).tensors, f"{self.file}: weights of {self.name}")
        model.embeddings = Sequential(*list(model.embeddings)[:-1])
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        import torch

        found = self.model(torch.cat([examples(sound) for sound in sounds]).to(self.device))
        return np.split(found.cpu().numpy(), len(sounds))


def network() -> Any:
    """VGG of torchvggish, with random weights and its last ReLU."""
    from torchvggish.torchvggish import VGG, make_layers

    return VGG(make_layers(), postprocess=False)


def examples(sound: np.ndarray) -> Any:
    """Log-mel windows of a sound at 16 kHz.

    Shapes:
        (S,) -> (windows, 1, 96, 64)
    """
    from torchvggish.vggish_input import waveform_to_examples

    return waveform_to_examples(padded(sound, SHORTEST), RATE).detach()
