"""Weights of the published layouts, with random numbers: deterministic by the name of each tensor."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

KEPT = ("extractor", "position_index", "num_batches_tracked")  # front ends and indices are no weights


def filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random numbers that keep activations alive, the same for a name wherever it stands."""
    return {
        name: tensor if any(k in name for k in KEPT) else _random(name, tensor)
        for name, tensor in tensors.items()
    }


def _random(name: str, tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    numbers = torch.randn(tensor.shape, generator=generator)
    if name == "logit_scale":
        return torch.tensor(2.0)
    if "running_var" in name:
        return (0.1 * numbers).abs() + 1
    if tensor.ndim > 1:
        return numbers * 0.5 / tensor.shape[-1] ** 0.5
    return 0.1 * numbers + (1.0 if name.endswith("weight") else 0.0)


def tokenizer(folder: Path, words: list[str]) -> None:
    """A tokenizer of whole words, as transformers reads it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {word: i for i, word in enumerate(["<pad>", "<unk>", "<|endoftext|>", *words])}
    plain = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", pad_token="<pad>", eos_token="<|endoftext|>"
    )
    made.save_pretrained(folder)
