"""Imports run downwards only, some packages are imported in one place alone, and a name means one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stav2a"

# From the top down. A module may import from its own layer and from all below it.
LAYERS = [
    ["", "__main__", "run", "cli"],
    ["demo_page"],
    ["pipeline"],
    ["listening", "preparation"],
    ["experiments"],
    ["reports"],
    ["evaluation"],
    ["training"],
    ["sampling"],
    ["models"],
    ["components"],
    ["data"],
    ["metrics"],
    ["recipe"],
    ["registry"],
    ["slots"],
    ["utils"],
]
ONLY_IN = {
    "gin": {"recipe.parsing"},
    "mlflow": {"experiments.tracking"},
}
MEL_SIZES = {"SAMPLE_RATE", "N_FFT", "HOP", "N_MELS"}  # of AudioLDM; a model has those of its front end
FIXED_RATE = {  # modules whose spectrograms are AudioLDM's whatever the model's front end
    "data.front_ends",
    "evaluation.samples",  # input of the classifier
    "reports.pages",  # pictures
}
WHERE_USED = {"madmom", "transformers", "diffusers", "ray", "gradio", "mlflow"}  # heavy or optional
# Names that Python, a slot's contract or a checkpoint's layout asks for.
SAME_NAMES: set[str] = set()
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name inside the package: `components.local_heads`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


class Unchecked(ast.NodeTransformer):
    """A tree without what type checkers alone see, which is never imported."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imports(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """The modules that a file imports anywhere, or at its top alone; those of ours start with a dot."""
    tree = Unchecked().visit(ast.parse(path.read_text(encoding="utf-8")))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = ours(f"{node.module}.{alias.name}")
                yield inner if inner.startswith(".") and inner[1:] in MODULES else ours(node.module)


def ours(name: str) -> str:
    return name.removeprefix("stav2a") if name == "stav2a" or name.startswith("stav2a.") else name


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def layer(module: str) -> int:
    """The depth of the layer that a module lies in."""
    found = [depth for depth, names in enumerate(LAYERS) if module.split(".")[0] in names]
    assert found, f"{module} is in no layer: name it in LAYERS"
    return found[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_downwards(path):
    module = name_of(path)
    upwards = [
        name
        for name in imports(path)
        if name.startswith(".") and name[1:] in MODULES and name != "." and layer(name[1:]) < layer(module)
    ]
    assert upwards == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_some_packages_are_imported_in_one_place(path):
    found = {name.split(".")[0] for name in imports(path)}
    misplaced = {
        name for name, places in ONLY_IN.items() if name in found and not within(name_of(path), places)
    }
    assert misplaced == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rate_hop_and_bins_are_the_front_ends(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("stav2a.data.mel", "stav2a.data")
        for alias in node.names
    }
    assert name_of(path) in FIXED_RATE or not found & (MEL_SIZES | {"mel"})


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert {name.split(".")[0] for name in imports(path, at_top=True)} & WHERE_USED == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "components"], ids=name_of)
def test_a_component_imports_none_of_another_slot(path):
    assert not [name for name in imports(path) if name.startswith(".components")]


@pytest.mark.parametrize(
    "path", [path for path in FILES if name_of(path).split(".")[0] in ("training", "sampling")], ids=name_of
)
def test_training_and_sampling_name_no_component(path):
    assert not [name for name in imports(path) if name.startswith(".components")]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == "cli" and path.stem != "main"], ids=name_of
)
def test_no_command_is_another_s_library(path):
    commands = {f".cli.{each.stem}" for each in FILES if each.parent.name == "cli"} - {".cli.options"}
    assert not set(imports(path, at_top=True)) & commands


def test_no_two_modules_bear_one_name():
    places = defaultdict(list)
    for path in FILES:
        if not path.stem.startswith("__"):
            places[path.stem].append(name_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_two_classes_bear_one_name():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in SAME_NAMES}
    assert twice == {}
