"""Engines: execution of a step that works on static tensors.

An engine may run the step at once, to compile or record it; the tensors of the step are set afterwards.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from stav2a.registry import expect, register
from stav2a.utils.errors import UsageError

Step = Callable[[], None]
SHAPES = 10_000  # loops of one process, each of which compiles the same functions for its own tensors


@register("engine", "eager")
class Eager:
    """Eager execution, operation by operation."""

    def __call__(self, step: Step) -> Step:
        return step


@register("engine", "compiled")
class Compiled:
    """One graph, compiled by torch.compile at its first step: minutes on a CPU, once per process and shape.

    Args:
        backend: Backend of torch.compile.
        options: Options of the backend, such as `{'max_autotune': True}` of inductor.
    """

    fixed_shapes = compiles = True

    def __init__(self, *, backend: str = "inductor", options: Mapping[str, Any] | None = None) -> None:
        self.backend, self.options = backend, None if options is None else dict(options)

    def __call__(self, step: Step) -> Step:
        compiled = torch.compile(
            step, fullgraph=True, dynamic=False, backend=self.backend, options=self.options
        )
        called = False

        def run() -> None:
            # Only the first call checks guards. Later ones need not: the step works on tensors that stay in
            # place, and the loop is made anew when anything changes. Checks take a tenth of a small step.
            nonlocal called
            with (
                torch.compiler.set_stance("default", skip_guard_eval_unsafe=called),
                torch._dynamo.config.patch(recompile_limit=SHAPES, accumulated_recompile_limit=SHAPES),
            ):
                compiled()
            called = True

        return run


@register("engine", "cuda_graph")
class CudaGraph:
    """One launch per step: kernels are recorded once and replayed at every step. Needs a CUDA device.

    Args:
        inner: Engine of the step that is recorded: `engine.eager` or `engine.compiled`.
        warmups: Runs before the recording, in which libraries choose their kernels and a compiled step is
            compiled, which can't be recorded.

    Raises:
        UsageError: There is no CUDA device, or no run before the recording.
    """

    device_type = "cuda"  # of the model: a recorded step would leave tensors elsewhere as they are
    fixed_shapes = True

    def __init__(self, *, inner: Callable[..., Any] = Eager, warmups: int = 3) -> None:
        if not torch.cuda.is_available():
            raise UsageError(
                "engine.cuda_graph needs a CUDA device, and torch finds none here.",
                advice="Bind sampler.fast.engine = @engine.eager.",
            )
        if warmups < 1:
            raise UsageError(f"engine.cuda_graph.warmups = {warmups}: expected 1 or more.")
        self.inner, self.warmups = expect("engine", inner)(), warmups
        self.compiles = getattr(self.inner, "compiles", False)

    def __call__(self, step: Step) -> Step:
        step, graph, stream = self.inner(step), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.warmups):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):  # the default one is of the first GPU that recorded
            step()
        return graph.replay
