"""Imports run downwards only, and some packages are imported in one place alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stav2a"

# From the top down. A module may import from its own layer and from all below it.
LAYERS = [
    [
        "__main__",
        "cli",
        "components.__main__",
        "ablation.__main__",
        "convert.__main__",
        "evaluate.__main__",
        "prepare.__main__",
    ],
    ["evaluate"],
    ["run", "prepare", "generate", "ablation", "dashboard", "listing", "convert", "listen"],
    ["session"],
    ["pipeline", "gallery"],
    ["cached"],
    ["preparation", "results", "audit", "keys"],
    ["experiment"],
    ["comparison"],
    ["report", "plots", "training"],
    ["sampling", "evaluation", "tracking", "run_folder"],
    ["assembly", "pretrained"],
    ["components", "data", "metrics", "judges"],
    ["recipe"],
    ["registry"],
    ["slots", "store", "checkpoints", "convert.reading", "processes", "errors", "options", ""],
]
GIN = {"registry", "recipe", "assembly", "experiment"}
ONLY_IN = {"gin": GIN, "mlflow": {"tracking"}}
WHERE_USED = {"madmom", "transformers", "diffusers", "ray", "gradio", "mlflow"}  # heavy or optional
APART = {
    "components": {"checkpoints", "data", "registry", "slots"},  # and no other component
    "judges": {"judges", "checkpoints", "convert", "data", "registry"},  # of convert: how files are read
    "metrics": {"metrics", "registry"},  # arrays in, numbers out
    "training": {
        "training",
        "assembly",
        "checkpoints",
        "data",
        "errors",
        "processes",
        "registry",
        "sampling",
        "store",
    },  # no component by name
    "sampling": {"assembly", "errors", "registry"},
    "evaluation": {"metrics"},
    "comparison": {
        "comparison",
        "metrics",
        "evaluation",
        "report",
        "plots",
        "data",
        "store",
    },  # scores in, no model
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name inside the package: `components.local_heads`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


def imports(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """The modules that a file imports anywhere, or at its top alone; those of ours start with a dot."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = ours(f"{node.module}.{alias.name}")
                yield inner if inner.startswith(".") and inner[1:] in MODULES else ours(node.module)


def ours(name: str) -> str:
    return name.removeprefix("stav2a") if name == "stav2a" or name.startswith("stav2a.") else name


def layer(module: str) -> int:
    """The depth of a module's layer: of the longest name in `LAYERS` that it is, or lies in."""
    fitting = [
        (len(name), depth)
        for depth, names in enumerate(LAYERS)
        for name in names
        if module == name or (name and module.startswith(f"{name}."))
    ]
    assert fitting, f"{module} is in no layer: name it in LAYERS"
    return max(fitting)[1]


def folder(module: str) -> str:
    return module.split(".")[0]


def room(module: str) -> str:
    """The folder, or the slot in the folder of components: `components.backbones`."""
    return ".".join(module.split(".")[: 2 if folder(module) == "components" else 1])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_downwards(path):
    module = name_of(path)
    upwards = [
        name
        for name in imports(path)
        if name.startswith(".") and name[1:] in MODULES and layer(name[1:]) < layer(module)
    ]
    assert upwards == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_some_packages_are_imported_in_one_place(path):
    found = {name.split(".")[0] for name in imports(path)}
    misplaced = {
        name for name, places in ONLY_IN.items() if name in found and folder(name_of(path)) not in places
    }
    assert misplaced == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert {name.split(".")[0] for name in imports(path, at_top=True)} & WHERE_USED == set()


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if folder(name_of(path)) in APART and path.stem != "__main__"],
    ids=name_of,
)
def test_rooms_see_only_their_neighbours(path):
    module = name_of(path)
    ours = {name[1:] for name in imports(path) if name.startswith(".") and name != "."}
    seen = {folder(name) for name in ours if room(name) != room(module)}
    assert seen <= APART[folder(module)], "see APART"
