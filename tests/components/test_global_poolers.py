import math

import pytest
import torch
from torch import Tensor

from stav2a.components.global_poolers import (
    AttentivePooler,
    FactorGraphPooler,
    FrameTokens,
    MaxPooler,
    MeanPooler,
    NoPooler,
    PerceiverPooler,
    QFormerPooler,
    positions,
)
from stav2a.registry import RegistryError


@pytest.fixture
def pooler() -> AttentivePooler:
    torch.manual_seed(0)
    return AttentivePooler(in_dim=6, cond_dim=5, tokens=3, dropout=0.5).double().eval()


@pytest.fixture
def e_v() -> Tensor:
    return torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_attention_is_a_distribution_over_the_frames(pooler, e_v):
    weights = pooler.attention(pooler.project(3 * e_v))
    assert weights.shape == (2, 7)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert weights.std() > 1e-3  # it is no plain mean


def test_attention_is_that_of_equations_3_and_4(pooler, e_v):
    def linear(layer, x):
        rows = [sum(w * v for w, v in zip(row, x, strict=True)) for row in layer.weight.tolist()]
        bias = [0.0] * len(rows) if layer.bias is None else layer.bias.tolist()
        return [row + b for row, b in zip(rows, bias, strict=True)]

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))

    e = pooler.project(e_v)
    for clip, found in zip(e.tolist(), pooler.attention(e).tolist(), strict=True):
        scores = []
        for frame in clip:
            hidden = [max(0.0, h) for h in linear(pooler.unary, frame)]
            local = linear(pooler.unary_score, hidden)[0]
            u = linear(pooler.embed_u, frame)
            cross = sum(cosine(u, linear(pooler.embed_i, other)) for other in clip)
            scores.append(linear(pooler.mix, [local, cross])[0])
        total = sum(math.exp(score) for score in scores)
        assert found == pytest.approx([math.exp(score) / total for score in scores], rel=1e-9)


def test_the_tokens_are_made_of_the_attended_mean(pooler, e_v):
    e = pooler.project(e_v)
    pooled = torch.stack([p @ frames for p, frames in zip(pooler.attention(e), e, strict=True)])
    torch.testing.assert_close(pooler(e_v), pooler.expand(pooled[:, None]))


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("frames", [1, 9])
def test_there_are_k_tokens_whatever_the_length(tokens, frames):
    assert AttentivePooler(in_dim=6, cond_dim=5, tokens=tokens)(torch.rand(2, frames, 6)).shape == (
        2,
        tokens,
        5,
    )


def test_the_order_of_frames_does_not_matter(pooler, e_v):
    torch.testing.assert_close(pooler(e_v.flip(1)), pooler(e_v))


def test_dropout_works_in_training_alone(pooler, e_v):
    assert torch.equal(pooler(e_v), pooler(e_v))
    without = AttentivePooler(in_dim=6, cond_dim=5, tokens=3).double().train()
    without.load_state_dict(pooler.state_dict())
    torch.testing.assert_close(pooler(e_v), without(e_v))
    pooler.train()
    assert not torch.allclose(pooler(e_v), pooler(e_v))


def test_none_gives_no_tokens_of_the_right_width():
    assert NoPooler(in_dim=6, cond_dim=5)(torch.rand(2, 7, 6)).shape == (2, 0, 5)


def as_factor_graph(pooler: AttentivePooler, frames: int) -> FactorGraphPooler:
    """The released pooler with the same weights, but that of its mean: as much larger as a sum is."""
    made = FactorGraphPooler(in_dim=6, cond_dim=5, tokens=3).double().eval()
    pairs = {
        "fc": pooler.project, "embed": pooler.unary, "feature_reduce": pooler.unary_score,
        "embed_x": pooler.embed_u, "embed_y": pooler.embed_i, "conv": pooler.expand,
    }  # fmt: skip
    with torch.no_grad():
        for name, part in pairs.items():
            layer = made.get_submodule(name)
            layer.weight.copy_(part.weight.view_as(layer.weight))
            layer.bias.copy_(part.bias)
        mix = pooler.mix.weight * torch.tensor([1.0, frames])
        made.reduce_potentials.weight.copy_(mix.unsqueeze(-1))
    return made


def test_the_factor_graph_differs_from_the_paper_by_a_mean_for_a_sum(pooler, e_v):
    released = as_factor_graph(pooler, frames=7)
    torch.testing.assert_close(released(e_v), pooler(e_v))
    longer = torch.cat([e_v, e_v], dim=1)  # a mean does not know how many they are
    torch.testing.assert_close(released(longer), released(e_v))
    assert not torch.allclose(pooler(longer), pooler(e_v))


