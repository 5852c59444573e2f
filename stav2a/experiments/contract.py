"""Rules of components beyond those that the decorator checks: docstrings, arguments, defaults, pickling."""

import inspect
import pickle
from collections.abc import Iterator
from typing import Any

from stav2a import registry
from stav2a.experiments import listing
from stav2a.models.stav2a import BLOCKS
from stav2a.recipe import parsing
from stav2a.recipe.checking import Mismatch, conform
from stav2a.recipe.describing import format_value
from stav2a.recipe.parsing import Reference
from stav2a.registry import REQUIRED, Entry
from stav2a.slots import SLOTS

LONGEST_SUMMARY = 200  # characters


def faults_of(selector: str) -> list[str]:
    """Faults of a registered component, such as `local_head.onset`; none for one that keeps to the rules.

    Raises:
        RegistryError: There is no such component.

    Example:
        >>> faults_of("local_head.onset")
        []
    """
    registry.load()
    slot, _, name = selector.partition(".")
    return list(entry_faults(registry.get(slot, name)))


def entry_faults(entry: Entry) -> Iterator[str]:
    """Faults of a component, in words."""
    yield from _faults_of_the_docstring(entry)
    yield from _faults_of_the_arguments(entry)
    yield from _faults_of_the_defaults(entry)
    try:
        whole = pickle.loads(pickle.dumps(entry.factory)) is entry.factory
    except (AttributeError, pickle.PicklingError):
        whole = False
    if not whole:
        yield "It can't be pickled. Define it at the top of its module."
    lines = inspect.getsource(inspect.getmodule(entry.factory) or entry.factory).splitlines()
    if f'@register("{entry.slot}", "{entry.name}")' not in lines[entry.line - 1]:
        yield f'It is not defined below a line @register("{entry.slot}", "{entry.name}").'


def _faults_of_the_docstring(entry: Entry) -> Iterator[str]:
    if not entry.summary.endswith("."):
        yield f"The docstring begins with no sentence: {entry.summary!r}."
    if len(entry.summary) > LONGEST_SUMMARY:
        yield f"The first sentence has more than {LONGEST_SUMMARY} characters. Say the rest below it."
    docs = listing.argument_docs(entry)
    if list(docs) != list(entry.parameters):
        described, there = (", ".join(names) or "nothing" for names in (docs, entry.parameters))
        yield f"Args describes {described}; the arguments are {there}."
    shapes = listing.sections(entry.doc).get("Shapes", "")
    if entry.slot in BLOCKS and not ("(B" in shapes and "->" in shapes):
        yield "The docstring has no Shapes such as e_v (B, L, D_v) -> e_lv (B, T, D_l)."
    for name in SLOTS[entry.slot].wired:
        if name in docs and not docs[name].endswith("Wired."):
            yield f"The description of {name} does not end with Wired., as the assembly supplies it."


def _faults_of_the_arguments(entry: Entry) -> Iterator[str]:
    wired = SLOTS[entry.slot].wired
    if tuple(entry.parameters)[: len(wired)] != wired:
        yield f"The wired arguments do not come first, as {', '.join(wired)}."
    kinds = inspect.signature(entry.factory).parameters
    for name in entry.settable:
        if kinds[name].kind is not inspect.Parameter.KEYWORD_ONLY:
            yield f"{name} can be given without its name. Put a star before it."
    for name in entry.parameters:
        if name not in entry.hints:
            yield f"{name} has no annotation."


def _faults_of_the_defaults(entry: Entry) -> Iterator[str]:
    defaults = {name: each.default for name, each in entry.settable.items() if each.default is not REQUIRED}
    for name, default in defaults.items():
        try:
            written = f"{entry.selector}.{name} = {format_value(default)}"
            read = parsing.read((), (written,), trust=False).written[0].value
            value: Any = read if registry.entry_of(default) else default
            kept = conform(value, entry.hints.get(name, Any)) == value
        except Mismatch:
            yield f"The default of {name} has another type than its annotation."
            continue
        except ValueError as error:
            yield f"The default of {name} can't be written in a recipe: {error}"
            continue
        again = repr(read) if isinstance(read, Reference) else format_value(read)
        if not kept or again != format_value(default):
            yield f"The default of {name} reads otherwise in a recipe: {written}."
