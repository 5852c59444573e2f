"""The loaded configuration without building anything: descriptions, signatures, snapshots, differences."""

import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stav2a import registry, slots
from stav2a.recipe.parsing import RecipeError, leaves
from stav2a.registry import Configured, Entry
from stav2a.utils.contents import Contents

WEIGHTS = ("checkpoint", "weights")  # parameters that name files; so does every value of the type Path

Described = Any  # JSON-serialisable; a component is {"component": name, "parameters": {...}}
ROOTS: dict[type, str] = {}  # name in files, by class


def root_entry(root: type) -> Entry:
    """The root as an entry without a slot."""
    return Entry("", ROOTS[root], root, registry.parameters_of(root), inspect.getfile(root), 0)


def check_complete(entry: Entry, values: Mapping[str, Any]) -> None:
    """Refuse a parameter that has neither a binding nor a default.

    Raises:
        RecipeError: With the line to write.
    """
    for name, value in values.items():
        if value is registry.REQUIRED:
            advice = (
                registry.advise(name) if name in slots.SLOTS else f"Write {entry.selector}.{name} = VALUE"
            )
            raise RecipeError(f"{entry.selector}.{name} has no value.", None, advice)


def reach(root: Configured) -> dict[str, Configured]:
    """The root and every component that it leads to, by name."""
    found: dict[str, Configured] = {}

    def visit(each: Configured) -> None:
        found[each.entry.selector] = each
        for leaf in leaves(each.values):
            if isinstance(leaf, Configured):
                visit(leaf)

    visit(root)
    return found


