"""Recipes: gin files that name the component of every slot, and its parameters.

`load` reads recipes laid over one another, checks every word of them, and only then hands the bindings to
gin, which supplies them to the components as they are called. gin's state is the process's: one recipe at a
time, and loading another replaces it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import gin

from stav2a import registry
from stav2a.recipe import describing, parsing
from stav2a.recipe.checking import Binding, check
from stav2a.recipe.describing import diff
from stav2a.recipe.parsing import Place, RecipeError, Reference, shown

__all__ = ["Binding", "Place", "Recipe", "RecipeError", "as_root", "diff", "load", "shown"]

SCALES = "scale"  # folder of the recipes that set sizes, for components in use or not

logger = logging.getLogger(__name__)
Root = TypeVar("Root")


def as_root(name: str) -> Callable[[type[Root]], type[Root]]:
    """Let files bind the parameters of a class as `name.parameter`."""

    def decorate(root: type[Root]) -> type[Root]:
        describing.ROOTS[root] = name
        return gin.configurable(name)(root)

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
    """

    named: tuple[Path, ...]
    files: tuple[Path, ...]
    written: tuple[Binding, ...]
    bindings: Mapping[str, Binding]
    imports: tuple[str, ...]
    root: type[Root]

    def build(self) -> Root:
        """The root with the parameters of this recipe, which must be the one loaded last."""
        return self.root()

    def unused(self) -> list[Binding]:
        """Bindings of components that the root doesn't lead to, in the files asked for and those by hand.

        Included files and those of a folder `scale` don't count: they offer settings for what may be used.
        """
        reached = describing.reach(self.root)
        asked = {None, *(path for path in self.named if path.parent.name != SCALES)}
        return [
            binding
            for binding in self.bindings.values()
            if binding.entry.selector not in reached and binding.place.file in asked
        ]

    def described(self) -> Any:
        """The whole configuration; see `describing.describe_root`."""
        return describing.describe_root(self.root)

    def signature(self) -> str:
        """Signature of the whole configuration."""
        return describing.signature(self.described())

    def snapshot(self) -> str:
        """A recipe that alone makes the same configuration, with every parameter by its complete name."""
        return describing.snapshot(self.root, self.imports)


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
        RecipeError: Something doesn't fit; nothing is loaded then.
    """
    registry.load()
    gin.clear_config()
    names = [recipes] if isinstance(recipes, str | Path) else recipes
    parsed = parsing.read(names, bindings, trust=trust)
    written = check(parsed.written, describing.root_entry(root))
    recipe = Recipe(
        named=tuple(parsed.named),
        files=tuple(parsed.files),
        written=tuple(written),
        bindings={binding.key: binding for binding in written},
        imports=tuple(dict.fromkeys(parsed.imports)),
        root=root,
    )
    try:
        _bind_in_gin(recipe)
        for binding in recipe.unused():  # which refuses a component without its values
            selector = binding.entry.selector
            message = f"{binding.key} has no effect: {selector} is not in use."
            if strict:
                raise RecipeError(message, binding.place, f"Use @{selector} or leave the line out.")
            logger.warning("warning: %s\n  %s", message, binding.place)
        recipe.described()  # and values that can't be described
    except RecipeError:
        gin.clear_config()
        raise
    return recipe


def _bind_in_gin(recipe: Recipe[Any]) -> None:
    root = describing.root_selector(describing.ROOTS[recipe.root])
    for binding in recipe.bindings.values():
        selector = binding.entry.selector if binding.entry.slot else root
        gin.bind_parameter(f"{selector}.{binding.parameter}", _for_gin(binding.value))
    gin.finalize()


def _for_gin(value: Any) -> Any:
    if isinstance(value, Reference):
        return gin.config.ConfigurableReference(value.selector, evaluate=False)
    return parsing.mapped(_for_gin, value)
