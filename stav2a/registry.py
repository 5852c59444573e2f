"""The registry: components by slot and name.

`@register(slot, name)` is all that a component needs. It refuses at its definition what would go wrong later,
then returns the class or function unchanged: plain, picklable, callable from Python. The registry's table
holds what it adds. A recipe makes a `Configured` of a component, which carries the recipe's values.
"""

import difflib
import functools
import importlib
import inspect
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

from torch import nn

from stav2a.slots import SLOTS
from stav2a.utils.errors import USAGE, StaV2AError
from stav2a.utils.shipped import doc, shipped_root

# Modules of this package that register components.
BUILT_IN = (
    "stav2a.components.feature_encoders",
    "stav2a.components.text_encoders",
    "stav2a.components.local_heads",
    "stav2a.components.global_poolers",
    "stav2a.components.condition_fusers",
    "stav2a.components.unets",
    "stav2a.components.backbones",
    "stav2a.components.autoregressive",
    "stav2a.components.autoencoders",
    "stav2a.components.vocoders",
    "stav2a.data.front_ends",
    "stav2a.data.prepared.reader",
    "stav2a.data.manifest",
    "stav2a.data.struck_objects",
    "stav2a.data.onsets",
    "stav2a.data.optical_flow",
    "stav2a.data.filters",
    "stav2a.metrics.registered",
    "stav2a.metrics.judges",
    "stav2a.sampling",
    "stav2a.training.denoising",
    "stav2a.training.stages",
    "stav2a.training.classifier",
    "stav2a.training.trainer",
)
PLUGINS = "stav2a.components"  # entry-point group of other packages
REQUIRED: Any = inspect.Parameter.empty

Factory = TypeVar("Factory", bound=Callable[..., Any])
Made = TypeVar("Made")


class RegistryError(StaV2AError):
    """A component that can't be registered, or can't be found."""

    exit_code = USAGE


@dataclass(frozen=True)
class Parameter:
    """One constructor argument; `default` is `REQUIRED` where there is none."""

    name: str
    annotation: str
    default: Any
    wired: bool


@dataclass(frozen=True)
class Entry:
    """A registered component, or the root of a recipe (`slot` is empty then)."""

    slot: str
    name: str
    factory: Callable[..., Any] = field(repr=False)
    parameters: dict[str, Parameter] = field(repr=False)
    file: str
    line: int

    @property
    def selector(self) -> str:
        """Name in recipes: `local_head.onset`."""
        return f"{self.slot}.{self.name}" if self.slot else self.name

    @property
    def doc(self) -> str:
        """Its docstring; pages of the documentation are named by their places on this machine."""

        def place(page: re.Match[str]) -> str:
            return doc(page[1]) if (shipped_root("docs") / page[1]).is_file() else page[0]

        return re.sub(r"\bdocs/(\w+\.md)", place, inspect.getdoc(self.factory) or "")

    @property
    def summary(self) -> str:
        """First paragraph of the docstring, on one line."""
        return " ".join(self.doc.split("\n\n")[0].split())

    @property
    def settable(self) -> dict[str, Parameter]:
        """Parameters that a recipe may bind."""
        return {name: parameter for name, parameter in self.parameters.items() if not parameter.wired}

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """Annotations of the parameters as types."""
        return typing.get_type_hints(self.factory.__init__ if inspect.isclass(self.factory) else self.factory)


@dataclass(frozen=True, eq=False)
class Configured:
    """A component with the values that a recipe gives its parameters; a call adds what is wired.

    Args:
        entry: The component.
        values: Value of every settable parameter; components in it are `Configured` as well.
    """

    entry: Entry
    values: Mapping[str, Any]

    def __call__(self, *wired: Any, **more: Any) -> Any:
        return self.entry.factory(*wired, **{**self.values, **more})


_ENTRIES: dict[tuple[str, str], Entry] = {}
_BY_FACTORY: dict[Callable[..., Any], Entry] = {}


def register(slot: str, name: str) -> Callable[[Factory], Factory]:
    """Register a class, or a function that returns an object, as a component.

    Args:
        slot: Slot that it fills, one of `SLOTS`.
        name: Name in recipes: short, lower case.

    Raises:
        RegistryError: The slot is unknown, the name taken or no identifier, the docstring missing, the
            constructor open (`*args`, `**kwargs`) or without a wired argument, or a method's arguments differ
            from the slot's contract.
    """
    caller = sys._getframe(1)
    file, line = caller.f_code.co_filename, caller.f_lineno

    def decorate(factory: Factory) -> Factory:
        _check_slot(slot)
        supplied = (*SLOTS[slot].wired, *SLOTS[slot].offered)
        entry = Entry(slot, name, factory, parameters_of(factory, supplied), file, line)
        for fault in _faults(entry, _ENTRIES.get((slot, name))):
            raise RegistryError(f'{entry.selector} {fault}\n  In file "{file}", line {line}')
        _ENTRIES[slot, name] = _BY_FACTORY[factory] = entry
        return factory

    return decorate


