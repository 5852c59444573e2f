"""Front ends: the sizes that they promise, by the book."""

import torch

from stav2a.data import mel
from stav2a.data.front_ends import AudioLDMMel


def noise(samples: int) -> torch.Tensor:
    return 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


def test_audioldm_s_is_the_mel_of_its_vocoder():
    front_end, audio = AudioLDMMel(), noise(8000)
    assert torch.equal(front_end(audio), mel.log_mel(audio))
    assert (front_end.sample_rate, front_end.hop, front_end.bins) == (16_000, 160, 64)
