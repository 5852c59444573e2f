"""Branches of guidance on devices of their own: here two names of the CPU."""

from functools import partial
from typing import Any

import pytest
import torch

from stav2a.components.backbones import UNetBackbone
from stav2a.sampling import (
    BranchParallelSampler,
    Compiled,
    Eager,
    ReferenceSampler,
    SamplerError,
    TwoWeights,
    ddpm,
    unipc,
)
from stav2a.utils import distributed
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.sampling.given import CAPTIONS, error, made, sample

APART: dict[str, Any] = {"devices": ("cpu", "cpu:0")}


@pytest.mark.parametrize(
    "changes",
    [{}, {"guidance_scale": 1.0}, {"guider": TwoWeights()}, {"scheduler": ddpm}, {"scheduler": unipc}],
    ids=["eq7", "one branch", "three branches", "ddpm", "unipc"],
)
def test_branches_apart_give_the_references_latents(changes):
    model, sampler = made(), BranchParallelSampler(**APART)
    for captions in (CAPTIONS, CAPTIONS[:1], CAPTIONS):
        expected = sample(ReferenceSampler(), model, captions, **changes)
        assert error(sample(sampler, model, captions, **changes), expected) <= 1e-5


def test_each_branch_is_computed_alone_and_its_weights_are_one_copy_a_device(monkeypatch):
    engined: list[Any] = []
    monkeypatch.setattr(Eager, "__call__", lambda self, step: engined.append(step.__self__) or step)
    model, sampler = made(backbone=UNetBackbone), BranchParallelSampler(**APART)
    for clips in (1, 2):
        sample(sampler, model, CAPTIONS[:clips])
    assert [len(part.z_t.value) for part in engined] == [1, 1, 2, 2]
    assert [str(part.device) for part in engined] == ["cpu", "cpu:0"] * 2
    first, second = ({p.data_ptr() for p in part.backbone.backbone.parameters()} for part in engined[::2])
    assert first == second <= {p.data_ptr() for p in model.backbone.parameters()}


def test_weights_that_changed_are_noticed():
    model, sampler = made(), BranchParallelSampler(precision="bfloat16", **APART)
    sample(sampler, model)
    tiny.shake(model.backbone, 0.05, seed=1)
    assert torch.equal(
        sample(sampler, model), sample(BranchParallelSampler(precision="bfloat16", **APART), model)
    )


@pytest.mark.slow
def test_branches_apart_can_be_compiled():
    torch._dynamo.reset()
    model, sampler = made(), BranchParallelSampler(engine=partial(Compiled, backend="eager"), **APART)
    assert error(sample(sampler, model), sample(ReferenceSampler(), model)) <= 1e-5


def test_by_default_the_devices_are_the_models_and_the_other_gpus(monkeypatch):
    sampler = BranchParallelSampler()
    assert sampler._all_devices(torch.device("cpu")) == [torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    found = sampler._all_devices(torch.device("cuda:1"))
    assert [str(each) for each in found] == ["cuda:1", "cuda:0", "cuda:2"]
    monkeypatch.setattr(distributed, "count", lambda: 2)
    with pytest.raises(SamplerError, match="each of the 2 processes has one"):
        sampler._all_devices(torch.device("cuda:0"))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"the device 'cuda:99' can't be used"):
        BranchParallelSampler(devices=("cpu", "cuda:99"))


def test_what_a_branch_reads_is_brought_to_its_device():
    """The meta device refuses the tensors of others, as a GPU does, and gives no prediction back."""
    model, sampler = made(), BranchParallelSampler(devices=("cpu", "meta"))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        sample(sampler, model)
    (loop,) = sampler._loops.values()
    assert [part.prediction.value.device.type for part in loop.parts] == ["cpu", "meta"]  # type: ignore[attr-defined]
