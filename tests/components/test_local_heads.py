from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from stav2a.components.local_heads import (
    LinearHead,
    NearestHead,
    NoLocalHead,
    OnsetHead,
    OnsetTrackHead,
    ReleasedOnsetHead,
    resample,
    upsample,
    window_mean,
)
from stav2a.data.filters import KeepAll
from stav2a.registry import RegistryError
from stav2a.training.stages import JointStage, OnsetStage
from stav2a.utils.checkpoints import CheckpointError
from tests import tiny


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


@pytest.fixture
def released() -> ReleasedOnsetHead:
    torch.manual_seed(0)
    return ReleasedOnsetHead(in_dim=4, length=10, dim=3, windows=(1, 2), upsampling=2.0)


def test_holding_is_the_released_upsampling():
    """Nearest neighbour by 6.25, which makes 250 of 40 frames, then the last one six times more."""
    x = torch.randn(2, 40, 3)
    up = functional.interpolate(x.transpose(1, 2), scale_factor=6.25, mode="nearest").transpose(1, 2)
    assert torch.equal(
        upsample(x, 256, 6.25, parameter=""), torch.cat([up, up[:, -1:].repeat(1, 6, 1)], dim=1)
    )


@pytest.mark.parametrize("upsampling", [1.0, 2.0, 25 / 3, 25 / 7, 0.5])
def test_each_latent_frame_takes_the_video_frame_that_is_shown_then(upsampling):
    x = torch.arange(12.0).view(1, 12, 1)
    length = round(12 * upsampling)
    found = upsample(x, length, upsampling, parameter="").flatten().tolist()
    assert found == [min(11, int(i / upsampling + 1e-6)) for i in range(length)]


def test_the_nearest_head_passes_the_features_on():
    head = NearestHead(in_dim=3, length=10, upsampling=2.0)
    e_v = torch.randn(2, 5, 3)
    assert head.dim == 3 and not list(head.parameters())
    assert torch.equal(head(e_v), e_v.repeat_interleave(2, dim=1))


@pytest.mark.parametrize("frames", [2, 30])
def test_features_of_another_rate_are_refused(released, frames):
    with pytest.raises(RegistryError) as error:
        released(torch.randn(1, frames, 4))
    assert str(error.value) == (
        f"local_head.onset_released.upsampling = 2.0 makes {2 * frames} latent frames of {frames} video "
        "frames, but the latent has 10. Bind local_head.onset_released.upsampling = "
        f"{10 / frames:g}, the latent's frame rate over the video's."
    )


def test_the_released_head_takes_its_windows_before_it_upsamples(released):
    e_v = torch.randn(2, 5, 4)
    context = released.context(e_v)
    x = context[..., :3]
    torch.testing.assert_close(context, torch.cat([x, window_mean(x, 1), window_mean(x, 2)], dim=-1))
    e_lv = released(e_v)
    assert e_lv.shape == (2, 10, released.dim) == (2, 10, 3)
    torch.testing.assert_close(e_lv, functional.silu(released.l1(context)).repeat_interleave(2, dim=1))


def test_the_onset_stages_loss_is_cross_entropy_of_the_two_classes(released):
    e_v, onsets = torch.randn(2, 5, 4), torch.randint(0, 2, (2, 10))
    losses = (
        functional.cross_entropy(released.class_logits(e_v).flatten(0, 1), onsets.flatten()),
        functional.binary_cross_entropy_with_logits(released.onset_logits(e_v), onsets.float()),
    )
    torch.testing.assert_close(*losses)
    first, second = (torch.autograd.grad(loss, list(released.parameters())) for loss in losses)
    torch.testing.assert_close(first, second)


def test_the_onset_stage_trains_the_released_head(tmp_path):
    model = tiny.model(local_head=partial(ReleasedOnsetHead, dim=8, windows=(1, 2), upsampling=1.0))
    stage = OnsetStage(data_filter=KeepAll, steps=30, batch_size=8)
    losses = [value for _, value in stage.run(tiny.work(model, tmp_path))["validation_loss"]]
    assert losses[-1] < 0.97 * losses[0]


def test_a_window_below_one_is_refused_by_the_released_head_too():
    with pytest.raises(
        RegistryError, match=r"local_head\.onset_released\.windows = \(0,\): a half-width must"
    ):
        ReleasedOnsetHead(in_dim=4, length=8, windows=(0,))


def test_a_pretext_checkpoint_is_loaded_and_frozen(released, tmp_path):
    save_file(released.state_dict(), tmp_path / "model.safetensors")
    make = partial(ReleasedOnsetHead, in_dim=4, length=10, windows=(1, 2), checkpoint=str(tmp_path))
    loaded = make(dim=3)
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in released.state_dict().items())
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.requires_grad for p in released.parameters())
    with pytest.raises(CheckpointError, match=r"^local_head\.onset_released\.checkpoint = .* does not fit"):
        make(dim=4)


def test_the_onset_track_is_one_where_an_onset_is_likelier_than_none():
    torch.manual_seed(0)
    head = OnsetTrackHead(in_dim=4, length=12, dim_per_window=3, windows=(1,))
    e_v = torch.randn(2, 5, 4)
    with torch.no_grad():
        head.detector.onset.bias -= head.onset_logits(e_v).mean()
    track, likely = head(e_v), head.onset_logits(e_v).sigmoid() > 0.5
    assert track.shape == (2, 12, head.dim) == (2, 12, 1) and torch.equal(track, head(e_v))
    assert torch.equal(track.squeeze(-1).bool(), likely) and 0 < likely.sum() < likely.numel()
    assert set(track.flatten().tolist()) == {0.0, 1.0} and not track.requires_grad
    assert torch.equal(head.onset_logits(e_v), head.detector.onset_logits(e_v))


def test_a_window_below_one_is_refused_by_the_onset_track_too():
    with pytest.raises(RegistryError, match=r"local_head\.onset_track\.windows = \(0,\): a half-width must"):
        OnsetTrackHead(in_dim=4, length=8, windows=(0,))


def test_the_onset_stage_trains_the_track_and_the_joint_stage_leaves_it(tmp_path):
    model = tiny.model(local_head=partial(OnsetTrackHead, dim_per_window=8, windows=(1, 2)))
    stage = OnsetStage(data_filter=KeepAll, steps=30, batch_size=8, learning_rate=1e-2)
    losses = [value for _, value in stage.run(tiny.work(model, tmp_path))["validation_loss"]]
    assert losses[-1] < 0.97 * losses[0]
    before = {key: t.clone() for key, t in model.local_head.state_dict().items()}
    work = tiny.work(model, tmp_path, frozen=frozenset({"local_head"}))
    JointStage(data_filter=KeepAll, steps=2, batch_size=4).run(work)
    assert all(torch.equal(t, before[key]) for key, t in model.local_head.state_dict().items())
