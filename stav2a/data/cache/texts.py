"""Embeddings of distinct captions: ragged, so that no caption's depends on its neighbours' lengths."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

TEXTS_IN_A_FILE = 256


def pack_texts(captions: Sequence[str], embeddings: Sequence[np.ndarray]) -> bytes:
    """The content of a file: all tokens one after the other, and how many each caption has.

    Shapes:
        embeddings (K_i, D) each
    """
    lengths = np.array([len(each) for each in embeddings], np.int64)
    told = json.dumps(list(captions))
    return save({"e_text": np.concatenate(embeddings), "lengths": lengths}, {"captions": told})


class PackedTexts:
    """What `pack_texts` made; embeddings stay on disk until one is asked for, by its number.

    Args:
        path: The file.

    Shapes:
        a number -> (K_i, D) float16
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        file = safe_open(path, framework="np")
        self._ends = np.cumsum(file.get_tensor("lengths")).tolist()
        self._tokens = file.get_slice("e_text")

    def __getitem__(self, place: int) -> np.ndarray:
        return self._tokens[self._ends[place - 1] if place else 0 : self._ends[place]]
