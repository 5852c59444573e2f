"""Registering, finding and listing components."""

import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from stav2a import registry
from stav2a.cli.main import main
from stav2a.registry import RegistryError, register
from stav2a.slots import SLOTS

pytestmark = pytest.mark.usefixtures("scratch_registry")


class Halving:
    """Keep every second frame.

    Args:
        in_dim: Width. Wired.
        length: Frames. Wired.
        gain: Multiplies the features.
    """

    def __init__(self, in_dim: int, length: int, *, gain: float = 1.0) -> None:
        self.dim, self.gain = in_dim, gain

    def forward(self, e_v: torch.Tensor) -> torch.Tensor:
        return self.gain * e_v[:, ::2]


def test_registering_leaves_a_class_as_it_is():
    assert register("local_head", "halving")(Halving) is Halving
    made = pickle.loads(pickle.dumps(Halving(2, 3, gain=2.0)))
    assert type(made) is Halving and made.gain == 2.0


def test_a_configured_component_makes_plain_objects_with_its_values_in_any_process():
    register("local_head", "halving")(Halving)
    configured = registry.Configured(registry.get("local_head", "halving"), {"gain": 3.0})
    for each in (configured, pickle.loads(pickle.dumps(configured))):
        made = each(in_dim=1, length=1)
        assert type(made) is Halving and made.gain == 3.0


def test_an_entry_tells_what_it_is_and_where():
    register("local_head", "halving")(Halving)
    entry = registry.get("local_head", "halving")
    assert entry.selector == "local_head.halving"
    assert entry.summary == "Keep every second frame."
    assert list(entry.settable) == ["gain"] and list(entry.parameters) == ["in_dim", "length", "gain"]
    assert entry.parameters["gain"].default == 1.0 and entry.parameters["gain"].annotation == "float"
    assert entry.hints["gain"] is float
    assert Path(entry.file) == Path(__file__) and entry.line > 0


def test_a_function_that_builds_the_component_may_be_registered():
    @register("onset_detector", "never")
    def never(threshold: float = 0.5):
        """Find nothing."""
        return lambda audio, sample_rate: []

    assert registry.entry_of(never).selector == "onset_detector.never"


def test_a_module_without_a_constructor_of_its_own_has_no_parameters():
    @register("vocoder", "silent")
    class Silent(nn.Module):
        """Silence."""

        def forward(self, mel):
            return mel.new_zeros(mel.shape[0], 1)

    assert registry.get("vocoder", "silent").parameters == {}


class Fine:
    """Fine."""

    def __init__(self, in_dim, length):
        self.dim = 1

    def forward(self, e_v):
        return e_v


class NoDocstring(Fine):
    pass


@dataclass
class OnlyDataclassDocstring:
    in_dim: int
    length: int

    def forward(self, e_v):
        return e_v


class Starred(Fine):
    """Starred."""

    def __init__(self, in_dim, length, *sizes):
        pass


class DoubleStarred(Fine):
    """Double starred."""

    def __init__(self, in_dim, length, **options):
        pass


class Unwired(Fine):
    """Unwired."""

    def __init__(self, in_dim):
        pass


class NoForward:
    """No forward."""

    def __init__(self, in_dim, length):
        pass


class NoForwardModule(nn.Module):
    """No forward either."""

    def __init__(self, in_dim, length):
        super().__init__()


class OtherForward(Fine):
    """Another forward."""

    def forward(self, features):
        return features


class DemandingForward(Fine):
    """A forward that wants more."""

    def forward(self, e_v, scale):
        return e_v


