import pytest
import torch

from stav2a.components.condition_fusers import Concat, Sum, TextToVideoAttention, VideoFirst, VideoOnly
from stav2a.components.global_poolers import FrameTokens
from stav2a.data.filters import KeepAll
from stav2a.registry import RegistryError
from stav2a.training.stages import JointStage
from tests import tiny


def test_text_comes_first_and_video_is_never_masked():
    e_text, e_gv = torch.randn(2, 3, 4), torch.randn(2, 2, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    c, joined = Concat(cond_dim=4)(e_text, mask, e_gv)
    assert torch.equal(c[:, :3], e_text) and torch.equal(c[:, 3:], e_gv)
    assert joined.tolist() == [[True, True, False, True, True], [True, False, False, True, True]]


def test_without_video_tokens_the_text_stays_as_it_is():
    e_text, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    c, joined = Concat(cond_dim=4)(e_text, mask, torch.zeros(2, 0, 4))
    assert torch.equal(c, e_text) and torch.equal(joined, mask)


def test_the_sum_adds_the_video_to_every_token_that_counts():
    e_text, e_gv = torch.randn(2, 3, 4), torch.randn(2, 2, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    e_text = e_text * mask.unsqueeze(-1)
    c, same = Sum(cond_dim=4)(e_text, mask, e_gv)
    assert torch.equal(same, mask) and (c[~mask] == 0).all()
    for i, j in mask.nonzero().tolist():
        torch.testing.assert_close(c[i, j], e_text[i, j] + e_gv[i, 0] + e_gv[i, 1])


def test_the_sum_without_video_tokens_is_the_text():
    e_text, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(Sum(cond_dim=4)(e_text, mask, torch.zeros(2, 0, 4))[0], e_text)


def test_video_first_is_the_concatenation_in_the_other_order():
    e_text, e_gv, mask = torch.randn(1, 3, 4), torch.randn(1, 2, 4), torch.tensor([[True, True, False]])
    c, joined = VideoFirst(cond_dim=4)(e_text, mask, e_gv)
    assert torch.equal(c, torch.cat([e_gv, e_text], dim=1))
    assert joined.tolist() == [[True, True, True, True, False]]


def test_video_only_leaves_the_text_out():
    e_text, e_gv, mask = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.zeros(2, 3, dtype=torch.bool)
    c, attended = VideoOnly(cond_dim=4)(e_text, mask, e_gv)
    assert torch.equal(c, e_gv) and attended.shape == (2, 5) and attended.all()


@pytest.fixture
def attending() -> TextToVideoAttention:
    torch.manual_seed(0)
    return TextToVideoAttention(cond_dim=8, heads=2)


def test_a_new_cross_attention_gives_the_text(attending):
    e_text, mask = torch.randn(2, 3, 8), torch.tensor([[True, True, False]] * 2)
    c, same = attending(e_text, mask, torch.randn(2, 5, 8))
    assert torch.equal(c, e_text) and torch.equal(same, mask)


def test_each_text_token_takes_what_it_finds_in_the_video(attending):
    tiny.shake(attending)
    e_text, mask, e_gv = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 5, 8)
    c, _ = attending(e_text, mask, e_gv)
    assert torch.equal(c, attending(e_text, mask, e_gv)[0])
    torch.testing.assert_close(attending(e_text, mask, e_gv.flip(1))[0], c)  # a set, unless it has positions
    torch.testing.assert_close(attending(e_text[:, :1], mask[:, :1], e_gv)[0], c[:, :1])
    assert (attending(e_text, mask, e_gv + torch.randn(2, 5, 8))[0] - c).abs().amax(dim=2).min() > 1e-3
    assert ((c - e_text)[:, 0] - (c - e_text)[:, 1]).abs().max() > 1e-4  # each token its own


def test_all_of_the_cross_attention_learns_in_two_steps(attending):
    """The last layer, which is zero, passes no gradient at first."""
    e_text, mask, e_gv = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 5, 8)
    optimizer = torch.optim.SGD(attending.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (attending(e_text, mask, e_gv)[0] * e_text.flip(2)).sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in attending.parameters())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(RegistryError) as told:
        TextToVideoAttention(cond_dim=12, heads=8)
    assert str(told.value) == (
        "condition_fuser.cross_attention.heads = 8 does not divide 12, the tokens' width. Bind "
        "condition_fuser.cross_attention.heads = 6."
    )


@pytest.mark.parametrize("fuser", [VideoOnly, TextToVideoAttention])
def test_a_fuser_that_reads_video_tokens_wants_some(fuser):
    with pytest.raises(RegistryError, match=r"needs video tokens, and .* Bind run\.global_pooler = @"):
        fuser(cond_dim=8)(torch.zeros(1, 2, 8), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0, 8))


@pytest.mark.parametrize("fuser", [VideoOnly, TextToVideoAttention])
def test_the_joint_stage_trains_the_fusers_and_repeats_itself(fuser, tmp_path):
    weights = []
    for name in ("a", "b"):
        (folder := tmp_path / name).mkdir()
        model = tiny.model(condition_fuser=fuser, global_pooler=FrameTokens)
        before = {key: t.clone() for key, t in model.state_dict().items()}
        JointStage(data_filter=KeepAll, steps=2, batch_size=4).run(tiny.work(model, folder))
        weights.append(model.state_dict())
        changed = {key.split(".")[0] for key, t in weights[-1].items() if not t.equal(before[key])}
        assert {"global_pooler", "backbone"} <= changed
        assert ("condition_fuser" in changed) == (fuser is TextToVideoAttention)
    assert all(torch.equal(t, weights[1][key]) for key, t in weights[0].items())
