"""What every registered component keeps to. A new one is tested the moment it exists."""

import inspect
import pickle
from typing import Any

import pytest

from stav2a import registry
from stav2a.experiments import listing
from stav2a.models.stav2a import BLOCKS
from stav2a.recipe import describing, parsing
from stav2a.recipe.checking import conform
from stav2a.recipe.describing import format_value
from stav2a.recipe.parsing import Reference, _statements
from stav2a.registry import REQUIRED, Entry
from stav2a.slots import SLOTS

registry.load()
every_component = pytest.mark.parametrize("entry", registry.available(), ids=lambda entry: entry.selector)
every_block = pytest.mark.parametrize(
    "entry",
    [entry for entry in registry.available() if entry.slot in BLOCKS],
    ids=lambda entry: entry.selector,
)


def defaults(entry: Entry) -> dict[str, Any]:
    return {name: each.default for name, each in entry.settable.items() if each.default is not REQUIRED}


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_has_a_component_and_says_what_it_promises(slot):
    assert registry.available(slot)
    assert listing.contract(slot).endswith((".", ")"))


@every_component
def test_the_docstring_says_what_it_is_in_a_sentence(entry):
    assert entry.summary.endswith("."), entry.summary
    assert len(entry.summary) <= 200, "say the rest in a second paragraph"


@every_component
def test_the_docstring_explains_each_argument_and_no_other(entry):
    assert list(listing.argument_docs(entry)) == list(entry.parameters)


@every_component
def test_wired_arguments_come_first_and_are_marked(entry):
    wired = SLOTS[entry.slot].wired
    assert tuple(entry.parameters)[: len(wired)] == wired
    docs = listing.argument_docs(entry)
    assert all(docs[name].endswith("Wired.") for name in wired)


@every_component
def test_what_a_recipe_sets_is_given_by_keyword(entry):
    kinds = inspect.signature(entry.factory).parameters
    assert all(kinds[name].kind is inspect.Parameter.KEYWORD_ONLY for name in entry.settable)


@every_block
def test_a_block_shows_its_shapes(entry):
    shapes = listing.sections(entry.doc).get("Shapes", "")
    assert "(B" in shapes and ("->" in shapes)


@every_component
def test_annotations_are_there_and_fit_the_defaults(entry):
    hints = entry.hints
    assert set(entry.parameters) <= set(hints)
    for name, default in defaults(entry).items():
        value = Reference(found.selector) if (found := registry.entry_of(default)) else default
        assert conform(value, hints[name]) == value


@every_component
def test_defaults_can_be_written_in_a_recipe(entry):
    for name, default in defaults(entry).items():
        text = f"{entry.selector}.{name} = {format_value(default)}"
        ((statement, _),) = _statements(text, None)
        read = statement.value
        assert (repr(read) if isinstance(read, Reference) else format_value(read)) == format_value(default)


@every_component
def test_it_is_described_without_being_built(entry):
    if any(each.default is REQUIRED for each in entry.settable.values()):
        with pytest.raises(parsing.RecipeError, match="has no value"):
            describing.describe(entry.factory)
        return
    described = describing.describe(entry.factory)
    assert described["component"] == entry.selector and list(described["parameters"]) == [
        name for name in entry.settable if name not in getattr(entry.factory, "later", ())
    ]
    assert describing.signature(described) == describing.signature(describing.describe(entry.factory))


@every_component
def test_it_survives_pickling(entry):
    assert pickle.loads(pickle.dumps(entry.factory)) is entry.factory


@every_component
def test_it_is_explained_for_people_and_programs(entry):
    assert entry.selector in listing.explain(entry)
    assert listing.entry_as_json(entry)["example"][0].endswith((f"@{entry.selector}", f"@{entry.selector}]"))


@every_component
def test_its_place_is_where_it_is_defined(entry):
    lines = inspect.getsource(inspect.getmodule(entry.factory)).splitlines()
    assert f'@register("{entry.slot}", "{entry.name}")' in lines[entry.line - 1]
