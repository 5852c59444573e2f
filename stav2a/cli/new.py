"""`stav2a new`: a commented skeleton of a component, recipe, study or plugin, which passes its tests."""

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from stav2a.utils.errors import SUCCESS, UsageError, printable
from stav2a.utils.shipped import doc, shipped_root

NAME, CLASS, SLOT, BASE = "my_name", "MyName", "my_slot", "my_base"  # words of the skeletons
NEXT = {
    "recipe": "stav2a run --gin {where}/{name}.gin --check",
    "study": "stav2a ablation --gin {where}/{name}.gin --plan",
    "component": "pytest {where}/test_{name}.py",
    "plugin": "cd {where} && pip install -e . && pytest",
}

EXAMPLES = f"""
  stav2a new recipe mine                          mine.gin: a recipe with a few changes
  stav2a new study mine                           mine.gin: rows to compare
  stav2a new component smooth --slot local_head   smooth.py, smooth.gin and test_smooth.py
  stav2a new plugin smooth --slot local_head      a package of your own, with entry point, recipes and tests

What is written passes as it is: change it step by step. {doc("components.md")} explains components,
{doc("recipes.md")} recipes.
"""


def new(
    kind: Annotated[Literal["component", "recipe", "study", "plugin"], Argument(help="what to write")],
    name: Annotated[str, Argument(metavar="NAME", help="its name: lower-case letters, digits, underscores")],
    slot: Annotated[
        str, Option(metavar="SLOT", help="slot of a component, or of a plugin's component")
    ] = "local_head",
    output: Annotated[Path, Option(metavar="DIR", help="folder to write into")] = Path(),
) -> int:
    """Write a commented skeleton that passes its tests at once."""
    from stav2a.utils.files import new_folder, write_text

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r} is no name: take lower-case letters, digits and underscores.")
    root = shipped_root("skeletons")
    words = {NAME: name, CLASS: "".join(part.title() for part in name.split("_")), SLOT: slot}
    if kind in ("recipe", "study"):
        files = {f"{name}.gin": root / kind / f"{NAME}.gin"}
    else:
        _check_component(name, slot, root)
        files = _component(name, slot, root) if kind == "component" else _plugin(name, slot, root)
        recipe = root / "component" / f"{slot}.gin"
        (words[BASE],) = re.findall(r"^include '(.*)'", recipe.read_text(encoding="utf-8"), flags=re.M)
    texts = {target: _filled(source, words) for target, source in files.items()}
    if kind == "component":  # a plugin's entry point has it imported
        texts[f"{name}.gin"] = (
            f"import {name}  # beside this file: give --trust-recipe\n" + texts[f"{name}.gin"]
        )
    if kind == "plugin":
        with new_folder(output / name) as folder:
            for target, text in texts.items():
                (folder / target).parent.mkdir(exist_ok=True)
                (folder / target).write_text(text, encoding="utf-8")
    else:
        if there := [output / target for target in texts if (output / target).exists()]:
            raise UsageError(f"{there[0]} is there already. Choose another name or --output.")
        output.mkdir(parents=True, exist_ok=True)
        for target, text in texts.items():
            write_text(output / target, text)
    where = output / name if kind == "plugin" else output
    for target in texts:
        print(printable(where / target))
    print(f"Next: {NEXT[kind].format(name=name, where=printable(where))}", file=sys.stderr)
    return SUCCESS


def _component(name: str, slot: str, root: Path) -> dict[str, Path]:
    """Files of a component by their names: module, recipe and test."""
    return {
        f"{name}.py": root / "component" / f"{slot}.py",
        f"{name}.gin": root / "component" / f"{slot}.gin",
        f"test_{name}.py": root / "component" / f"test_{NAME}.py",
    }


def _plugin(name: str, slot: str, root: Path) -> dict[str, Path]:
    """Files of a package by their names."""
    plugin = root / "plugin"
    return {
        "pyproject.toml": plugin / "pyproject.toml",
        "README.md": plugin / "README.md",
        f"{name}/__init__.py": plugin / "__init__.py",
        f"{name}/components.py": root / "component" / f"{slot}.py",
        f"recipes/{name}.gin": root / "component" / f"{slot}.gin",
        "recipes/study.gin": plugin / "study.gin",
        f"tests/test_{name}.py": plugin / f"test_{NAME}.py",
    }


def _check_component(name: str, slot: str, root: Path) -> None:
    """Refuse a slot without a skeleton, and a name that is taken in it or by a module."""
    from stav2a import registry

    known = sorted(path.stem for path in (root / "component").glob("*.gin"))
    if slot not in known:
        raise UsageError(
            f"there is no skeleton for the slot {slot!r}.",
            advice=f"{registry.did_you_mean(slot, known)} For the others: {doc('components.md')}.",
        )
    registry.load()
    if any(entry.name == name for entry in registry.available(slot)):
        raise UsageError(f"{slot}.{name} is there already. Take another name.")
    if importlib.util.find_spec(name) is not None:
        raise UsageError(f"a module named {name} is there already. Take another name.")


def _filled(source: Path, words: Mapping[str, str]) -> str:
    """A skeleton's text with the user's names."""
    return re.sub("|".join(words), lambda found: words[found[0]], source.read_text(encoding="utf-8"))
