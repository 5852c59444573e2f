import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from stav2a.components.feature_encoders import CAVP, SlowOnly
from tests.components import golden


def shapes(state: dict[str, Tensor]) -> list[str]:
    return sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())


@pytest.fixture(scope="module")
def released() -> CAVP:
    """The released tower's size, with the golden weights."""
    encoder = CAVP()
    encoder.load_state_dict(golden.weights(golden.shapes(encoder.state_dict())))
    return encoder.eval()


@pytest.fixture
def small() -> CAVP:
    torch.manual_seed(0)
    return CAVP(width=4, blocks=(1, 1, 1, 1), dim=8).eval()


def test_names_and_shapes_are_those_of_the_released_weights(released):
    assert shapes(released.state_dict()) == (golden.GOLDEN / "cavp_keys.txt").read_text().splitlines()


@torch.no_grad()
def test_the_released_numbers_come_out(released):
    expected = np.load(golden.GOLDEN / "cavp.npz")
    x = torch.from_numpy(np.random.default_rng([7, 10**6]).random((1, 6, 3, 64, 64)).astype(np.float32))
    x = x * torch.linspace(0.2, 1, 6).view(1, 6, 1, 1, 1)
    unnormalised = []
    released.video_project_head.register_forward_hook(lambda _, __, output: unnormalised.append(output))
    e_v = released(x)
    assert golden.error(e_v, expected["e_v"]) < 1e-4
    assert golden.error(unnormalised[0], expected["unnormalised"]) < 1e-4


@torch.no_grad()
def test_every_frame_has_unit_length(small):
    e_v = small(torch.rand(2, 5, 3, 32, 32))
    torch.testing.assert_close(e_v.norm(dim=-1), torch.ones(2, 5))


def frames_that_change(encoder, frames: int, changed: int) -> list[int]:
    """Which of the output's frames change when one of the input's does."""
    video = torch.rand(1, frames, 3, 32, 32)
    other = video.clone()
    other[:, changed] = torch.rand(1, 3, 32, 32)
    before, after = encoder(video), encoder(other)
    return [i for i in range(frames) if (before[:, i] - after[:, i]).abs().max() > 1e-6]


@torch.no_grad()
def test_each_of_the_last_two_stages_looks_one_frame_to_either_side(small):
    assert frames_that_change(small, 9, 4) == [2, 3, 4, 5, 6]


@torch.no_grad()
def test_the_first_two_stages_look_at_single_frames():
    torch.manual_seed(0)
    tower = SlowOnly(4, (1, 2)).eval()
    assert frames_that_change(
        lambda x: rearrange(tower(rearrange(x, "b l c h w -> b c l h w")), "b d l -> b l d"), 5, 2
    ) == [2]


@torch.no_grad()
def test_time_is_never_strided_and_any_size_goes(small):
    assert small(torch.rand(1, 1, 3, 32, 32)).shape == (1, 1, 8)
    assert small(torch.rand(1, 7, 3, 48, 40)).shape == (1, 7, 8)


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(small):
    video = torch.rand(3, 4, 3, 32, 32)
    torch.testing.assert_close(small(video)[1:2], small(video[1:2]), rtol=1e-5, atol=1e-6)
