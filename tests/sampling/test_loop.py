"""What keeps the loop fast on a GPU, and can be seen without one."""

import gc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from stav2a.sampling import (
    Compiled,
    ControlEvery,
    DeepCache,
    FastSampler,
    ReferenceSampler,
    ddim,
    ddpm,
    dpm_solver,
    unipc,
)
from tests.sampling.given import error, made, sample

PROMPTS = ["a drum", "a bell", "a long and very high bell", "", "one two three four five six seven eight"]
READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__"}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("settings", "graphs"),
    [
        ({}, 1),
        pytest.param({"shortcut": ControlEvery}, 2, marks=pytest.mark.slow),
        pytest.param({"shortcut": DeepCache}, 2, marks=pytest.mark.slow),
    ],
)
def test_one_graph_serves_all_steps_prompts_and_numbers_of_steps(fresh_compiler, settings, graphs):
    """`fullgraph` refuses a graph that breaks; the counter sees every graph that is made."""
    counter, model = CompileCounterWithBackend("eager"), made()
    sampler, eager = (
        FastSampler(engine=partial(Compiled, backend=counter), **settings),
        FastSampler(**settings),
    )
    for prompt, steps in zip(PROMPTS, (200, 10, 6, 5, 4), strict=True):
        found, expected = (
            sample(each, model, [prompt], num_inference_steps=steps) for each in (sampler, eager)
        )
        assert error(found, expected) <= 1e-5
    assert counter.frame_count == graphs


class NoReads(TorchFunctionMode):
    """Fails where a tensor's value comes to Python, for which a GPU would have to be waited for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        assert name not in READS, f"the loop reads a tensor: {name}"
        return function(*args, **(kwargs or {}))


class NoScalars(TorchDispatchMode):
    """The same one level below, where `if tensor:` arrives too."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "the loop reads a tensor"
        return function(*args, **(kwargs or {}))


def guarded(timesteps: Iterable[Any]) -> Iterator[Any]:
    """In the place of a progress bar: no reads from the first step to the last."""
    with NoReads(), NoScalars():
        yield from timesteps


@pytest.mark.parametrize("scheduler", [ddpm, ddim, dpm_solver, unipc])
def test_no_step_reads_a_tensor(scheduler):
    sample(FastSampler(), made(), scheduler=scheduler, progress=guarded)


@pytest.mark.parametrize("scheduler", [ddpm, ddim, dpm_solver, unipc])
def test_the_plain_loop_does_and_is_caught(scheduler):
    with pytest.raises(AssertionError, match="the loop reads a tensor"):
        sample(ReferenceSampler(), made(), scheduler=scheduler, progress=guarded)


def tensor_bytes() -> int:
    """Bytes of all tensors that Python knows."""
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    return sum(each.untyped_storage().nbytes() for each in tensors)


def weighed(at: set[int], seen: list[int]) -> Callable[[Iterable[Any]], Iterator[Any]]:
    def weigh(timesteps: Iterable[Any]) -> Iterator[Any]:
        for i, t in enumerate(timesteps):
            if i in at:
                gc.collect()
                seen.append(tensor_bytes())
            yield t

    return weigh


@pytest.mark.parametrize("scheduler", [ddpm, unipc])
def test_memory_does_not_grow_with_the_steps(scheduler):
    seen: list[int] = []
    progress = weighed({3, 20, 39}, seen)
    sample(FastSampler(), made(), scheduler=scheduler, num_inference_steps=40, progress=progress)
    assert len(seen) == 3 and len(set(seen)) == 1


def add_one(x: torch.Tensor) -> None:
    x.add_(1)


def test_a_compiled_engine_serves_any_number_of_shapes(fresh_compiler):
    """Torch compiles a function eight times by default, and refuses the ninth."""
    engine, tensors = Compiled(backend="eager"), [torch.zeros(size) for size in range(2, 14)]
    for x in tensors:
        step = engine(partial(add_one, x))
        step(), step()
    assert all(torch.equal(x, torch.full_like(x, 2)) for x in tensors)


@pytest.mark.slow
def test_the_compiled_loop_gives_the_references_latents(fresh_compiler):
    model = made()
    sampler = FastSampler(engine=Compiled)
    for captions in (["a drum"], ["a long and very high bell"]):
        expected = sample(ReferenceSampler(), model, captions, scheduler=unipc)
        assert error(sample(sampler, model, captions, scheduler=unipc), expected) <= 1e-5
