"""The branches of guidance differ in the text alone: until it is first heard, one computation serves both.

The latent goes in once, and is doubled where the first attention over the tokens is near; skips from before
that place are doubled where they are used.
"""

from typing import Any

import torch
from torch import Tensor, nn


def part_late(network: Any) -> None:
    """Let a U-Net or ControlNet of diffusers take one latent for both branches' tokens."""
    for block in [*network.down_blocks, network.mid_block]:
        if getattr(block, "attentions", None):
            block.attentions[0] = Parting(block.attentions[0])
            break
    for i, block in enumerate(getattr(network, "up_blocks", ())):
        network.up_blocks[i] = Joining(block)


class Parting(nn.Module):
    """In the place of the first transformer that hears the text: doubles the latents where there are two.

    The latents attend to themselves before they hear the text, so that this serves both branches as well.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.alike = Alike(transformer.transformer_blocks[0].attn1)
        transformer.transformer_blocks[0].attn1 = self.alike

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **named: Any) -> Any:
        self.alike.rows = len(hidden_states)
        hidden_states = as_many(hidden_states, encoder_hidden_states)
        return self.transformer(hidden_states, encoder_hidden_states=encoder_hidden_states, **named)


class Alike(nn.Module):
    """In the place of a self-attention whose input is the same for both branches: computes one of them."""

    rows: int

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, hidden_states: Tensor, **named: Any) -> Tensor:
        return as_many(self.attention(hidden_states[: self.rows], **named), hidden_states)


class Joining(nn.Module):
    """In the place of a block on the way up: doubles the skips that come from before the branches part."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        self.resnets, self.has_cross_attention = block.resnets, getattr(block, "has_cross_attention", False)

    def forward(
        self, hidden_states: Tensor, res_hidden_states_tuple: tuple[Tensor, ...], *others: Any, **named: Any
    ) -> Tensor:
        skips = tuple(as_many(skip, hidden_states) for skip in res_hidden_states_tuple)
        return self.block(hidden_states, skips, *others, **named)


def as_many(x: Tensor, others: Tensor) -> Tensor:
    """x, once more for the second branch where the others have twice its rows."""
    return torch.cat([x, x]) if len(others) == 2 * len(x) else x
