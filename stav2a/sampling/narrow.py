"""Self-attention with narrow heads on a processor: flash attention whose loops know the heads' width.

PyTorch's is made for wider heads: with 16 channels it took a quarter longer, in bfloat16 two fifths longer.
The sums are those of the online softmax: blocks of keys after one another, for a block of queries at once,
which are the innermost axis throughout, so that the compiler computes sixteen together.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WIDEST, LONG, QUERIES = 16, 1024, 128  # channels a head; positions from which on it pays; those of a block


class NarrowHeads:
    """A diffusers attention processor for self-attention without norms of its own."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend to the positions of the same picture."""
        q, k, v = (
            project(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        made = narrow_attention(q, k, v) if fits(q) else functional.scaled_dot_product_attention(q, k, v)
        return attn.to_out[0](made.transpose(1, 2).flatten(2))


def fits(q: Tensor) -> bool:
    """Whether queries (B, H, L, D) are worth it: narrow heads over many positions, on a processor."""
    length, dim = q.shape[2:]
    return q.is_cpu and dim <= WIDEST and dim % 4 == 0 and length >= LONG and length % QUERIES == 0


@torch.library.custom_op("stav2a::narrow_attention", mutates_args=())
def narrow_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(D)) v, in float32 whatever the inputs are.

    Shapes:
        q, k, v (B, H, L, D), L a multiple of 128, D of 4 -> (B, H, L, D), of q's type
    """
    heads, shape = q.shape[0] * q.shape[1], q.shape
    q32, k32, v32 = (x.detach().float().reshape(heads, *shape[2:]).contiguous().numpy() for x in (q, k, v))
    made = np.empty_like(q32)
    attend = _kernel(shape[-1])
    threads = min(torch.get_num_threads(), heads)
    if threads == 1:
        attend(q32, k32, v32, made)
    else:
        parts = [np.array_split(x, threads) for x in (q32, k32, v32, made)]
        list(_pool(threads).map(attend, *parts))
    return torch.from_numpy(made).view(shape).to(q.dtype)


@narrow_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


@functools.cache
def _kernel(dim: int) -> Any:
    """Compiled for one width; it takes some seconds."""
    from stav2a.sampling.narrow_kernel import kernel

    return kernel(dim)
