"""Text embeddings, once for each distinct caption, one caption at a time."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from stav2a.data.cache.texts import TEXTS_IN_A_FILE, pack_texts
from stav2a.prepare.folder import Folder
from stav2a.prepare.local import one_thread
from stav2a.prepare.stages import half
from stav2a.processes import device


def make_texts(folder: Folder, encoder: Any) -> None:
    """Encode all captions of the plan; files that are there are left.

    Args:
        folder: Where to.
        encoder: With its weights.
    """
    bar = tqdm(desc="encoding captions", unit="caption", disable=None)
    with one_thread(), bar:
        for number, captions in enumerate(_groups(folder.plan.captions(), TEXTS_IN_A_FILE)):
            if not folder.text(number).exists():
                folder.write(folder.text(number), pack_texts(captions, [embed(encoder, c) for c in captions]))
            bar.update(len(captions))


def embed(encoder: Any, caption: str) -> np.ndarray:
    """The tokens of one caption that count: (K, D) float16."""
    import torch

    with torch.no_grad():
        e_text, mask = encoder.to(device())([caption])
    return half("e_text", e_text[0][mask[0]])


def _groups(captions: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for caption in captions:
        group.append(caption)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
