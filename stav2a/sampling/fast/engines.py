"""Engines: how a step that works on static tensors is carried out.

An engine may run the step at once, to compile or record it; what the step carries on is set afterwards.
"""

from collections.abc import Callable
from typing import Any

import torch

from stav2a.registry import expect, register

Step = Callable[[], None]


@register("engine", "eager")
class Eager:
    """Operation by operation, as Python comes to them."""

    def __call__(self, step: Step) -> Step:
        return step


@register("engine", "compiled")
class Compiled:
    """One graph, compiled by torch.inductor at its first step: minutes on a CPU, once a process and shape.

    Args:
        freezing: Lay out the weights for the processor while compiling; they are the graph's constants then.
        backend: What compiles, in torch.compile's terms.
    """

    def __init__(self, *, freezing: bool = False, backend: str = "inductor") -> None:
        self.freezing, self.backend = freezing, backend

    def __call__(self, step: Step) -> Step:
        options: dict[str, Any] | None = {"freezing": True} if self.freezing else None
        compiled = torch.compile(step, fullgraph=True, dynamic=False, backend=self.backend, options=options)
        return _Unguarded(compiled)


class _Unguarded:
    """A compiled step that looks for the graph to run at its first call alone.

    A step works on tensors that stay where they are, by a loop that is made anew when anything changes.
    Asking after every module again took a tenth of a step at laptop scale.
    """

    def __init__(self, compiled: Step) -> None:
        self.compiled, self.found = compiled, False

    def __call__(self) -> None:
        with torch.compiler.set_stance("default", skip_guard_eval_unsafe=self.found):
            self.compiled()
        self.found = True


@register("engine", "cuda_graph")
class CudaGraph:
    """One launch a step: its kernels are recorded once and played again at every step. Needs a CUDA device.

    Args:
        inner: What carries out the step that is recorded: `engine.eager` or `engine.compiled`.
        warmups: Runs before the recording, in which libraries choose their kernels.
    """

    def __init__(self, *, inner: Callable[..., Any] = Eager, warmups: int = 3) -> None:
        self.inner, self.warmups = expect("engine", inner)(), warmups

    def __call__(self, step: Step) -> Step:
        step, graph, aside = self.inner(step), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(self.warmups):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            step()
        return graph.replay