def get(slot: str, name: str) -> Entry:
    """The component of this slot and name. All components are imported first if it isn't known yet.

    Raises:
        RegistryError: The slot or the name is unknown.
    """
    _check_slot(slot)
    if (slot, name) not in _ENTRIES:
        load()
    if (slot, name) not in _ENTRIES:
        raise RegistryError(f"No {slot} named {name!r}.", advice=did_you_mean(name, _names(slot)))
    return _ENTRIES[slot, name]


def available(slot: str | None = None) -> list[Entry]:
    """All components, or those of one slot, in the order of the slots and of their names.

    Raises:
        RegistryError: The slot is unknown.
    """
    if slot is not None:
        _check_slot(slot)
    slots = SLOTS if slot is None else [slot]
    return [_ENTRIES[each, name] for each in slots for name in _names(each)]


def expect(slot: str, factory: Factory) -> Factory:
    """The factory unchanged, after a check that it is for this slot.

    A callable that isn't registered passes: from Python anything may be tried.

    Raises:
        RegistryError: It is a component of another slot, or no factory at all.
    """
    entry = entry_of(factory)
    unregistered = entry is None and callable(factory) and entry_of(type(factory)) is None
    if unregistered or (entry is not None and entry.slot == slot):
        return factory
    given = entry.selector if entry else f"{factory!r}, which is no factory"
    raise RegistryError(f"{slot} was given {given}.", advice=advise(slot))


def selector_of(slot: str, factory: Any) -> str:
    """Name of a factory in messages: its selector where it is registered, else its slot and its own name."""
    entry = entry_of(factory)
    return entry.selector if entry else f"{slot} {getattr(factory, '__name__', repr(factory))}"


def conforming(slot: str, made: Made, factory: Any) -> Made:
    """The component unchanged, after a check that it has the attributes that its slot asks for.

    Raises:
        RegistryError: It lacks one, or has one of another type.
    """
    for name, kind in typing.get_type_hints(SLOTS[slot].contract).items():
        value = getattr(made, name, REQUIRED)
        kinds = (int, float) if kind is float else kind
        if value is REQUIRED or (inspect.isclass(kind) and not isinstance(value, kinds)):
            found = "no attribute" if value is REQUIRED else f"{value!r} as attribute"
            raise RegistryError(
                f"{selector_of(slot, factory)} has {found} {name}, which its slot asks for: {short(kind)}.",
                advice=f"Set it in the constructor; `stav2a components {slot}` lists all attributes.",
            )
    return made


def fails(slot: str, factory: Any, error: Exception, given: str = "") -> RegistryError:
    """Error of a component that fails with an error of another kind, with the line that raised it.

    Args:
        slot: Its slot.
        factory: Its factory.
        error: The error.
        given: Input that it fails on; by default it can't be built.
    """
    entry, lines = entry_of(factory), traceback.extract_tb(error.__traceback__)
    place = ([line for line in lines if entry and line.filename == entry.file] or lines)[-1]
    text = next(iter(str(error).strip().splitlines()), "")
    what = f"fails on {given}" if given else "can't be built"
    return RegistryError(
        f"{selector_of(slot, factory)} {what}: {type(error).__name__}: {text}",
        f'In file "{place.filename}", line {place.lineno}.',
    )


def entry_of(factory: Any) -> Entry | None:
    """The entry of a registered factory, plain or configured; None for anything else."""
    if isinstance(factory, Configured):
        return factory.entry
    try:
        return _BY_FACTORY.get(factory)
    except TypeError:  # not hashable
        return None


def name_of(factory: Any) -> str:
    """Name of a registered factory in its slot; its own name for anything else."""
    entry = entry_of(factory)
    return entry.name if entry else factory.__name__


@functools.cache
def load() -> None:
    """Import all components once: those of this package and of installed plugins.

    Raises:
        RegistryError: A plugin can't be imported; the text names its distribution.
    """
    for module in BUILT_IN:
        importlib.import_module(module)
    for entry_point in plugins():
        try:
            entry_point.load()
        except Exception as error:
            package = entry_point.dist.name if entry_point.dist else "an unknown package"
            plugin = f"The plugin {entry_point.name!r} ({entry_point.value}) of {package}"
            fault = f"{type(error).__name__}: {error}\n  Repair {package} or uninstall it."
            raise RegistryError(f"{plugin} can't be imported: {fault}") from error


