"""What went wrong in a recipe, and where."""

import os
from dataclasses import dataclass
from pathlib import Path


class RecipeError(ValueError):
    """A recipe that can't be read or doesn't fit; says where, and what to do."""

    exit_code = 2

    def __init__(self, message: str, place: "Place | None" = None, advice: str = "") -> None:
        lines = [message, str(place) if place else "", advice]
        super().__init__("\n  ".join(line for line in lines if line))


@dataclass(frozen=True)
class Place:
    """Where a line of a recipe stands: in a file, or in a binding given by hand (`file` is None)."""

    file: Path | None
    line: int
    text: str = ""

    def __str__(self) -> str:
        if self.file is None:
            return f'In binding "{self.text.strip()}"'
        return f'In file "{shown(self.file)}", line {self.line}'


def shown(path: Path) -> str:
    """A path as short as it can be from here.

    Example:
        >>> shown(Path.cwd() / "recipes" / "cn.gin")
        'recipes/cn.gin'
    """
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()
