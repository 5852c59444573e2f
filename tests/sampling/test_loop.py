"""What keeps the loop fast on a GPU, and can be seen without one."""

import gc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from stav2a.sampling import (
    Compiled,
    ControlEvery,
    DeepCache,
    Eager,
    FastSampler,
    ReferenceSampler,
    ddim,
    ddpm,
    dpm_solver,
    unipc,
)
from stav2a.sampling.waveforms import generate
from tests.sampling.given import error, features, made, sample

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


def test_shapes_that_alternate_are_prepared_once_each(monkeypatch):
    model, sampler, prepared = made(), FastSampler(text_bucket=1), []
    monkeypatch.setattr(Eager, "__call__", lambda self, step: prepared.append(1) or step)
    for captions in (["a"], ["a", "a drum"], ["a drum"]) * 2:
        expected = sample(ReferenceSampler(), model, captions)
        assert error(sample(sampler, model, captions), expected) <= 1e-5
    assert len(prepared) == 3


@pytest.mark.slow
def test_compiled_shapes_that_alternate_are_told_apart(fresh_compiler):
    """Only the first call of a loop evaluates all guards."""
    counter, model = CompileCounterWithBackend("eager"), made()
    sampler = FastSampler(engine=partial(Compiled, backend=counter))
    for captions in (["a"], ["a", "a drum"], ["", "x"], ["a drum"]):
        expected = sample(ReferenceSampler(), model, captions)
        assert error(sample(sampler, model, captions), expected) <= 1e-5
    assert counter.frame_count == 2


@pytest.mark.slow
def test_a_compiled_step_chooses_its_backend_of_attention_itself(fresh_compiler):
    """Otherwise the graph that was compiled first would serve all choices."""
    counter, model = CompileCounterWithBackend("eager"), made()
    for attention in ((), ("math",)):
        engine = partial(Compiled, backend=counter)
        sample(FastSampler(engine=engine, attention=attention), model, num_inference_steps=2)
    chosen = ["_sdpa_kernel" in str(graph.graph) for graph in counter.graphs]
    assert chosen == [False, True]


def test_loops_share_the_weights_and_the_least_recently_used_one_goes():
    model, sampler = made(), FastSampler(precision="bfloat16", memory_format="channels_last")
    for clips in (1, 2, 3, 1, 4, 5):
        sample(sampler, model, ["a drum"] * clips)
    loops = list(sampler._loops.values())
    assert [len(loop.state.value[0]) for loop in loops] == [3, 1, 4, 5]
    weights = [[each.data_ptr() for each in loop.backbone.backbone.parameters()] for loop in loops]
    assert all(each == weights[0] for each in weights)


@pytest.mark.parametrize("engine", [Eager, partial(Compiled, backend="eager")])
def test_a_last_smaller_batch_is_filled_for_an_engine_that_compiles(fresh_compiler, engine):
    model, sizes = made(), []
    sampler = FastSampler(engine=engine)
    settings: Any = {"scheduler": ddim("v_prediction"), "num_inference_steps": 2, "guidance_scale": 2.0}
    batches = [range(0, 2), range(2, 3)]

    def sized(model: Any, e_v: torch.Tensor, *given: Any, **more: Any) -> torch.Tensor:
        sizes.append(len(e_v))
        return sampler(model, e_v, *given, **more)

    sized.fixed_shapes = sampler.fixed_shapes  # type: ignore[attr-defined]
    e_v, captions = features(3), ["a drum", "a bell", ""]
    found, expected = (
        list(generate(model, [e_v], [0, 1, 2], captions, sampler=each, seed=1, batches=batches, **settings))
        for each in (sized, FastSampler())
    )
    assert sizes == [2, 1 if engine is Eager else 2]
    assert [len(each) for each in found] == [2, 1]
    assert all(abs(a - b).max() <= 1e-4 for a, b in zip(found, expected, strict=True))


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
def test_the_compiled_loop_gives_the_references_latents_and_is_kept_for_other_processes(fresh_compiler):
    model = made()
    sampler = FastSampler(engine=Compiled)
    for captions in (["a drum"], ["a long and very high bell"]):
        expected = sample(ReferenceSampler(), model, captions, scheduler=unipc)
        found = sample(sampler, model, captions, scheduler=unipc)
        assert error(found, expected) <= 1e-5
    torch._dynamo.reset()  # what is left is on the disk
    counters["inductor"].clear()
    assert torch.equal(sample(FastSampler(engine=Compiled), model, captions, scheduler=unipc), found)
    assert counters["inductor"]["fxgraph_cache_hit"] == 1
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
