"""What is known of a component: its name, its place, its docstring and its parameters."""

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One constructor argument; `default` is `REQUIRED` where there is none."""

    name: str
    annotation: str
    default: Any
    wired: bool


@dataclass(frozen=True)
class Entry:
    """What is known of one component without calling it."""

    slot: str
    name: str
    factory: Callable[..., Any] = field(repr=False)
    parameters: dict[str, Parameter] = field(repr=False)
    file: str
    line: int

    @property
    def selector(self) -> str:
        """Its name in recipes: `local_head.onset`."""
        return f"{self.slot}.{self.name}" if self.slot else self.name

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.factory) or ""

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, on one line."""
        return " ".join(self.doc.split("\n\n")[0].split())

    @property
    def settable(self) -> dict[str, Parameter]:
        """The parameters that a recipe may bind."""
        return {name: parameter for name, parameter in self.parameters.items() if not parameter.wired}

    def hints(self) -> dict[str, Any]:
        """The parameters' annotations as types."""
        return typing.get_type_hints(constructor(self.factory))


def constructor(factory: Callable[..., Any]) -> Callable[..., Any]:
    """What carries the annotations of the arguments."""
    return factory.__init__ if inspect.isclass(factory) else factory


def parameters_of(factory: Callable[..., Any], wired: Iterable[str] = ()) -> dict[str, Parameter]:
    """The named arguments of a class or function, in order."""
    return {
        name: Parameter(name, _annotation(parameter), parameter.default, name in wired)
        for name, parameter in arguments(factory).items()
    }


def arguments(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments as Python has them, stars too."""
    if inspect.isclass(factory) and constructor(factory) is nn.Module.__init__:
        return {}  # its *args, **kwargs take nothing
    return dict(inspect.signature(factory).parameters)


def _annotation(parameter: inspect.Parameter) -> str:
    if parameter.annotation is inspect.Parameter.empty:
        return ""
    text = inspect.formatannotation(parameter.annotation)
    # Without the modules: Callable, not collections.abc.Callable. What is quoted stays.
    return re.sub(r"('[^']*')|\b(?:\w+\.)+(?=[A-Za-z_])", lambda match: match[1] or "", text)
