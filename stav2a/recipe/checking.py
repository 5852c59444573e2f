"""Checks of a recipe before anything is bound: each component, parameter and value."""

import contextlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stav2a import registry
from stav2a.recipe.parsing import Macro, Place, RecipeError, Reference, WrittenBinding, leaves, mapped
from stav2a.registry import Entry, RegistryError, did_you_mean, short
from stav2a.slots import ROLES, SLOTS

# Kind of a file by the root that its settings bind, and how such a file is given.
KINDS = {
    "run": (
        "a recipe",
        "Give it to `stav2a run --gin`, name it as a row, or lay it over all rows of a study.",
    ),
    "study": ("a study", "Give it to `stav2a ablation --gin`, before any recipe."),
    "evaluation": ("an evaluation", "Give it to `stav2a evaluate --gin`."),
}


@dataclass(frozen=True)
class Binding:
    """Checked binding of a parameter of a component or of the root."""

    entry: Entry
    parameter: str
    value: Any
    place: Place

    @property
    def key(self) -> str:
        """Complete name: `local_head.onset.windows`."""
        return f"{self.entry.selector}.{self.parameter}"


def check(written: Sequence[WrittenBinding], root: Entry) -> list[Binding]:
    """All bindings with their macros filled in, in the order written.

    Raises:
        RecipeError: A binding doesn't fit; the first one is named.
    """
    definitions = [each for each in written if not each.parameter]
    macros = {"/".join(filter(None, (each.scope, each.selector))): each for each in definitions}
    used: set[str] = set()
    bindings = [_bind(each, root, macros, used) for each in written if each.parameter]
    for name, definition in macros.items():
        if name not in used:
            advice = f"To set a parameter write slot.name.{name}; to use a macro write %{name}."
            raise RecipeError(f"Macro {name!r} is never used.", definition.place, advice)
    _refuse_repeats(bindings)
    return bindings


def _bind(each: WrittenBinding, root: Entry, macros: Mapping[str, WrittenBinding], used: set[str]) -> Binding:
    if each.scope:
        message = f"'{each.scope}/{each.selector}' has a scope, which recipes here don't have."
        advice = f"Write {each.selector}.{each.parameter}; for a second variant register a second component."
        raise RecipeError(message, each.place, advice)
    entry = root if each.selector == root.name else _component(each, root)
    _check_parameter(entry, each)
    value = _resolve(each.value, macros, used, each.place)
    for reference in _references(value):
        _check_reference(reference, root, each.place)
    binding = Binding(entry, each.parameter, _conform(entry, each.parameter, value, each.place), each.place)
    _check_slots(binding)
    return binding


def _component(each: WrittenBinding, root: Entry) -> Entry:
    if each.selector in SLOTS:
        names = ", ".join(entry.name for entry in registry.available(each.selector))
        advice = f"Write {each.selector}.NAME.{each.parameter} with one of: {names}."
        raise RecipeError(f"'{each.selector}' is a slot, not a component.", each.place, advice)
    if each.selector in KINDS:
        (theirs, advice), (ours, _) = KINDS[each.selector], KINDS.get(root.name, (f"'{root.name}'", ""))
        setting = f"'{each.selector}.{each.parameter}' is a setting of {theirs}"
        raise RecipeError(f"{setting}, but {ours} was expected here.", each.place, advice)
    return _find(each.selector, root, each.place)


def _find(selector: str, root: Entry, place: Place) -> Entry:
    """The component of a complete name."""
    slot, _, name = selector.rpartition(".")
    if slot in SLOTS:
        try:
            return registry.get(slot, name)
        except RegistryError as error:
            fault = error.message[:1].lower() + error.message[1:]
            message = f"No configurable matching '{selector}': {fault}"
            raise RecipeError(message, place, error.advice) from None
    message = f"No configurable matching '{selector}'."
    same = [entry.selector for entry in registry.available() if entry.name == selector]
    if same:
        raise RecipeError(message, place, f"Write it in full: {' or '.join(same)}.")
    if slot:
        raise RecipeError(message, place, f"No slot is named {slot!r}. {did_you_mean(slot, SLOTS)}")
    raise RecipeError(message, place, did_you_mean(selector, [root.name, *SLOTS]))


def _check_parameter(entry: Entry, each: WrittenBinding) -> None:
    parameter = entry.parameters.get(each.parameter)
    if parameter is None:
        message = f"Configurable '{entry.selector}' doesn't have a parameter named '{each.parameter}'."
        retired = getattr(entry.factory, "retired", {}).get(each.parameter)
        raise RecipeError(message, each.place, retired or did_you_mean(each.parameter, entry.settable))
    if parameter.wired:
        message = f"'{entry.selector}.{each.parameter}' is not for a recipe to set."
        advice = "It is supplied from the neighbouring components. Leave the line out."
        raise RecipeError(message, each.place, advice)


def _resolve(
    value: Any, macros: Mapping[str, WrittenBinding], used: set[str], place: Place, path: tuple[str, ...] = ()
) -> Any:
    """The value with every macro's value in its place."""
    if isinstance(value, Macro):
        if value.name not in macros:
            raise RecipeError(f"No macro named '{value.name}'.", place, did_you_mean(value.name, macros))
        if value.name in path:
            raise RecipeError(f"Macro '{value.name}' leads back to itself.", place)
        used.add(value.name)
        return _resolve(macros[value.name].value, macros, used, place, (*path, value.name))
    return mapped(lambda inner: _resolve(inner, macros, used, place, path), value)


def _references(value: Any) -> list[Reference]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, Reference)]


