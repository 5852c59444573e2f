"""Parsing of recipes: files, includes, imports and syntax.

gin's parser does the parsing. Its loader is not used: it looks for includes in the current folder, logs
errors where nothing is wrong, runs any import, and does not keep the line of a binding.
"""

import importlib
import os
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gin import config_parser

from stav2a import registry
from stav2a.utils.errors import USAGE, StaV2AError
from stav2a.utils.shipped import shipped_root


class RecipeError(StaV2AError):
    """A recipe that can't be read or doesn't fit."""

    exit_code = USAGE
    separator = "\n  "


@dataclass(frozen=True)
class Place:
    """Line of a recipe, in a file or in a binding given by hand (`file` is None).

    Where a dictionary is bound, `lines` has the line of each of its keys.
    """

    file: Path | None
    line: int
    text: str = ""
    lines: Mapping[Any, int] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        if self.file is None:
            return f'In binding "{self.text.strip()}"'
        return f'In file "{shown(self.file)}", line {self.line}'

    def of(self, key: Any) -> "Place":
        """Place of a key of the dictionary; of the binding where there is no such key."""
        return replace(self, line=self.lines.get(key, self.line))


def shown(path: Path) -> str:
    """A path as short as it can be from here.

    Example:
        >>> shown(Path.cwd() / "recipes" / "cn.gin")
        'recipes/cn.gin'
    """
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()


SUFFIX = ".gin"
SHIPPED = ("recipes", "ablations")  # folders of the package's own files


@dataclass(frozen=True)
class Reference:
    """A component as a recipe writes it: `@local_head.onset`."""

    selector: str
    called: bool = False
    scope: str = ""

    def __repr__(self) -> str:
        return f"@{self.scope + '/' if self.scope else ''}{self.selector}{'()' if self.called else ''}"


