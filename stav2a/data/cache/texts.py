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
    """What `pack_texts` made; embeddings stay on disk until one is asked for.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        file = safe_open(path, framework="np")
        self.captions: list[str] = json.loads(file.metadata()["captions"])
        self._ends = np.cumsum(file.get_tensor("lengths")).tolist()
        self._tokens = file.get_slice("e_text")

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, place: int) -> np.ndarray:
        if place >= len(self):
            raise IndexError(place)
        return self._tokens[self._ends[place - 1] if place else 0 : self._ends[place]]