def plugins() -> Iterable[metadata.EntryPoint]:
    """Entry points by which installed packages offer components."""
    return metadata.entry_points(group=PLUGINS)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Advice for an unknown word.

    Example:
        >>> did_you_mean("onst", ["onset", "linear"])
        'Did you mean onset? Known: linear, onset.'
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def advise(slot: str) -> str:
    """Advice on how a recipe names a component of this slot."""
    return f"Write @{slot}.NAME with one of: {', '.join(_names(slot)) or 'none is registered'}."


def parameters_of(factory: Callable[..., Any], wired: Iterable[str] = ()) -> dict[str, Parameter]:
    """The named arguments of a class or function, in order."""
    return {
        name: Parameter(name, _annotation(parameter), parameter.default, name in wired)
        for name, parameter in _arguments(factory).items()
    }


def _arguments(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments as Python has them, `*args` and `**kwargs` too."""
    if inspect.isclass(factory) and factory.__init__ is nn.Module.__init__:
        return {}  # its *args, **kwargs take nothing
    return dict(inspect.signature(factory).parameters)


def _annotation(parameter: inspect.Parameter) -> str:
    return "" if parameter.annotation is inspect.Parameter.empty else short(parameter.annotation)


def short(annotation: Any) -> str:
    """A type as Python writes it, without modules."""
    text = inspect.formatannotation(annotation)
    # Without the modules: Callable, not collections.abc.Callable. What is quoted stays.
    return re.sub(r"('[^']*')|\b(?:\w+\.)+(?=[A-Za-z_])", lambda match: match[1] or "", text)


def _names(slot: str) -> list[str]:
    return sorted(name for each, name in _ENTRIES if each == slot)


def _check_slot(slot: str) -> None:
    if slot not in SLOTS:
        raise RegistryError(f"No slot named {slot!r}.", advice=did_you_mean(slot, SLOTS))


def _faults(entry: Entry, taken: Entry | None) -> Iterator[str]:
    """Faults of a component, as texts that follow its name; `taken` is the entry that has the name."""
    if not (entry.name.isidentifier() and entry.name == entry.name.lower()):
        yield "is no name for a recipe. Take lower-case letters, digits and underscores."
    if taken is not None and (taken.file, taken.line) == (entry.file, entry.line):
        modules = f"{taken.factory.__module__} and {entry.factory.__module__}"
        yield f"was imported twice, as {modules}. Run another module with python -m, or import one name."
    if taken is not None:
        yield f'is taken by file "{taken.file}", line {taken.line}. Take another name.'
    factory = entry.factory
    doc = (vars(factory).get("__doc__") if inspect.isclass(factory) else factory.__doc__) or ""
    if not doc.strip() or doc.startswith(f"{factory.__name__}("):  # as dataclass makes it
        yield "has no docstring of its own. Describe it, its Args and its Shapes."
    for argument in _arguments(factory).values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            stars = "*" if argument.kind is argument.VAR_POSITIONAL else "**"
            yield f"takes {stars}{argument.name}, which lets typos through. Name every argument."
    missing = [name for name in SLOTS[entry.slot].wired if name not in entry.parameters]
    if missing:
        yield f"lacks the arguments that the assembly supplies. Add: {', '.join(missing)}."
    if inspect.isclass(factory):
        yield from _contract_faults(factory, SLOTS[entry.slot].contract)


def _contract_faults(component: type, contract: type) -> Iterator[str]:
    """Methods of the contract that are missing, or take other arguments."""
    for name, promised in vars(contract).items():
        if not inspect.isfunction(promised) or (name.startswith("_") and name != "__call__"):
            continue
        method = getattr(component, name, None)
        asked = list(inspect.signature(promised).parameters.values())[1:]
        wanted = [argument.name for argument in asked]
        in_order = [argument.name for argument in asked if argument.kind is not argument.KEYWORD_ONLY]
        if method is None or method is getattr(nn.Module, name, None):
            yield f"has no method {name}({', '.join(wanted)}), which its slot promises. Add it."
            continue
        given = list(inspect.signature(method).parameters.values())[1:]
        names = [argument.name for argument in given]
        further = [argument for argument in given if argument.name not in wanted]
        fits = names[: len(in_order)] == in_order and set(wanted) <= set(names)
        if not fits or any(argument.default is argument.empty for argument in further):
            yield (
                f"has {name}({', '.join(names)}), but its slot promises {name}({', '.join(wanted)}). "
                "Take the slot's names, in its order; further arguments need defaults."
            )
