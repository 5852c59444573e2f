"""Winograd's convolutions."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stav2a.sampling.winograd import Winograd, filter_minimally
from tests.sampling.given import error


def given(channels: int = 5, outputs: int = 3, **settings: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, outputs, 3, padding=1, **settings).requires_grad_(False)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(8, 4), (2, 2), (7, 4), (8, 3), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(size, bias):
    convolution, x = given(bias=bias), torch.randn(2, 5, *size)
    exact = convolution.double()(x.double())
    found = Winograd(convolution.float())(x)
    assert found.shape == exact.shape
    assert error(found.double(), exact) < 1e-6


def test_it_takes_four_ninths_of_the_products():
    convolution, x = given(16, 16), torch.randn(1, 16, 8, 8)
    counts = []
    for module in (convolution, Winograd(convolution)):
        with FlopCounterMode(display=False) as counter:
            module(x)
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] == pytest.approx(4 / 9)


def test_others_are_left_alone():
    others = [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv1d(4, 4, 3, padding=1),
    ]
    network = nn.Sequential(*others, nn.Sequential(given()))
    filter_minimally(network)
    assert list(network)[:-1] == others
    assert isinstance(network[-1][0], Winograd)