FAULTS = {
    "unknown slot": ("locl_head", "it", Fine, "No slot named 'locl_head'. Did you mean local_head? Known: "),
    "a name with a capital": ("local_head", "Fine", Fine, "local_head.Fine is no name for a recipe. "),
    "a name with a dash": ("local_head", "fi-ne", Fine, "local_head.fi-ne is no name for a recipe. "),
    "no docstring": ("local_head", "it", NoDocstring, "local_head.it has no docstring of its own. "),
    "dataclass": ("local_head", "it", OnlyDataclassDocstring, "local_head.it has no docstring of its own. "),
    "*args": ("local_head", "it", Starred, "local_head.it takes *sizes, which lets typos through. "),
    "**kwargs": ("local_head", "it", DoubleStarred, "local_head.it takes **options, which lets typos "),
    "not wired": (
        "local_head", "it", Unwired,
        "local_head.it lacks the arguments that the assembly supplies. Add: length.",
    ),
    "no forward": (
        "local_head", "it", NoForward,
        "local_head.it has no method forward(e_v), which its slot promises. Add it.",
    ),
    "no forward in a module": ("local_head", "it", NoForwardModule, "local_head.it has no method forward("),
    "other forward": (
        "local_head", "it", OtherForward,
        "local_head.it has forward(features), but its slot promises forward(e_v). ",
    ),
    "demanding forward": (
        "local_head", "it", DemandingForward,
        "local_head.it has forward(e_v, scale), but its slot promises forward(e_v). ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("slot", "name", "component", "message"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_component_is_refused_at_its_definition(slot, name, component, message):
    with pytest.raises(RegistryError) as caught:
        register(slot, name)(component)
    assert str(caught.value).startswith(message)
    assert (slot, name) not in registry._ENTRIES


class KeywordUNet:
    """A denoiser whose keywords are in an order of their own.

    Args:
        latent_channels: Channels. Wired.
        cond_dim: Width of the tokens. Wired.
        latent_bins: Frequencies. Wired.
    """

    def __init__(self, latent_channels, cond_dim, latent_bins):
        pass

    def forward(
        self, sample, timestep, encoder_hidden_states, return_dict=True, *, encoder_attention_mask=None
    ):
        return (sample,)


def test_keywords_of_a_contract_may_stand_in_any_order():
    register("unet", "keywords")(KeywordUNet)
    assert registry.get("unet", "keywords").settable == {}  # latent_bins is supplied, as it is taken


def test_a_missing_keyword_of_a_contract_is_told():
    class Maskless(KeywordUNet):
        """A denoiser without a mask."""

        def forward(self, sample, timestep, encoder_hidden_states, return_dict=True):
            return (sample,)

    promised = "(sample, timestep, encoder_hidden_states, encoder_attention_mask, return_dict)"
    with pytest.raises(RegistryError, match=f"its slot promises forward{re.escape(promised)}"):
        register("unet", "maskless")(Maskless)


def test_a_taken_name_shows_both_places():
    register("local_head", "fine")(Fine)
    with pytest.raises(RegistryError) as caught:
        register("local_head", "fine")(Halving)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f'local_head.fine is taken by file "{__file__}", line ')
    assert second.startswith(f'  In file "{__file__}", line ')
    assert first.split("line ")[1] != second.split("line ")[1]


def test_an_unknown_name_gets_the_nearest():
    register("local_head", "fine")(Fine)
    with pytest.raises(
        RegistryError, match=r"^No local_head named 'fien'. Did you mean fine\? Known: .*fine"
    ):
        registry.get("local_head", "fien")
    with pytest.raises(
        RegistryError, match=r"^No slot named 'local_heads'. Did you mean local_head\? Known: "
    ):
        registry.available("local_heads")


def test_available_is_in_the_order_of_slots_and_names():
    register("local_head", "zz")(Fine)
    register("local_head", "aa")(Halving)
    names = [entry.name for entry in registry.available("local_head")]
    assert names == sorted(names) and {"aa", "zz"} <= set(names)
    slots = [entry.slot for entry in registry.available()]
    assert slots == sorted(slots, key=list(SLOTS).index)


def test_expect_passes_what_fits_and_what_nobody_registered():
    register("local_head", "fine")(Fine)
    fine = registry.Configured(registry.get("local_head", "fine"), {})
    for factory in (Fine, fine, partial(Fine, length=2), Halving):
        assert registry.expect("local_head", factory) is factory


def test_expect_refuses_another_slot_and_what_is_no_factory():
    register("local_head", "fine")(Fine)
    with pytest.raises(
        RegistryError, match=r"^vocoder was given local_head.fine. Write @vocoder.NAME with one"
    ):
        registry.expect("vocoder", Fine)
    with pytest.raises(
        RegistryError, match=r"^local_head was given <.*Fine.*>, which is no factory. Write @"
    ):
        registry.expect("local_head", Fine(1, 2))
    with pytest.raises(RegistryError, match=r"^local_head was given 'fine', which is no factory. "):
        registry.expect("local_head", "fine")


class Distribution:
    name = "somebodys-parts"


def test_a_broken_plugin_is_named_with_its_distribution(monkeypatch):
    broken = EntryPoint("parts", "no_such_module_of_theirs", registry.PLUGINS)._for(Distribution())
    monkeypatch.setattr(registry, "plugins", lambda: [broken])
    with pytest.raises(RegistryError) as caught:
        registry.load.__wrapped__()
    assert str(caught.value) == (
        "The plugin 'parts' (no_such_module_of_theirs) of somebodys-parts can't be imported: "
        "ModuleNotFoundError: No module named 'no_such_module_of_theirs'\n"
        "  Repair somebodys-parts or uninstall it."
    )


PLUGIN = '''
from torch import nn
from stav2a.registry import register


@register("global_pooler", "median")
class Median(nn.Module):
    """The median over time, as one token.

    Args:
        in_dim: Width of the video features. Wired.
        cond_dim: Width of the text tokens. Wired.

    Shapes:
        e_v (B, L, D_v) -> (B, 1, D_c)
    """

    def __init__(self, in_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, cond_dim)

    def forward(self, e_v):
        return self.project(e_v.median(dim=1, keepdim=True).values)
'''
USE = """
from stav2a import recipe
from stav2a.experiments.experiment import Experiment
loaded = recipe.load(["recipes/cn.gin"], ["run.global_pooler = @global_pooler.median"], root=Experiment)
assert "run.global_pooler = @global_pooler.median" in loaded.snapshot()
from stav2a.cli.main import main
main(["components", "global_pooler"])
"""


def test_an_installed_plugin_is_listed_and_runs_by_recipe(tmp_path):
    """One file, one decorator, one entry point: nothing of ours is edited."""
    (tmp_path / "their_parts.py").write_text(PLUGIN)
    info = tmp_path / "their_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stav2a.components]\nparts = their_parts\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])]),
    }
    result = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "global_pooler.median\n  The median over time, as one token.\n" in result.stdout


