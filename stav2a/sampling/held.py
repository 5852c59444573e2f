"""What takes the place of work that is the same at every step, or known for all steps beforehand."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

UNHEARD = -10_000.0  # added to the score of a token that does not count, as diffusers does


class Static:
    """A tensor that stays in its place: what is held next is written over it while the shape fits."""

    value: Tensor

    def hold(self, value: Tensor) -> None:
        old = getattr(self, "value", None)
        if old is not None and (old.shape, old.dtype) == (value.shape, value.dtype):
            old.copy_(value)
        else:
            self.value = value.clone(memory_format=torch.contiguous_format)


class HeldTokens:
    """A diffusers attention processor whose keys and values are made once for all steps.

    Args:
        attention: A cross attention without norms of its own.
        masked: Whether it looks past the tokens' padding.
    """

    def __init__(self, attention: Any, masked: bool) -> None:
        self.attention, self.masked = attention, masked
        self.key, self.value, self.bias = Static(), Static(), Static()
        attention.set_processor(self)

    def hold(self, c: Tensor, mask: Tensor, length: int) -> None:
        """Tokens c (N, K, D_c) and mask (N, K), to which padding is added up to `length`; nobody hears it."""
        heard = mask if self.masked else torch.ones_like(mask)
        padding = (0, length - c.shape[1])
        bias = UNHEARD * (1 - functional.pad(heard.to(c.dtype), padding))
        self.bias.hold(bias[:, None, None])
        self.key.hold(self._heads(functional.pad(self.attention.to_k(c), (0, 0, *padding))))
        self.value.hold(self._heads(functional.pad(self.attention.to_v(c), (0, 0, *padding))))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.attention.heads, -1)).transpose(1, 2)  # (N, H, K, D)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend to the tokens of the last clips held, as many as there are."""
        rows = slice(-len(hidden_states), None)
        made = functional.scaled_dot_product_attention(
            self._heads(attn.to_q(hidden_states)),
            self.key.value[rows],
            self.value.value[rows],
            attn_mask=self.bias.value[rows],
        )
        return attn.to_out[0](made.transpose(1, 2).flatten(2))


class HeldOutput(nn.Module):
    """In the place of a module that reads the conditions alone.

    Args:
        module: What makes the output.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.made, self.output = (module,), Static()  # in a tuple: not a module of the twin any more

    def hold(self, conditions: Tensor) -> None:
        self.output.hold(self.made[0](conditions))

    def forward(self, conditions: Tensor) -> Tensor:
        return self.output.value[-len(conditions) :]


class Clock:
    """The residual blocks' shares of the time embedding: all steps' made at once, one step's shown at a time.

    Args:
        networks: U-Nets and ControlNets, each with the residual blocks that read its time embedding.
    """

    def __init__(self, networks: Iterable[tuple[Any, list[Any]]]) -> None:
        self.row, self.made = Static(), []
        start = 0
        for network, blocks in networks:
            self.made.append((network.time_proj, network.time_embedding, _projections(blocks)))
            network.time_proj = network.time_embedding = Unread()
            for block in blocks:
                width = block.time_emb_proj.out_features
                block.time_emb_proj = TimeRow(self.row, start, width)
                start += width

    def hold(self, timesteps: Tensor, dtype: torch.dtype) -> None:
        """Make the shares of all steps, (n,) timesteps."""
        shares = [
            projection(act(time_embedding(time_proj(timesteps).to(dtype))))
            for time_proj, time_embedding, projections in self.made
            for act, projection in projections
        ]
        self.rows = torch.cat(shares, dim=1) if shares else timesteps[:, None].to(dtype)

    def show(self, i: int) -> None:
        """Turn to step i."""
        self.row.hold(self.rows[i : i + 1])


class TimeRow(nn.Module):
    """A residual block's share of the time embedding, read off the clock's row."""

    def __init__(self, row: Static, start: int, width: int) -> None:
        super().__init__()
        self.row, self.share = row, slice(start, start + width)

    def forward(self, temb: Tensor) -> Tensor:
        return self.row.value[:, self.share]


class Unread(nn.Module):
    """In the place of a time embedding that nobody reads any more."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x


def _projections(blocks: Iterable[Any]) -> list[tuple[Any, Any]]:
    return [(block.nonlinearity, block.time_emb_proj) for block in blocks]
