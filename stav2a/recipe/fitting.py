"""Whether a value is of the type that an annotation names."""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stav2a import registry
from stav2a.recipe.reading import Reference


class Mismatch(Exception):
    """A value is not of the type."""


def conform(value: Any, hint: Any) -> Any:
    """The value, if it is of the type that the annotation names; text becomes a Path where one is meant.

    Raises:
        Mismatch: It isn't.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _conform_any(value, arguments)
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


def _conform_any(value: Any, hints: Sequence[Any]) -> Any:
    for hint in hints:
        try:
            return conform(value, hint)
        except Mismatch:
            continue
    raise Mismatch


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
    if hint is type(None):
        return _require(value is None, value)
    if hint is float:
        return _require(isinstance(value, int | float) and not isinstance(value, bool), value)
    if hint is int:
        return _require(isinstance(value, int) and not isinstance(value, bool), value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    return _require(isinstance(value, hint), value)


def _require(fits: bool, value: Any) -> Any:
    if not fits:
        raise Mismatch
    return value