def _check_reference(reference: Reference, root: Entry, place: Place) -> None:
    if reference.scope:
        advice = f"Write @{reference.selector}; for a second variant register a second component."
        raise RecipeError(f"'{reference!r}' has a scope, which recipes here don't have.", place, advice)
    if reference.selector in SLOTS:
        raise RecipeError(f"'{reference!r}' is a slot.", place, registry.advise(reference.selector))
    _find(reference.selector, root, place)
    if reference.called:
        advice = f"Write @{reference.selector} without parentheses."
        raise RecipeError(f"'{reference!r}' would be built too early, before its neighbours.", place, advice)


def _check_slots(binding: Binding) -> None:
    """A parameter named after a slot, its plural or a role takes components of that slot."""
    names = (binding.parameter, binding.parameter.removesuffix("s"))
    slot = next((ROLES.get(each, each) for each in names if each in SLOTS or each in ROLES), None)
    for reference in _references(binding.value):
        theirs = reference.selector.split(".")[0]
        if slot and theirs != slot:
            message = f"{binding.key} was given {reference.selector}."
            own = f"{binding.entry.selector}.{theirs}"
            known = theirs in binding.entry.settable
            fitting = f" Or bind {own} = @{reference.selector}." if known else ""
            raise RecipeError(message, binding.place, registry.advise(slot) + fitting)


def _refuse_repeats(bindings: Sequence[Binding]) -> None:
    """A file that binds a parameter twice: the first of the lines would have no effect."""
    lines: dict[tuple[Any, str], Place] = {}
    for binding in bindings:
        where = (binding.place.file, binding.key)
        if binding.place.file is not None and lines.get(where, binding.place) != binding.place:
            first = lines[where].line
            message = f"'{binding.key}' is bound twice; first in line {first}."
            raise RecipeError(message, binding.place, "Keep one of the two.")
        lines[where] = binding.place


def _conform(entry: Entry, parameter: str, value: Any, place: Place) -> Any:
    """The value as its annotation has it, or an error that names both."""
    hint = entry.hints.get(parameter, Any)
    try:
        return conform(value, hint)
    except Mismatch:
        keys, value, inner = _innermost(value, hint)
        expected = short(inner) if keys else entry.parameters[parameter].annotation
        given = repr(value) if isinstance(value, Reference) else f"{value!r} ({type(value).__name__})"
        name = "".join([f"{entry.selector}.{parameter}", *(f"[{each!r}]" for each in keys)])
        message = f"{name} expects {expected}, but was given {given}."
        place = place.of(keys[0]) if keys else place
        raise RecipeError(message, place, _advice(parameter, value, inner)) from None


def _innermost(value: Any, hint: Any) -> tuple[list[Any], Any, Any]:
    """Keys of the entry of a dictionary that does not fit, the entry, and what it should be."""
    if isinstance(value, dict):
        for each in _alternatives(hint):
            if issubclass(typing.get_origin(each) or object, Mapping):
                _, inner = typing.get_args(each)
                for key, entry in value.items():
                    if not _fits(entry, inner):
                        keys, entry, inner = _innermost(entry, inner)
                        return [key, *keys], entry, inner
    return [], value, hint


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    try:
        conform(value, hint)
    except Mismatch:
        return False
    return True


def _advice(parameter: str, value: Any, hint: Any) -> str:
    singular = parameter.removesuffix("s")
    if parameter in SLOTS or parameter in ROLES:
        return registry.advise(parameter)
    if singular in SLOTS:
        names = ", ".join(entry.name for entry in registry.available(singular))
        return f"Write a list: [@{singular}.NAME, …] with any of: {names}."
    if isinstance(value, list) and _fits(tuple(value), hint):
        return f"Write {tuple(value)!r}."
    if not isinstance(value, str | tuple) and _fits((value,), hint):
        return f"Write ({value!r},): a tuple of one needs its comma."
    return ""


class Mismatch(Exception):
    """A value that is not of the annotated type."""


def conform(value: Any, hint: Any) -> Any:
    """The value, if it is of the type that the annotation names; text becomes a Path where one is meant.

    Raises:
        Mismatch: It is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for each in arguments:
            with contextlib.suppress(Mismatch):
                return conform(value, each)
        raise Mismatch
    if origin is typing.Annotated:
        return conform(value, arguments[0])
    if origin is Literal:
        return _require(any(value == each and type(value) is type(each) for each in arguments), value)
    if hint in (Callable, typing.Callable, type) or origin in (Callable, type):
        return _require(isinstance(value, Reference) or registry.entry_of(value) is not None, value)
    if isinstance(value, Reference):
        raise Mismatch
    if origin is not None or hint in (tuple, list, dict):
        return _conform_container(value, origin or hint, arguments)
    return _conform_scalar(value, hint)


def _conform_container(value: Any, kind: Any, arguments: Sequence[Any]) -> Any:
    if issubclass(kind, Mapping):
        key, inner = arguments or (Any, Any)
        _require(isinstance(value, dict), value)
        return {conform(k, key): conform(v, inner) for k, v in value.items()}
    _require(isinstance(value, list | tuple) and isinstance(value, kind), value)
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        _require(len(value) == len(arguments), value)
        return tuple(conform(inner, hint) for inner, hint in zip(value, arguments, strict=True))
    return type(value)(conform(inner, arguments[0] if arguments else Any) for inner in value)


def _conform_scalar(value: Any, hint: Any) -> Any:
    if hint in (int, float):
        kind = int | float if hint is float else int
        return _require(isinstance(value, kind) and not isinstance(value, bool), value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    return _require(isinstance(value, hint), value)


def _require(fits: bool, value: Any) -> Any:
    if not fits:
        raise Mismatch
    return value
