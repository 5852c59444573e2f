"""The registry: which component fills which slot, by name.

`@register(slot, name)` is all that a component needs. It refuses at its definition what would go wrong
later, then leaves the class or function as it is: plain, picklable, callable from Python. What it adds lies
here and in gin, where the slot is the module and the name the name: `local_head.onset`.
"""

import difflib
import functools
import importlib
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, TypeVar

import gin

from stav2a.registry.entries import REQUIRED, Entry, Parameter, parameters_of
from stav2a.registry.faults import faults_of
from stav2a.slots import SLOTS

__all__ = [
    "BUILT_IN", "PLUGINS", "REQUIRED", "Entry", "Parameter", "RegistryError", "advise", "available",
    "did_you_mean", "entry_of", "expect", "get", "load", "parameters_of", "plugins", "register",
]  # fmt: skip

Factory = TypeVar("Factory", bound=Callable[..., Any])

# Every module of ours that registers something.
BUILT_IN = (
    "stav2a.components.feature_encoders",
    "stav2a.components.text_encoders",
    "stav2a.components.local_heads",
    "stav2a.components.global_poolers",
    "stav2a.components.condition_fusers",
    "stav2a.components.unets",
    "stav2a.components.backbones",
    "stav2a.components.autoencoders",
    "stav2a.components.vocoders",
    "stav2a.data.cache.dataset",
    "stav2a.data.manifest",
    "stav2a.data.struck_objects",
    "stav2a.data.onsets",
    "stav2a.data.flow",
    "stav2a.data.filters",
    "stav2a.metrics.components",
    "stav2a.judges",
    "stav2a.sampling",
    "stav2a.training.stages",
    "stav2a.training.optimizers",
    "stav2a.training.trainer",
)
PLUGINS = "stav2a.components"  # the entry-point group of other packages


class RegistryError(ValueError):
    """A component that can't be registered, or can't be found."""

    exit_code = 2


_ENTRIES: dict[tuple[str, str], Entry] = {}
_BY_FACTORY: dict[Callable[..., Any], Entry] = {}  # the plain factory, and the one gin hands out


def register(slot: str, name: str) -> Callable[[Factory], Factory]:
    """Register a class, or a function that returns an object, as a component.

    Args:
        slot: Which slot it fills; one of `SLOTS`.
        name: What recipes call it: short and lower case.

    Raises:
        RegistryError: The slot is unknown, the name taken or no identifier, the docstring missing, the
            constructor open (`*args`, `**kwargs`) or without a wired argument, or a method's arguments
            differ from the slot's contract.
    """
    caller = sys._getframe(1)
    file, line = caller.f_code.co_filename, caller.f_lineno

    def decorate(factory: Factory) -> Factory:
        _check_slot(slot)
        entry = Entry(slot, name, factory, parameters_of(factory, SLOTS[slot].wired), file, line)
        for fault in faults_of(entry, _ENTRIES.get((slot, name))):
            raise RegistryError(f'{entry.selector} {fault}\n  In file "{file}", line {line}')
        gin.register(name, module=slot, denylist=list(SLOTS[slot].wired))(factory)
        _ENTRIES[slot, name] = entry
        _BY_FACTORY[factory] = _BY_FACTORY[gin.get_configurable(entry.selector)] = entry
        return factory

    return decorate


def get(slot: str, name: str) -> Entry:
    """The component of that name.

    Raises:
        RegistryError: The slot or the name is unknown.
    """
    _check_slot(slot)
    if (slot, name) not in _ENTRIES:
        raise RegistryError(f"No {slot} named {name!r}. {did_you_mean(name, _names(slot))}")
    return _ENTRIES[slot, name]


def available(slot: str | None = None) -> list[Entry]:
    """All components, or those of one slot, in the order of the slots and of their names."""
    if slot is not None:
        _check_slot(slot)
    slots = SLOTS if slot is None else [slot]
    return [_ENTRIES[each, name] for each in slots for name in _names(each)]


def expect(slot: str, factory: Factory) -> Factory:
    """The factory unchanged, after making sure that it is for this slot.

    A callable that isn't registered passes: from Python anything may be tried.

    Raises:
        RegistryError: It is a component of another slot, or no factory at all.
    """
    entry = entry_of(factory)
    if entry is not None and entry.slot == slot:
        return factory
    if entry is not None:
        given = entry.selector
    elif not callable(factory) or entry_of(type(factory)) is not None:
        given = f"{factory!r}, which is no factory"
    else:
        return factory
    raise RegistryError(f"{slot} was given {given}. {advise(slot)}")


def entry_of(factory: Any) -> Entry | None:
    """The entry of a registered factory, plain or as gin hands it out; None for anything else."""
    try:
        return _BY_FACTORY.get(factory)
    except TypeError:  # not hashable
        return None


@functools.cache
def load() -> None:
    """Import all components, ours and those of installed plugins, once.

    Raises:
        RegistryError: A plugin can't be imported; names its distribution.
    """
    for module in BUILT_IN:
        importlib.import_module(module)
    for entry_point in plugins():
        try:
            entry_point.load()
        except Exception as error:
            package = entry_point.dist.name if entry_point.dist else "an unknown package"
            raise RegistryError(
                f"The plugin {entry_point.name!r} ({entry_point.value}) of {package} can't be imported: "
                f"{type(error).__name__}: {error}\n  Repair {package} or uninstall it."
            ) from error


def plugins() -> Iterable[metadata.EntryPoint]:
    """The entry points by which installed packages offer components."""
    return metadata.entry_points(group=PLUGINS)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to say of an unknown word.

    Example:
        >>> did_you_mean("onst", ["onset", "linear"])
        'Did you mean onset? Known: linear, onset.'
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def advise(slot: str) -> str:
    """How to write a component of this slot in a recipe."""
    return f"Write @{slot}.NAME with one of: {', '.join(_names(slot)) or 'none is registered'}."


def _names(slot: str) -> list[str]:
    return sorted(name for each, name in _ENTRIES if each == slot)


def _check_slot(slot: str) -> None:
    if slot not in SLOTS:
        raise RegistryError(f"No slot named {slot!r}. {did_you_mean(slot, SLOTS)}")