def test_the_factor_graph_drops_out_in_training_alone(pooler, e_v):
    released = as_factor_graph(pooler, frames=7)
    assert torch.equal(released(e_v), released(e_v))
    released.train()
    assert not torch.allclose(released(e_v), released(e_v))


@pytest.mark.parametrize("kind", [FactorGraphPooler, MeanPooler, MaxPooler, PerceiverPooler])
@pytest.mark.parametrize(("tokens", "frames"), [(1, 9), (4, 1), (4, 9)])
def test_every_pooler_returns_k_tokens_whatever_the_length(kind, tokens, frames):
    torch.manual_seed(0)
    pooler = kind(in_dim=6, cond_dim=8, tokens=tokens).eval()
    e_v = torch.randn(2, frames, 6)
    assert pooler(e_v).shape == (2, tokens, 8)
    torch.testing.assert_close(pooler(e_v.flip(1)), pooler(e_v))
    torch.testing.assert_close(pooler(e_v)[1:], pooler(e_v[1:]))


@pytest.mark.parametrize("kind", [FactorGraphPooler, MeanPooler, MaxPooler, PerceiverPooler])
def test_tokens_begin_about_as_large_as_texts(kind):
    torch.manual_seed(0)
    e_v = torch.nn.functional.normalize(torch.randn(8, 1, 64), dim=-1).expand(-1, 5, -1)
    assert 0.5 < kind(in_dim=64, cond_dim=64).eval()(e_v).std() < 2


def test_mean_and_maximum_are_over_the_frames():
    torch.manual_seed(0)
    mean, largest = MeanPooler(in_dim=6, cond_dim=5), MaxPooler(in_dim=6, cond_dim=5)
    e_v = torch.randn(2, 7, 6)
    torch.testing.assert_close(mean(e_v), mean(e_v.mean(dim=1, keepdim=True)))
    e = largest.project(e_v)
    torch.testing.assert_close(largest(e_v), largest.expand(e.max(dim=1).values.unsqueeze(1)))


def test_heads_that_do_not_divide_the_tokens_are_refused():
    with pytest.raises(RegistryError) as error:
        PerceiverPooler(in_dim=6, cond_dim=10, heads=4)
    assert str(error.value) == (
        "global_pooler.perceiver.heads = 4 does not divide 10, the tokens' width. "
        "Bind global_pooler.perceiver.heads = 2."
    )


def test_every_frame_is_a_token_with_its_position(e_v):
    pooler = FrameTokens(in_dim=6, cond_dim=5).double()
    e_gv = pooler(e_v)
    assert e_gv.shape == (2, 7, 5) and torch.equal(e_gv, pooler(e_v))
    torch.testing.assert_close(e_gv - pooler.project(e_v), positions(7, 5).double().expand(2, -1, -1))
    flipped = pooler(e_v.flip(1)).flip(1)
    assert (flipped - e_gv).abs().amax(dim=2)[:, 3].max() < 1e-9  # the middle frame stays in its place
    assert (flipped - e_gv).abs().amax(dim=2)[:, 0].min() > 0.1
    e_gv.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in pooler.parameters())


def test_positions_differ_and_do_not_depend_on_the_length():
    found = positions(300, 64)
    assert found.shape == (300, 64) and found.abs().max() <= 1
    assert torch.pdist(found).min() > 0.1
    assert torch.equal(positions(20, 64), found[:20])


@torch.no_grad()
def test_queries_of_a_qformer_attend_to_each_other_and_to_the_frames(e_v):
    def changed_tokens(kind: type[PerceiverPooler]) -> list[bool]:
        torch.manual_seed(0)
        pooler = kind(in_dim=6, cond_dim=8, tokens=3, layers=2, heads=2).double()
        before = pooler(e_v)
        assert (pooler(-e_v) - before).abs().amax(dim=(0, 2)).min() > 1e-2  # every token sees the frames
        pooler.queries[0] *= -1
        return ((pooler(e_v) - before).abs().amax(dim=(0, 2)) > 1e-6).tolist()

    assert changed_tokens(PerceiverPooler) == [True, False, False]
    assert changed_tokens(QFormerPooler) == [True, True, True]


def test_a_qformer_starts_with_tokens_of_about_unit_variance():
    torch.manual_seed(0)
    e_v = torch.nn.functional.normalize(torch.randn(8, 10, 32), dim=-1)
    assert 0.5 < QFormerPooler(in_dim=32, cond_dim=64)(e_v).std() < 2


def test_heads_of_a_qformer_that_do_not_fit_are_told_by_its_name():
    with pytest.raises(RegistryError, match=r"global_pooler\.qformer\.heads = 4 does not divide 10"):
        QFormerPooler(in_dim=6, cond_dim=10, heads=4)
