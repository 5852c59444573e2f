"""Recipes: gin files that name the component of every slot, and its parameters.

`load` reads recipes laid over one another, checks every word of them, and configures the components with
their values. A recipe holds all of its values itself, so a process may use several.
"""

import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from stav2a import registry
from stav2a.recipe import describing, parsing
from stav2a.recipe.checking import Binding, check
from stav2a.recipe.describing import diff
from stav2a.recipe.parsing import Place, RecipeError, Reference, shown
from stav2a.registry import Configured, Entry

__all__ = ["Binding", "Place", "Recipe", "RecipeError", "as_root", "diff", "load", "shown"]

SCALES = ("scale", "levels", "evaluation")  # folders of recipes with settings for components in use or not

logger = logging.getLogger(__name__)
Root = TypeVar("Root")


def as_root(name: str) -> Callable[[type[Root]], type[Root]]:
    """Let files bind the parameters of a class as `name.parameter`."""

    def decorate(root: type[Root]) -> type[Root]:
        describing.ROOTS[root] = name
        return root

    return decorate


@dataclass(frozen=True)
class Recipe(Generic[Root]):
    """A loaded recipe, which binds the parameters of its root.

    Args:
        named: Files asked for.
        files: The same and all that they include, in the order read.
        written: Every binding in the order read, also those that a later one replaces.
        bindings: Binding in force for each complete name.
        imports: Modules that the files import.
        configured: The root, with all that it leads to.
    """

    named: tuple[Path, ...]
    files: tuple[Path, ...]
    written: tuple[Binding, ...]
    bindings: Mapping[str, Binding]
    imports: tuple[str, ...]
    configured: Configured

    def build(self) -> Root:
        """The root with the parameters of this recipe."""
        root: Root = self.configured()
        return root

    def component(self, entry: Entry) -> Configured:
        """A component with the values that this recipe binds, whether or not the root leads to it."""
        return _configure(entry, self.bindings)

    def own_modules(self) -> dict[str, str]:
        """Imported modules that neither this package nor a plugin offers, with their folders, "" for none."""
        offered = {entry_point.module.split(".")[0] for entry_point in registry.plugins()} | {"stav2a"}
        found = {}
        for name in sorted({each.split(".")[0] for each in self.imports} - offered):
            file = getattr(sys.modules[name], "__file__", None)
            found[name] = str(Path(file).parents[Path(file).stem == "__init__"]) if file else ""
        return found

    def unused(self) -> list[Binding]:
        """Bindings of components that the root doesn't lead to, in the files asked for and those by hand.

        Included files and those of a folder `scale`, `levels` or `evaluation` don't count: they offer
        settings for what may be used.
        """
        reached = describing.reach(self.configured)
        asked = {None, *(path for path in self.named if path.parent.name not in SCALES)}
        return [
            binding
            for binding in self.bindings.values()
            if binding.entry.selector not in reached and binding.place.file in asked
        ]

    def described(self, *, complete: bool = False) -> Any:
        """The whole configuration; see `describing.describe`."""
        return describing.describe(self.configured, complete=complete)

    def signature(self) -> str:
        """Signature of the whole configuration."""
        return describing.signature(self.described())

    def snapshot(self) -> str:
        """A recipe that alone makes the same configuration, with every parameter by its complete name."""
        return describing.snapshot(self.configured, self.imports)


def load(
    recipes: Sequence[str | Path] | str | Path,
    bindings: Sequence[str] = (),
    *,
    strict: bool = False,
    trust: bool = False,
    root: type[Root],
) -> Recipe[Root]:
    """Load recipes, each laid over the one before, then bindings by hand.

    Args:
        recipes: Files, from the current folder or from the recipes that come with the package.
        bindings: Lines such as `local_head.onset.windows = (1, 2)`.
        strict: Refuse settings without effect, instead of warning of them.
        trust: Let the recipes import any module.
        root: Class that the recipes describe, declared by `as_root`.

    Raises:
        RecipeError: Something doesn't fit.
    """
    registry.load()
    names = [recipes] if isinstance(recipes, str | Path) else recipes
    parsed = parsing.read(names, bindings, trust=trust)
    entry = describing.root_entry(root)
    written = check(parsed.written, entry)
    in_force = {binding.key: binding for binding in written}
    recipe: Recipe[Root] = Recipe(
        named=tuple(parsed.named),
        files=tuple(parsed.files),
        written=tuple(written),
        bindings=in_force,
        imports=tuple(dict.fromkeys(parsed.imports)),
        configured=_configure(entry, in_force),
    )
    for binding in recipe.unused():
        selector = binding.entry.selector
        message = f"{binding.key} has no effect: {selector} is not in use."
        if strict:
            raise RecipeError(message, binding.place, f"Use @{selector} or leave the line out.")
        logger.warning("warning: %s\n  %s", message, binding.place)
    recipe.described()  # refuses values that can't be described
    return recipe


def _configure(outermost: Entry, bindings: Mapping[str, Binding]) -> Configured:
    """A component with the bound values, and so on down: also a component that is another's default.

    Raises:
        RecipeError: A parameter has no value, or a component is part of itself.
    """
    bound: dict[str, dict[str, Any]] = defaultdict(dict)
    for binding in bindings.values():
        bound[binding.entry.selector][binding.parameter] = binding.value
    made: dict[str, Configured] = {}

    def configure(entry: Entry, path: tuple[str, ...]) -> Configured:
        path = (*path, entry.selector)
        if entry.selector in path[:-1]:
            raise RecipeError(f"A component is part of itself: {' -> '.join(path)}.")

        def fill(value: Any) -> Any:
            if isinstance(value, Reference):
                return configure(registry.get(*value.selector.split(".")), path)
            if inner := registry.entry_of(value):
                return configure(inner, path)
            return parsing.mapped(fill, value)

        if entry.selector not in made:
            given = bound[entry.selector]
            values = {name: given.get(name, each.default) for name, each in entry.settable.items()}
            describing.check_complete(entry, values)
            made[entry.selector] = Configured(entry, {name: fill(value) for name, value in values.items()})
        return made[entry.selector]

    return configure(outermost, ())
