"""What is refused when a component is defined, so that it can't go wrong later."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gin
from torch import nn

from stav2a.registry.entries import Entry, arguments
from stav2a.slots import SLOTS


def faults_of(entry: Entry, taken: Entry | None) -> Iterator[str]:
    """What is wrong with a component, told in words that follow its name; `taken` has the name already."""
    if not (entry.name.isidentifier() and entry.name == entry.name.lower()):
        yield "is no name for a recipe. Take lower-case letters, digits and underscores."
    if taken is not None and (taken.file, taken.line) == (entry.file, entry.line):
        modules = f"{taken.factory.__module__} and {entry.factory.__module__}"
        yield f"was imported twice, as {modules}. Run another module with python -m, or import one name."
    if taken is not None:
        yield f'is taken by file "{taken.file}", line {taken.line}. Take another name.'
    if gin.config_is_locked():
        yield "comes after a recipe was loaded. Import it earlier, or offer it as a plugin."
    if not _own_docstring(entry.factory):
        yield "has no docstring of its own. Say what it does, its Args and its Shapes."
    for argument in arguments(entry.factory).values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            stars = "*" if argument.kind is argument.VAR_POSITIONAL else "**"
            yield f"takes {stars}{argument.name}, which lets typos through. Name every argument."
    missing = [name for name in SLOTS[entry.slot].wired if name not in entry.parameters]
    if missing:
        yield f"lacks the arguments that the assembly supplies. Add: {', '.join(missing)}."
    if inspect.isclass(entry.factory):
        yield from _contract_faults(entry.factory, SLOTS[entry.slot].contract)


def _own_docstring(factory: Callable[..., Any]) -> bool:
    doc = (vars(factory).get("__doc__") if inspect.isclass(factory) else factory.__doc__) or ""
    made_by_dataclass = doc.startswith(f"{factory.__name__}(")
    return bool(doc.strip()) and not made_by_dataclass


def _contract_faults(component: type, contract: type) -> Iterator[str]:
    """The methods of the contract that are missing, or take other arguments."""
    for name, promised in vars(contract).items():
        if not inspect.isfunction(promised) or (name.startswith("_") and name != "__call__"):
            continue
        method = getattr(component, name, None)
        wanted = list(inspect.signature(promised).parameters)[1:]
        if method is None or method is getattr(nn.Module, name, None):
            yield f"has no method {name}({', '.join(wanted)}), which its slot promises. Add it."
            continue
        given = list(inspect.signature(method).parameters.values())[1:]
        names = [argument.name for argument in given]
        if names[: len(wanted)] != wanted or any(a.default is a.empty for a in given[len(wanted) :]):
            yield (
                f"has {name}({', '.join(names)}), but its slot promises {name}({', '.join(wanted)}). "
                "Take the slot's names, in its order; further arguments need defaults."
            )