@dataclass(frozen=True)
class Macro:
    """A macro's use as a recipe writes it: `%width`."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The function on each item of a container; anything else as it is."""
    if isinstance(value, Mapping):
        return {function(key): function(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(function(inner) for inner in value)
    return value


def leaves(value: Any) -> Iterator[Any]:
    """All that is no container in a value, without the keys of dictionaries."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(inner)
    else:
        yield value


@dataclass(frozen=True)
class WrittenBinding:
    """Binding as it is written; the definition of a macro has no parameter."""

    scope: str
    selector: str
    parameter: str
    value: Any
    place: Place


@dataclass
class ParsedFiles:
    """Contents of recipes in the order read."""

    named: list[Path] = field(default_factory=list)  # asked for
    opened: list[Path] = field(default_factory=list)  # begun and not yet read to their end
    files: list[Path] = field(default_factory=list)  # read to their end, included ones too
    written: list[WrittenBinding] = field(default_factory=list)  # and definitions of macros
    imports: list[str] = field(default_factory=list)


def read(recipes: Sequence[str | Path], bindings: Sequence[str], *, trust: bool) -> ParsedFiles:
    """Read recipes one over another, then bindings by hand.

    A file that is named is laid over all before it; one that is included is read once, so that a scale laid
    over a recipe doesn't bring back the settings that both began with.
    """
    parsed = ParsedFiles()
    for name in recipes:
        path = find(name, Path.cwd())
        parsed.named.append(path)
        _read_file(parsed, path, trust=trust)
    for binding in bindings:
        _read_text(parsed, binding, None, trust=trust)
    return parsed


def lineage(recipe: str | Path) -> list[Path]:
    """Files that make up a recipe in the order read: those that it includes first, itself last."""
    parsed = ParsedFiles()
    _read_file(parsed, find(recipe, Path.cwd()), trust=None)
    return parsed.files


def find(name: str | Path, folder: Path, place: Place | None = None) -> Path:
    """The recipe's file: from `folder`, else from the recipes and studies that come with the package.

    Raises:
        RecipeError: There is none, or it is not a recipe.
    """
    first, *rest = Path(name).parts or ("",)
    root = shipped_root("ablations" if first == "ablations" else "recipes")
    inner = Path(*rest) if first in SHIPPED else Path(name)
    for path in (folder / name, root / name, root / inner):
        if path.is_file() and path.suffix == SUFFIX:
            return path.resolve()
        if path.is_file() or path.is_dir():
            kind = "a folder" if path.is_dir() else "no recipe"
            raise RecipeError(f'"{name}" is {kind}: recipes are files that end in {SUFFIX}.', place)
    own = f"{first}/" if first in SHIPPED else ""
    near = {f"{own}{path.relative_to(root).as_posix()}" for path in root.rglob(f"*{SUFFIX}")}
    here = (folder / name).parent
    near |= {Path(name).with_name(path.name).as_posix() for path in here.glob(f"*{SUFFIX}")}
    looked = f"Looked in {shown(folder)} and {shown(root)}."
    kind = "study" if first == "ablations" else "recipe"
    written = str(name) if Path(name).suffix == SUFFIX else f"{name}{SUFFIX}"
    raise RecipeError(f'There is no {kind} "{name}". {looked}', place, registry.did_you_mean(written, near))


def _read_file(parsed: ParsedFiles, path: Path, *, trust: bool | None, place: Place | None = None) -> None:
    if path in parsed.opened:
        raise RecipeError(f'"{shown(path)}" leads back to itself.', place, "Leave this include out.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError(f'"{shown(path)}" is no recipe: it holds no text.', place) from None
    except OSError as error:
        raise RecipeError(f'Can\'t read "{shown(path)}": {error.strerror}.', place) from None
    parsed.opened.append(path)
    _read_text(parsed, text, path, trust=trust)
    parsed.opened.remove(path)
    if path not in parsed.files:
        parsed.files.append(path)


def _read_text(parsed: ParsedFiles, text: str, path: Path | None, *, trust: bool | None) -> None:
    """Read one file or binding. With trust None only the includes are followed."""
    folder = path.parent if path else Path.cwd()
    for statement, lines in _statements(text, path):
        place = Place(path, statement.location.line_num, text if path is None else "", lines)
        if isinstance(statement, config_parser.IncludeStatement):
            included = find(statement.filename, folder, place)
            if included not in parsed.files:
                _read_file(parsed, included, trust=trust, place=place)
        elif isinstance(statement, config_parser.ImportStatement) and trust is not None:
            _import(statement.module, place, folder, trust=trust)
            parsed.imports.append(statement.module)
        elif isinstance(statement, config_parser.BindingStatement):
            scope, selector, parameter, value, _ = statement
            parsed.written.append(WrittenBinding(scope, selector, parameter, value, place))


def _import(module: str, place: Place, folder: Path, *, trust: bool) -> None:
    """Import a module: of a trusted recipe also one beside it, or in the current folder."""
    offered = {entry_point.module for entry_point in registry.plugins()}
    if not trust and module != "stav2a" and not module.startswith("stav2a.") and module not in offered:
        advice = "Allow it with --trust-recipe if you know the recipe, or offer the module as a plugin."
        raise RecipeError(f"`import {module}` would run code of that module.", place, advice)
    if trust:  # and it stays there, for the worker processes
        sys.path[:0] = [str(each) for each in (folder, Path.cwd()) if str(each) not in sys.path]
    try:
        importlib.import_module(module)
    except Exception as error:
        raise RecipeError(f"Can't import {module}: {type(error).__name__}: {error}", place) from error


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as they are written."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        *scopes, selector = scoped_configurable_name.split("/")
        return Reference(selector, evaluate, "/".join(scopes))

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


class _Parser(config_parser.ConfigParser):
    """gin's parser, with the lines of dictionaries' keys and an error for two equal ones."""

    def __init__(self, text: str, path: Path | None) -> None:
        self._text, self._path = text, path
        self._open: list[dict[Any, int]] = []  # lines of the keys, of the containers that are open
        self._lines: dict[int, dict[Any, int]] = {}  # the same of finished dictionaries, by their id
        super().__init__(text, _Delegate())

    def lines(self, value: Any) -> Mapping[Any, int]:
        """Lines of the keys of a parsed dictionary; empty for other values."""
        return self._lines.get(id(value), {}) if isinstance(value, dict) else {}

    def _maybe_parse_container(self) -> tuple[bool, Any]:
        self._open.append({})
        found, value = super()._maybe_parse_container()
        if lines := self._open.pop():
            self._lines[id(value)] = lines
        return found, value

    def _parse_dict_item(self) -> tuple[Any, Any]:
        line = self._current_token.start[0]
        key, value = super()._parse_dict_item()
        if key in self._open[-1]:
            place = Place(self._path, line, self._text)
            message = f"The key {key!r} stands twice in one dictionary."
            raise RecipeError(message, place, "Keep one of the two.")
        self._open[-1][key] = line
        return key, value


def _statements(text: str, path: Path | None) -> Iterator[tuple[Any, Mapping[Any, int]]]:
    """gin's statements, with the lines of dictionaries' keys; its errors become `RecipeError`."""
    try:
        parser = _Parser(text, path)
        for statement in parser:
            yield statement, parser.lines(getattr(statement, "value", None))
    except SyntaxError as error:
        line, lines = error.lineno or 1, text.splitlines()
        seen = f"The line is: {lines[line - 1].strip()}\n  " if path and 0 < line <= len(lines) else ""
        advice = f"{seen}Write: slot.name.parameter = value, where a value is a number, a text in quotes, "
        advice += "True, False, None, @slot.name, or a list, tuple or dictionary of these."
        raise RecipeError(_message(error.msg), Place(path, line, text), advice) from None
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        what = "A bracket or a quote is not closed" if "EOF" in message else message.capitalize()
        raise RecipeError(f"{what}.", Place(path, line, text)) from None
    except TypeError:  # dict([...]) inside the parser, which doesn't say where
        where = shown(path) if path else text
        raise RecipeError(f'A dictionary in "{where}" has a list or a dictionary as its key.') from None


def _message(message: str) -> str:
    """gin's message; the one that shows an address in memory is replaced."""
    if "Failed to parse token" in message:
        token = message.rsplit("Failed to parse token ", 1)[1].strip().strip("'")
        return f"{token} is no value. Text needs quotes; a component starts with @, a macro with %."
    return message if message.endswith((".", "'")) else f"{message}."
