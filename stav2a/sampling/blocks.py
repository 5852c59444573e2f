"""Self-attention in bfloat16 by plain matrix products, a block of queries at a time, on a processor.

PyTorch's fused attention takes its products from MKL, which computed them in float32 on the AMD processor
that was measured (docs/performance.md). Plain products are oneDNN's, and twice as quick there.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LONG, QUERIES = 1024, 256  # positions from which on it pays; those of a block, whose scores stay in the cache


class Blocks:
    """A diffusers attention processor for self-attention without norms of its own."""

    def __call__(self, attn: Any, hidden_states: Tensor, **none: None) -> Tensor:
        """Attend to the positions of the same picture; there are no tokens, and no mask."""
        q, k, v = (
            project(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        pays = q.is_cpu and q.shape[2] >= LONG
        attend = attention_in_blocks if pays else functional.scaled_dot_product_attention
        return attn.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2))


@torch.library.custom_op("stav2a::attention_in_blocks", mutates_args=())
def attention_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(D)) v, with scores and weights rounded to bfloat16.

    Shapes:
        q, k, v (B, H, L, D), bfloat16 -> (B, H, L, D)
    """
    batch, heads, length, dim = q.shape
    made, q = q.new_empty(batch, length, heads, dim), q * dim**-0.5
    for b in range(batch):
        for h in range(heads):
            for first in range(0, length, QUERIES):
                rows = slice(first, first + QUERIES)
                scores = q[b, h, rows] @ k[b, h].T
                totals = exponentiate(scores)
                sums = v[b, h].T @ scores.T  # (D, rows): long rows are quicker than D columns
                made[b, rows, h] = (sums / totals).T
    return made.transpose(1, 2)


@attention_in_blocks.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, length, dim = q.shape
    return q.new_empty(batch, length, heads, dim).transpose(1, 2)


def exponentiate(scores: Tensor) -> Tensor:
    """Write exp(score - its row's highest) over the scores, and sum the rows; on one thread.

    Shapes:
        scores (N, L) bfloat16 -> sums (N,) float32
    """
    from stav2a.sampling.exponentials import exponentiate_rows

    totals = torch.empty(len(scores))
    exponentiate_rows(scores.view(torch.uint16).numpy(), totals.numpy())
    return totals
