"""Self-attention with narrow heads."""

from functools import partial

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional

from stav2a.components.unets import stable_diffusion
from stav2a.sampling import Compiled, FastSampler, ReferenceSampler, narrow
from stav2a.sampling.narrow import NarrowHeads, fits, narrow_attention
from tests import tiny
from tests.sampling.given import error, made, sample


def given(length: int, dim: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [size * torch.randn(2, 3, length, dim, generator=rng).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("dim", [4, 8, 16])
@pytest.mark.parametrize("size", [1.0, 8.0], ids=["soft", "nearly hard"])
def test_it_is_attention(dim, size):
    q, k, v = given(256, dim, size=size)
    exact = functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    theirs = functional.scaled_dot_product_attention(q, k, v)
    assert error(narrow_attention(q, k, v).double(), exact) < 2e-6 + 2 * error(theirs.double(), exact)


def test_in_half_precision_it_rounds_no_more_than_pytorchs():
    q, k, v = given(256, 16, torch.bfloat16)
    exact = functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    ours, theirs = narrow_attention(q, k, v), functional.scaled_dot_product_attention(q, k, v)
    assert ours.dtype == torch.bfloat16
    assert error(ours.double(), exact) <= error(theirs.double(), exact)


def test_scores_far_below_the_highest_count_nothing():
    q, k, v = given(128, 8)
    k[:, :, 0], k[:, :, 1:] = 1e4 * q[:, :, 0].sign(), -1e4 * q[:, :, :1].sign()
    torch.testing.assert_close(narrow_attention(q, k, v)[:, :, 0], v[:, :, 0])


def test_several_threads_give_the_same_bits():
    q, k, v = given(128, 16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = narrow_attention(q, k, v)
        torch.set_num_threads(2)
        assert torch.equal(narrow_attention(q, k, v), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("length", "dim", "taken"),
    [
        (1024, 16, True),
        (1024, 4, True),
        (1000, 16, False),
        (512, 16, False),
        (1024, 32, False),
        (1024, 6, False),
    ],
)
def test_wide_heads_and_few_positions_are_left_to_pytorch(length, dim, taken):
    (q, *_) = given(length, dim)
    assert fits(q) == taken


@pytest.mark.parametrize("length", [1024, 100])
def test_the_processor_attends_as_the_stock_one(length):
    torch.manual_seed(0)
    attention, x = Attention(32, heads=2, dim_head=16).eval(), torch.randn(2, length, 32)
    with torch.no_grad():
        stock = attention(x)
        attention.set_processor(NarrowHeads())
        torch.testing.assert_close(attention(x), stock, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_the_sampler_gives_the_references_latents(monkeypatch, engine):
    calls = []
    monkeypatch.setattr(narrow, "LONG", 128)
    monkeypatch.setattr(narrow, "fits", lambda q: calls.append(q.shape) or fits(q))
    unet = partial(
        stable_diffusion,
        block_out_channels=(8, 16),
        attention_levels=(True, True),
        attention_head_dim=(2, 2),
        layers_per_block=1,
        norm_num_groups=4,
    )
    monkeypatch.setattr(tiny, "DURATION_S", 1.28)
    model = made(unet=unet)  # latents of 16 x 8: 128 positions
    e_v = functional.normalize(torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    others = {"engine": partial(Compiled, backend="aot_eager")} if engine == "compiled" else {}
    found = sample(FastSampler(attention="narrow", **others), model, e_v=e_v)
    assert any(shape[2] == 128 for shape in calls)
    assert error(found, sample(ReferenceSampler(), model, e_v=e_v)) < 1e-5
