"""A recipe's model without memory: all shapes, no numbers, and a list of the weights that it asks for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stav2a import recipe, registry
from stav2a.assembly import STAV2A, assemble
from stav2a.audit.counting import CAPTION_TOKENS
from stav2a.checkpoints import Asked, CheckpointError, left_out, no_weights

ASSUMED_WIDTH = 1024  # of mt5-large and Flan-T5-large, the paper's text encoder and Tango's
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "spiece.model")


def skeleton(factories: Mapping[str, Callable[..., Any]], *, duration_s: float) -> tuple[STAV2A, list[Asked]]:
    """The assembled model on the meta device, and the weights that a run would load.

    Args:
        factories: A component factory for each slot of `BLOCKS`, as a recipe gives them.
        duration_s: Seconds of one clip.

    Raises:
        RegistryError: The components do not go together.
        UsageError: The duration does not make a whole number of latent frames.
    """
    made = {**factories, "text_encoder": _text(factories["text_encoder"])}
    with no_weights() as asked, torch.device("meta"):
        return assemble(made, duration_s=duration_s), asked


class TextStandIn(nn.Module):
    """In place of a pretrained text encoder: as large as its folder says, where there is one.

    Args:
        stands_for: The class of the encoder.
        parameter: The recipe's name of `checkpoint`.
        checkpoint: Folder or hub name.
        max_length: Tokens a caption at most.
    """

    def __init__(self, stands_for: str, parameter: str, checkpoint: str, max_length: int) -> None:
        super().__init__()
        self.stands_for, self.max_length = stands_for, max_length
        self.dim, self.size_unknown = ASSUMED_WIDTH, True
        left_out(parameter, checkpoint, partial(self._fill, f"{parameter} = {checkpoint!r}", checkpoint))

    def _fill(self, told: str, checkpoint: str) -> None:
        from transformers import AutoConfig, AutoModelForTextEncoding

        try:
            config = AutoConfig.from_pretrained(_folder(checkpoint), local_files_only=True)
            self.encoder: Any = AutoModelForTextEncoding.from_config(config).requires_grad_(False)
        except (OSError, ValueError):
            raise CheckpointError(
                f"{told}: size unknown without its folder, which is neither here nor in the hub's cache "
                f"(tokens of width {ASSUMED_WIDTH} are assumed, as mt5-large and Flan-T5-large have). "
                "Give the folder of a text encoder, as transformers saves it."
            ) from None
        self.dim, self.size_unknown = config.hidden_size, False
        folder = Path(checkpoint)
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER):
            raise CheckpointError(f"{told}: no tokenizer there. Put the tokenizer's files into that folder.")


def _folder(checkpoint: str) -> Path:
    """The folder itself, or where the hub's cache has it; transformers would ask the network for the latter.

    Raises:
        FileNotFoundError: It is neither.
        ValueError: It is no folder, and can't be a name.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    found = try_to_load_from_cache(checkpoint, "config.json")
    if not isinstance(found, str):
        raise FileNotFoundError(checkpoint)
    return Path(found).parent


def _text(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The factory, or what to build instead of an encoder that can't be made without its folder."""
    entry = registry.entry_of(factory)
    checkpoint = entry.settable.get("checkpoint") if entry else None
    if entry is None or checkpoint is None or checkpoint.default is None:
        return factory
    given = recipe.describe(factory)["parameters"]
    return partial(
        TextStandIn,
        getattr(entry.factory, "__name__", entry.name),
        f"{entry.selector}.checkpoint",
        given["checkpoint"],
        given.get("max_length", CAPTION_TOKENS),
    )
