import torch

from stav2a.components.condition_fusers import Concat, Sum


def test_text_comes_first_and_video_is_never_masked():
    e_text, e_gv = torch.randn(2, 3, 4), torch.randn(2, 2, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    c, joined = Concat()(e_text, mask, e_gv)
    assert torch.equal(c[:, :3], e_text) and torch.equal(c[:, 3:], e_gv)
    assert joined.tolist() == [[True, True, False, True, True], [True, False, False, True, True]]


def test_without_video_tokens_the_text_stays_as_it_is():
    e_text, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    c, joined = Concat()(e_text, mask, torch.zeros(2, 0, 4))
    assert torch.equal(c, e_text) and torch.equal(joined, mask)


def test_the_sum_adds_the_video_to_every_token_that_counts():
    e_text, e_gv = torch.randn(2, 3, 4), torch.randn(2, 2, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    e_text = e_text * mask.unsqueeze(-1)
    c, same = Sum()(e_text, mask, e_gv)
    assert torch.equal(same, mask) and (c[~mask] == 0).all()
    for i, j in mask.nonzero().tolist():
        torch.testing.assert_close(c[i, j], e_text[i, j] + e_gv[i, 0] + e_gv[i, 1])


def test_the_sum_without_video_tokens_is_the_text():
    e_text, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(Sum()(e_text, mask, torch.zeros(2, 0, 4))[0], e_text)
