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


def read_texts(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """What `pack_texts` made."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        captions = json.loads(file.metadata()["captions"])
        ends = np.cumsum(file.get_tensor("lengths"))
        return captions, np.split(file.get_tensor("e_text"), ends[:-1])
