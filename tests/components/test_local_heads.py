import pytest
import torch

from stav2a.components.local_heads import LinearHead, NoLocalHead, OnsetHead, resample, window_mean
from stav2a.registry import RegistryError


@pytest.mark.parametrize("w", [1, 2, 5, 50])
def test_the_window_mean_is_the_released_one(w):
    x = torch.randn(2, 11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(w))
    expected = torch.stack([x[:, max(i - w, 0) : min(i + w, 11)].mean(dim=1) for i in range(11)], dim=1)
    torch.testing.assert_close(window_mean(x, w), expected)


def test_the_window_mean_is_exact_enough_over_a_long_clip():
    x = 1 + torch.randn(1, 2000, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(window_mean(x, 2).double(), window_mean(x.double(), 2), rtol=0, atol=1e-3)


def test_resampling_to_the_same_length_changes_nothing():
    x = torch.randn(2, 9, 3)
    assert torch.equal(resample(x, 9), x)


def test_resampling_keeps_a_straight_line_straight():
    line = torch.arange(8.0).view(1, 8, 1)
    inner = resample(line, 16)[0, 1:-1, 0]
    torch.testing.assert_close(inner.diff(), torch.full((13,), 0.5))


def test_an_event_stays_at_its_time_when_resampled():
    x = torch.zeros(1, 10, 1)
    x[0, 6] = 1  # frame 6 of 10 covers 0.6 to 0.7
    found = resample(x, 40)[0, :, 0]
    centre = ((torch.arange(40) + 0.5) / 40 * found).sum() / found.sum()
    assert centre.item() == pytest.approx(0.65, abs=1e-4)


@pytest.mark.parametrize("windows", [(0,), (1, -2), (4, 0, 1)])
def test_a_window_below_one_is_refused(windows):
    with pytest.raises(
        RegistryError, match=r"local_head\.onset\.windows = .* a half-width must be 1 or more"
    ):
        OnsetHead(in_dim=4, length=8, windows=windows)


def test_the_onset_head_joins_the_narrowed_features_with_their_window_means():
    torch.manual_seed(0)
    head = OnsetHead(in_dim=4, length=10, dim_per_window=3, windows=(1, 4))
    e_v = torch.randn(2, 10, 4)
    e_lv, x = head(e_v), head.narrow(e_v)
    assert e_lv.shape == (2, 10, head.dim) == (2, 10, 9)
    parts = e_lv.split(3, dim=-1)
    for found, expected in zip(parts, (x, window_mean(x, 1), window_mean(x, 4)), strict=True):
        torch.testing.assert_close(found, expected)


def test_onset_logits_are_one_a_latent_frame_and_read_what_the_denoiser_gets():
    head = OnsetHead(in_dim=4, length=12, dim_per_window=3, windows=(1,))
    e_v = torch.randn(2, 5, 4)
    assert head.onset_logits(e_v).shape == (2, 12)
    torch.testing.assert_close(head.onset_logits(e_v), head.onset(head(e_v))[..., 0])


def test_the_linear_head_is_a_projection_of_each_resampled_frame():
    head = LinearHead(in_dim=4, length=6, dim=3)
    e_v = torch.randn(2, 6, 4)
    torch.testing.assert_close(head(e_v), e_v @ head.project.weight.T + head.project.bias)
    assert LinearHead(in_dim=4, length=20, dim=3)(e_v).shape == (2, 20, 3)


def test_none_gives_no_channels_for_every_latent_frame():
    head = NoLocalHead(in_dim=4, length=6)
    assert head(torch.rand(2, 5, 4)).shape == (2, 6, head.dim) == (2, 6, 0)