def describe(value: Any, contents: Contents | None = None, *, complete: bool = False) -> Described:
    """A value as JSON can hold it; a component with all its parameters, and so on down.

    Args:
        value: The value.
        contents: Hashes of files; given, files that are there are described by content, not by path.
        complete: Keep the parameters of `later` at their defaults too, for reports and tracking.

    Raises:
        RecipeError: The value is nothing that a recipe can write.
    """
    entry = registry.entry_of(value)
    if entry is not None:
        return _describe_entry(entry, _values(value, entry), contents, complete)
    if isinstance(value, Mapping):
        return {str(key): describe(inner, contents, complete=complete) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [describe(inner, contents, complete=complete) for inner in value]
    if isinstance(value, Path):
        found = contents.of(value) if contents else None
        return {"content": found} if found else str(value)
    if _is_scalar(value):
        return value
    raise RecipeError(f"{value!r} ({type(value).__name__}) can't be written in a recipe.")


def describe_root(root: Any, contents: Contents | None = None) -> Described:
    """A whole configuration: the parameters of a built root, described."""
    entry = root_entry(type(root))
    return _describe_entry(entry, {name: getattr(root, name) for name in entry.settable}, contents, False)


def signature(described: Described) -> str:
    """A key for a description: equal for equal descriptions, on every machine. 1 and 1.0 are equal."""
    text = json.dumps(_canonical(described), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(described: Described) -> dict[str, Described]:
    """A description as one table, such as `{"run.local_head": "@local_head.onset", …}`."""
    table: dict[str, Described] = {}

    def visit(value: Described) -> Described:
        if isinstance(value, list):
            return [visit(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if not {"component", "parameters"} <= set(value):
            return {key: visit(inner) for key, inner in value.items()}
        if "version" in value:
            table[f"{value['component']}.version"] = value["version"]
        for name, inner in value["parameters"].items():
            table[f"{value['component']}.{name}"] = None  # keeps its place before what it leads to
            table[f"{value['component']}.{name}"] = visit(inner)
        return f"@{value['component']}"

    visit(described)
    return table


def differing(a: Described, b: Described) -> list[str]:
    """Names of the parameters, as `flatten` has them, that two descriptions do not share."""
    old, new = flatten(a), flatten(b)
    return [
        key
        for key in [*old, *(key for key in new if key not in old)]
        if not (key in old and key in new and _canonical(old[key]) == _canonical(new[key]))
    ]


def diff(a: Described, b: Described) -> str:
    """Difference of two descriptions: `-` before a's lines, `+` before b's; empty if there is none."""
    signed = (("-", flatten(a)), ("+", flatten(b)))
    return "\n".join(
        f"{sign} {key} = {table[key]}" for key in differing(a, b) for sign, table in signed if key in table
    )


def differences(there: Described, here: Described) -> str:
    """The parameters that two descriptions do not share, with both values, in words.

    Example:
        >>> there, here = ({"component": "a.b", "parameters": {"c": c}} for c in (0.2, 0.3))
        >>> differences(there, here)
        'a.b.c is 0.2 there, 0.3 here'
    """
    old, new = flatten(there), flatten(here)

    def written(table: Mapping[str, Described], name: str) -> str:
        return str(table[name]) if name in table else "not set"

    return "; ".join(
        f"{name} is {written(old, name)} there, {written(new, name)} here" for name in differing(there, here)
    )


def snapshot(root: Configured, imports: tuple[str, ...] = ()) -> str:
    """A recipe that alone makes the same configuration: every parameter in use, by its complete name."""
    lines = [f"import {module}" for module in imports]
    for selector, each in reach(root).items():
        lines += [f"{selector}.{name} = {format_value(value)}" for name, value in each.values.items()]
    return "\n".join(lines) + "\n"


def format_value(value: Any) -> str:
    """A value as a recipe writes it.

    Example:
        >>> format_value((1, "a", Path("b")))
        "(1, 'a', 'b')"
    """
    entry = registry.entry_of(value)
    if entry is not None:
        return f"@{entry.selector}"
    if isinstance(value, Mapping):
        items = ", ".join(f"{format_value(key)}: {format_value(inner)}" for key, inner in value.items())
        return f"{{{items}}}"
    if isinstance(value, list | tuple):
        items = ", ".join(map(format_value, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' if len(value) == 1 else ''})"
    if isinstance(value, Path):
        return repr(str(value))
    if _is_scalar(value):
        return repr(value)
    raise RecipeError(f"{value!r} ({type(value).__name__}) can't be written in a recipe.")


def _values(value: Any, entry: Entry) -> Mapping[str, Any]:
    """Values of a component's parameters: of a plain one the defaults."""
    if isinstance(value, Configured):
        return value.values
    found = {name: parameter.default for name, parameter in entry.settable.items()}
    check_complete(entry, found)
    return found


def _describe_entry(
    entry: Entry, values: Mapping[str, Any], contents: Contents | None, complete: bool
) -> Described:
    """Name, parameters, and the version of a component that has one: it gives other results than before.

    Parameters in an attribute `later` are left out where they have their default, so that a description, its
    signature and the keys of the store stay what they were before these parameters came; `complete` keeps
    them.
    """
    found = dict(values)
    if contents:
        default = getattr(entry.factory, "default_weights", None)  # of a judge
        if default and found.get("weights") is None and (path := default()) and path.exists():
            found["weights"] = path
        found |= {name: Path(found[name]) for name in WEIGHTS if _is_there(found.get(name))}
    parameters = {name: describe(value, contents, complete=complete) for name, value in found.items()}
    for name in () if complete else getattr(entry.factory, "later", ()):
        if parameters[name] == describe(entry.settable[name].default, contents):
            del parameters[name]
    version = getattr(entry.factory, "version", None)
    versioned = {} if version is None else {"version": version}
    return {"component": entry.selector, "parameters": parameters, **versioned}


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def _canonical(value: Described) -> Described:
    """The same value with whole floats as integers: a recipe may write either where a float is meant."""
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_there(value: Any) -> bool:
    """True for the path of a file or folder; false for a name on a hub, and for what is not made yet."""
    return isinstance(value, str) and bool(value) and Path(value).exists()
