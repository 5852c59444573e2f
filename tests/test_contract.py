"""What every registered component keeps to. A new one is tested the moment it exists."""

from typing import Any

import pytest
from torch import Tensor, nn

from stav2a import registry
from stav2a.experiments import listing
from stav2a.experiments.contract import entry_faults, faults_of
from stav2a.recipe import describing, parsing
from stav2a.registry import REQUIRED
from stav2a.slots import SLOTS

registry.load()
every_component = pytest.mark.parametrize("entry", registry.available(), ids=lambda entry: entry.selector)


NEITHER = object()  # no value of a recipe


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_has_a_component_and_says_what_it_promises(slot):
    assert registry.available(slot)
    assert listing.contract(slot).endswith((".", ")"))


@every_component
def test_it_keeps_to_the_rules_of_components(entry):
    assert list(entry_faults(entry)) == []


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
def test_it_is_explained_for_people_and_programs(entry):
    assert entry.selector in listing.explain(entry)
    assert listing.entry_as_json(entry)["example"][0].endswith((f"@{entry.selector}", f"@{entry.selector}]"))


def test_what_does_not_keep_to_the_rules_is_told(scratch_registry):
    class Careless(nn.Module):
        """Take the mean"""

        def __init__(self, cond_dim: int, in_dim: int, scale=2, *, kind: int = "one", part: Any = NEITHER):
            super().__init__()

        def forward(self, e_v: Tensor) -> Tensor:
            return e_v

    registry.register("global_pooler", "careless")(Careless)
    told = faults_of("global_pooler.careless")
    assert told[:4] == [
        "The docstring begins with no sentence: 'Take the mean'.",
        "Args describes nothing; the arguments are cond_dim, in_dim, scale, kind, part.",
        "The docstring has no Shapes such as e_v (B, L, D_v) -> e_lv (B, T, D_l).",
        "The wired arguments do not come first, as in_dim, cond_dim.",
    ]
    assert told[4:6] == [
        "scale can be given without its name. Put a star before it.",
        "scale has no annotation.",
    ]
    assert told[6] == "The default of kind has another type than its annotation."
    assert told[7].startswith("The default of part can't be written in a recipe: ")
    assert told[8] == "It can't be pickled. Define it at the top of its module."
    assert told[9].startswith("It is not defined below a line @register")
