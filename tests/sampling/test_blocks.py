"""Self-attention in blocks of queries, in bfloat16."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional

from stav2a.sampling import FastSampler, SamplerError
from stav2a.sampling.blocks import Blocks, attention_in_blocks, exponentiate
from tests.sampling.given import error

ROUNDING = 1.1 * 2**-8  # of bfloat16, and a tenth of it for the polynomial


@pytest.mark.parametrize("size", [1.0, 4.0], ids=["soft", "nearly hard"])
@pytest.mark.parametrize(("length", "dim"), [(300, 16), (256, 6), (40, 64)])
def test_it_is_attention(length, dim, size):
    rng = torch.Generator().manual_seed(0)
    q, k, v = (size * torch.randn(2, length, 3, dim, generator=rng).transpose(1, 2) for _ in range(3))
    exact = functional.scaled_dot_product_attention(*(x.bfloat16().double() for x in (q, k, v)))
    found = attention_in_blocks(q.bfloat16(), k.bfloat16(), v.bfloat16())
    highest = float((q @ k.transpose(2, 3)).abs().max()) / dim**0.5  # a score's rounding, in the exponent
    assert found.dtype == torch.bfloat16
    assert error(found.double(), exact) < ROUNDING * (2 + highest)


@pytest.mark.parametrize("shift", [0.0, -50.0, 50.0], ids=["of both signs", "negative", "positive"])
def test_the_exponentials_are_softmaxs(shift):
    scores = (3 * torch.randn(40, 301, generator=torch.Generator().manual_seed(0)) + shift).bfloat16()
    expected = torch.softmax(scores.double(), dim=-1)
    totals = exponentiate(scores)
    torch.testing.assert_close(scores.double() / totals[:, None], expected, rtol=ROUNDING, atol=1e-12)
    assert scores.max() == 1


def test_scores_far_below_the_highest_count_nothing():
    scores = torch.tensor([[0.0, -1e30, -200.0], [-1e30, -1e30, -1e30]], dtype=torch.bfloat16)
    totals = exponentiate(scores)
    torch.testing.assert_close(totals, torch.tensor([1.0, 3.0]), rtol=1e-3, atol=0)
    torch.testing.assert_close(scores.float(), torch.tensor([[1.0, 0, 0], [1, 1, 1]]))


@pytest.mark.parametrize("length", [1024, 100])
def test_the_processor_attends_as_the_stock_one(length):
    torch.manual_seed(0)
    attention, x = Attention(32, heads=2, dim_head=16).bfloat16(), torch.randn(2, length, 32).bfloat16()
    with torch.no_grad():
        stock = attention(x)
        attention.set_processor(Blocks())
        torch.testing.assert_close(attention(x), stock, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_another_precision_is_refused(precision):
    with pytest.raises(SamplerError, match=rf"'blocks' computes in bfloat16, not in {precision}.*'fused'"):
        FastSampler(precision=precision, attention="blocks")