def test_all_slots_are_listed(capsys):
    assert main(["components"]) == 0
    shown = capsys.readouterr().out
    for slot in SLOTS:
        assert f"\n{slot}: " in f"\n{shown}"
    assert "  onset " in shown


def test_a_component_is_explained(capsys):
    assert main(["components", "local_head.onset"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("local_head.onset\n\n  Local features learned")
    assert (
        "  in_dim: int  (supplied by the assembly)\n      Width of the video features, D_v. Wired." in shown
    )
    assert "  windows: tuple[int, ...] = (1, 2, 4, 8)" in shown
    assert "Shapes:\n  e_v (B, L, D_v) -> e_lv (B, T, D_l)" in shown
    assert "  run.local_head = @local_head.onset" in shown
    assert 'local_heads.py", line ' in shown


def test_the_example_of_a_stage_is_a_list(capsys):
    main(["components", "metric.aa_align"])
    assert "  run.metrics = [@metric.aa_align]" in capsys.readouterr().out


def test_json_is_for_programs(capsys):
    assert main(["components", "--json"]) == 0
    slots = json.loads(capsys.readouterr().out)["slots"]
    assert [slot["slot"] for slot in slots] == list(SLOTS)
    assert main(["components", "local_head.onset", "--json"]) == 0
    onset = json.loads(capsys.readouterr().out)
    windows = next(each for each in onset["parameters"] if each["name"] == "windows")
    assert windows["default"] == "(1, 2, 4, 8)" and windows["type"] == "tuple[int, ...]"
    assert onset["file"].endswith("local_heads.py") and onset["line"] > 0


@pytest.mark.parametrize(
    ("asked", "told"),
    {
        "local_heda": "error: No slot named 'local_heda'. Did you mean local_head? Known: ",
        "local_head.onst": "error: No local_head named 'onst'. Did you mean onset? Known: ",
        "local_head.onset.windows": "error: No local_head named 'onset.windows'. "
        "Known: linear, nearest, none, onset, onset_released, onset_track.",
    }.items(),
)
def test_an_unknown_slot_or_component_exits_with_2(capsys, asked, told):
    assert main(["components", asked]) == 2
    assert capsys.readouterr().err.startswith(told)


def test_a_module_imported_under_two_names_is_told():
    def define(module):
        @register("local_head", "twice")
        class Twice(Fine):
            """Twice."""

            __module__ = module

    define("parts")
    with pytest.raises(RegistryError, match="^local_head.twice was imported twice, as parts and __main__. "):
        define("__main__")


def test_pages_that_a_docstring_names_can_be_opened_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [page for entry in registry.available() for page in re.findall(r"[^\s(]+\.md", entry.doc)]
    assert len(named) >= 2 and all(Path(page).is_absolute() and Path(page).is_file() for page in named)
