"""Recipes: loading, laying over one another, describing, signatures and snapshots."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from stav2a import recipe, slots
from stav2a.data.struck_objects import StruckObjects
from stav2a.data.struck_objects.scene import LEVELS
from stav2a.experiments.experiment import Experiment
from stav2a.recipe import describing, parsing
from stav2a.recipe.checking import Mismatch, conform
from stav2a.recipe.parsing import Reference
from stav2a.registry import name_of

ROOT = Path(__file__).parents[2]
VARIANTS = [
    "pretrained_t2a", "finetuned_t2a", "cn_unfiltered", "cn_frozen", "cn", "cn_onset", "cn_onset_gvf",
    "released",
]  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a recipe into an empty current folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def write_one(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return name

    return write_one


def names(files: Sequence[Path]) -> list[str]:
    return [path.stem for path in files]


def test_a_recipe_is_found_from_any_folder(write, recipes):
    assert recipe.load(["recipes/cn.gin"], root=Experiment).named == (recipes / "cn.gin",)
    assert recipe.load(["cn.gin"], root=Experiment).named == (recipes / "cn.gin",)


def test_the_current_folder_comes_before_the_package(write, tmp_path):
    write("recipes/cn.gin", "include 'recipes/pretrained_t2a.gin'")
    assert recipe.load(["recipes/cn.gin"], root=Experiment).named == (tmp_path / "recipes/cn.gin",)


def test_an_include_is_relative_to_its_file(write):
    write("deep/parent.gin", "include 'recipes/cn.gin'\nrun.seed = 5")
    write("deep/child.gin", "include 'parent.gin'")
    assert recipe.load(["deep/child.gin"], root=Experiment).bindings["run.seed"].value == 5


def test_a_later_recipe_lies_over_an_earlier_and_bindings_over_all(write):
    first = write("first.gin", "include 'recipes/cn.gin'\nrun.seed = 1\nrun.guidance_scale = 1.0")
    second = write("second.gin", "run.seed = 2\nrun.guidance_scale = 2.0")
    loaded = recipe.load([first, second], ["run.seed = 3"], root=Experiment)
    assert loaded.bindings["run.seed"].value == 3 and loaded.bindings["run.guidance_scale"].value == 2.0


def test_what_is_included_is_read_once_and_what_is_named_is_laid_over(write):
    write("common.gin", "include 'recipes/cn.gin'\nrun.seed = 1")
    write("child.gin", "include 'common.gin'\nrun.seed = 2")
    write("tweak.gin", "include 'common.gin'\nrun.guidance_scale = 1.5")
    loaded = recipe.load(["child.gin", "tweak.gin"], root=Experiment)
    assert loaded.bindings["run.seed"].value == 2 and loaded.bindings["run.guidance_scale"].value == 1.5
    assert recipe.load(["child.gin", "common.gin"], root=Experiment).bindings["run.seed"].value == 1


def test_a_process_uses_several_recipes_each_with_its_own_values():
    first = recipe.load("recipes/cn_onset.gin", ["local_head.onset.windows = (3,)"], root=Experiment)
    before = first.snapshot(), first.signature(), first.build()
    second = recipe.load(["recipes/cn_onset.gin", "recipes/scale/paper.gin"], root=Experiment)
    assert (first.snapshot(), first.signature()) == before[:2] != (second.snapshot(), second.signature())
    for experiment in (first.build(), before[2]):
        assert experiment.local_head(in_dim=4, length=8).windows == (3,)
        assert experiment.described("local_head")["parameters"]["windows"] == [3]
        assert describing.describe_root(experiment) == first.described()
    assert second.build().local_head(in_dim=4, length=8).windows == (1, 2, 4, 8)


def test_a_component_that_is_another_s_default_takes_its_bindings():
    loaded = recipe.load(
        "recipes/cn.gin", ["optimizer.adamw.betas = (0.5, 0.6)"], strict=True, root=Experiment
    )
    optimizer = loaded.build().trainer().optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["betas"] == (0.5, 0.6)


def test_lineage_is_the_files_in_the_order_read():
    chain = names(parsing.lineage("recipes/cn_onset_gvf.gin"))
    assert chain == [
        "standard", "laptop", "base", "pretrained_t2a", "finetuned_t2a", "cn", "cn_onset", "cn_onset_gvf"
    ]  # fmt: skip
    assert names(recipe.load(["recipes/cn_onset_gvf.gin"], root=Experiment).files) == chain


def test_a_macro_may_be_replaced_in_a_child(write):
    write("parent.gin", "include 'recipes/cn_onset.gin'\nW = (1, 2)\nlocal_head.onset.windows = %W")
    write("child.gin", "include 'parent.gin'\nW = (3,)")
    loaded = recipe.load("child.gin", root=Experiment)
    assert loaded.bindings["local_head.onset.windows"].value == (3,)
    assert "local_head.onset.windows = (3,)\n" in loaded.snapshot()


def test_a_block_binds_one_component(write):
    text = "include 'recipes/cn_onset.gin'\nlocal_head.onset:\n  windows = (1, 2)\n  dim_per_window = 4\n"
    assert (
        recipe.load(write("block.gin", text), root=Experiment)
        .bindings["local_head.onset.dim_per_window"]
        .value
        == 4
    )


def test_components_receive_what_is_bound():
    loaded = recipe.load("recipes/cn_onset.gin", ["local_head.onset.windows = (3,)"], root=Experiment)
    assert loaded.build().local_head(in_dim=4, length=8).windows == (3,)


def test_a_description_holds_bound_values_and_defaults_of_what_is_in_use():
    loaded = recipe.load("recipes/cn_onset.gin", ["local_head.onset.windows = (1, 2)"], root=Experiment)
    described = loaded.described()
    assert described["component"] == "run"
    head = described["parameters"]["local_head"]
    assert head["component"] == "local_head.onset"
    assert head["parameters"]["windows"] == [1, 2] and "in_dim" not in head["parameters"]
    filters = [
        stage["parameters"]["data_filter"]["component"]
        for stage in described["parameters"]["stages"]
        if stage["component"] == "stage.joint"
    ]
    assert filters == ["data_filter.av_align"]


def test_describing_builds_nothing(scratch_registry):
    @scratch_registry.register("vocoder", "explosive")
    class Explosive:
        """Must not be built."""

        def __init__(self, *, fuse_s: float = 3.0) -> None:
            raise AssertionError("built")

        def forward(self, mel):
            return mel

    loaded = recipe.load("recipes/cn.gin", ["run.vocoder = @vocoder.explosive"], root=Experiment)
    assert describing.describe(Explosive) == {
        "component": "vocoder.explosive", "parameters": {"fuse_s": 3.0}
    }  # fmt: skip
    assert "vocoder.explosive.fuse_s = 3.0\n" in loaded.snapshot()


def test_what_no_recipe_can_write_has_no_description():
    for value in (object(), float("nan"), {1, 2}, lambda: 0):
        with pytest.raises(parsing.RecipeError, match="can't be written in a recipe"):
            describing.describe(value)


def test_a_component_inside_itself_is_told(scratch_registry):
    @scratch_registry.register("vocoder", "matryoshka")
    class Matryoshka:
        """Holds another vocoder."""

        def __init__(self, *, inner: Callable[..., Any]) -> None:
            self.inner = inner

        def forward(self, mel):
            return mel

    bindings = ["run.vocoder = @vocoder.matryoshka", "vocoder.matryoshka.inner = @vocoder.matryoshka"]
    with pytest.raises(parsing.RecipeError) as caught:
        recipe.load("recipes/cn.gin", bindings, root=Experiment)
    assert str(caught.value) == (
        "A component is part of itself: run -> vocoder.matryoshka -> vocoder.matryoshka."
    )


def test_a_required_parameter_without_a_value_is_told(scratch_registry):
    @scratch_registry.register("vocoder", "needy")
    class Needy:
        """Wants to know its rate."""

        def __init__(self, *, sample_rate: int) -> None:
            self.sample_rate = sample_rate

        def forward(self, mel):
            return mel

    with pytest.raises(parsing.RecipeError) as caught:
        recipe.load("recipes/cn.gin", ["run.vocoder = @vocoder.needy"], root=Experiment)
    assert str(caught.value) == (
        "vocoder.needy.sample_rate has no value.\n  Write vocoder.needy.sample_rate = VALUE"
    )


def signed(*bindings: str) -> str:
    return recipe.load("recipes/cn_onset.gin", bindings, root=Experiment).signature()


def test_the_signature_is_that_of_the_settings_in_use():
    plain = signed()
    assert plain == signed() and len(plain) == 64
    assert plain == signed("local_head.linear.dim = 3"), "linear is not in use"
    assert plain != signed("local_head.onset.windows = (7,)")
    assert plain != signed("stage.joint.data_filter = @data_filter.none")


def test_a_component_that_gives_other_results_than_before_raises_its_version(monkeypatch):
    before = signed()
    monkeypatch.setattr(StruckObjects, "version", "another")
    assert signed() != before
    loaded = recipe.load("recipes/cn_onset.gin", root=Experiment)
    assert describing.flatten(loaded.described())["dataset.struck_objects.version"] == "another"
    assert "version" not in loaded.snapshot()


def test_a_new_store_format_makes_all_runs_anew(monkeypatch):
    before = signed()
    monkeypatch.setattr(Experiment, "version", "another")
    assert signed() != before


def test_writing_out_a_default_changes_no_signature():
    bound = recipe.load("recipes/cn_onset.gin", root=Experiment).described()["parameters"]["guidance_scale"]
    assert signed() == signed(f"run.guidance_scale = {bound}")
    assert signed("run.guidance_scale = 4") == signed("run.guidance_scale = 4.0")


def test_a_parameter_that_came_later_is_in_no_signature_where_it_is_the_default():
    loaded = recipe.load("recipes/cn_onset.gin", root=Experiment)
    assert "front_end" not in loaded.described()["parameters"]
    assert "run.front_end = @front_end.audioldm_mel\n" in loaded.snapshot()
    assert signed() == signed("run.front_end = @front_end.audioldm_mel")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_snapshot_alone_makes_the_same_configuration(name, write):
    loaded = recipe.load(f"recipes/{name}.gin", root=Experiment)
    snapshot, signature = loaded.snapshot(), loaded.signature()
    again = recipe.load(write("snapshot.gin", snapshot), strict=True, root=Experiment)
    assert again.snapshot() == snapshot and again.signature() == signature


def test_a_snapshot_writes_complete_names():
    for line in recipe.load("recipes/cn_onset_gvf.gin", root=Experiment).snapshot().splitlines():
        key = line.split(" = ")[0]
        slot, _, _ = key.partition(".")
        assert slot in {"run", *slots.SLOTS} and key.count(".") == (1 if slot == "run" else 2)


def test_a_difference_is_told_in_lines():
    linear = recipe.load("recipes/cn.gin", root=Experiment).described()
    onset = recipe.load("recipes/cn.gin", ["run.local_head = @local_head.onset"], root=Experiment).described()
    lines = describing.diff(linear, onset).splitlines()
    assert "- run.local_head = @local_head.linear" in lines
    assert "+ run.local_head = @local_head.onset" in lines
    assert {line.split(" ")[1].rsplit(".", 1)[0] for line in lines} == {
        "run", "local_head.linear", "local_head.onset"
    }  # fmt: skip
    assert describing.diff(linear, linear) == ""


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_one_to_three_bindings_from_its_parent(name, recipes):
    own = [
        each
        for each in recipe.load(f"recipes/{name}.gin", root=Experiment).written
        if each.place.file.stem == name
    ]
    assert 1 <= len(own) <= 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_setting_of_the_laptop_is_left_at_the_paper_s_scale(variant):
    loaded = recipe.load([f"recipes/{variant}.gin", "recipes/scale/paper.gin"], root=Experiment)
    stages = loaded.described()["parameters"]["stages"]
    idle = tuple(f"{each['component']}." for each in stages if each["parameters"]["steps"] == 0)
    used = {line.split(" = ")[0] for line in loaded.snapshot().splitlines()}
    left = [
        key
        for key, binding in loaded.bindings.items()
        if key in used and Path(str(binding.place.file)).stem == "laptop" and not key.startswith(idle)
    ]
    assert left == []


@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_cn_without_filter_lifts_av_align_alone(scale):
    """Sec. III-B2: "We examine the effect of data filtering by AV-Align scores"."""
    filters = {}
    for variant in ("cn", "cn_unfiltered"):
        loaded = recipe.load([f"recipes/{variant}.gin", f"recipes/scale/{scale}.gin"], root=Experiment)
        experiment = loaded.build()
        (joint,) = (factory for factory in experiment.stages if name_of(factory) == "joint")
        described = describing.describe(joint().data_filter)
        every = described["parameters"].get("filters", [described])
        filters[variant] = {each["component"] for each in every} - {"data_filter.none"}
    assert filters["cn"] - filters["cn_unfiltered"] == {"data_filter.av_align"}
    assert filters["cn_unfiltered"] == ({"data_filter.speech_captions"} if scale == "paper" else set())


@pytest.mark.parametrize("scale", sorted(path.stem for path in (ROOT / "recipes/scale").glob("*.gin")))
def test_every_scale_lies_over_every_variant(scale):
    recipe.load(["recipes/cn_onset_gvf.gin", f"recipes/scale/{scale}.gin"], strict=True, root=Experiment)


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_has_a_recipe_that_may_be_laid_over_a_variant(level):
    files = ["recipes/cn_onset_gvf.gin", f"recipes/levels/{level}.gin"]
    loaded = recipe.load(files, strict=True, root=Experiment)
    assert loaded.bindings["dataset.struck_objects.level"].value == level


def test_the_scale_of_gpus_changes_the_execution_of_sampling_alone():
    paper = ["recipes/cn_onset_gvf.gin", "recipes/scale/paper.gin"]
    slow, fast = (
        describing.flatten(recipe.load(files, strict=True, root=Experiment).described())
        for files in (paper, [*paper, "recipes/scale/gpu.gin"])
    )
    changed = {name for name in {*slow, *fast} if slow.get(name) != fast.get(name)}
    assert changed and all(name.startswith(("sampler.fast.", "engine.")) for name in changed)
    assert fast["sampler.fast.engine"] == "@engine.cuda_graph"


@pytest.mark.parametrize("scale", ["laptop", "smoke", "paper", "paper_fast"])
def test_a_flow_stays_one_under_every_scale(scale):
    files = ["recipes/designs/mmaudio.gin", f"recipes/scale/{scale}.gin"]
    made = recipe.load(files, strict=True, root=Experiment).build()
    assert (name_of(made.objective), name_of(made.scheduler)) == ("flow", "flow_match_euler")


def test_a_setting_without_effect_warns(write, caplog):
    write("mine.gin", "include 'recipes/cn.gin'\nlocal_head.onset.windows = (1, 2)")
    loaded = recipe.load("mine.gin", root=Experiment)
    assert [each.key for each in loaded.unused()] == ["local_head.onset.windows"]
    assert caplog.messages == [
        "warning: local_head.onset.windows has no effect: local_head.onset is not in use.\n"
        '  In file "mine.gin", line 2'
    ]


def test_what_a_parent_or_a_scale_offers_may_stay_unused(write):
    write("parent.gin", "include 'recipes/cn.gin'\nlocal_head.onset.windows = (1, 2)")
    write("child.gin", "include 'parent.gin'\nrun.seed = 1")
    write("scale/tiny.gin", "local_head.onset.windows = (1,)")
    assert recipe.load(["child.gin", "scale/tiny.gin"], strict=True, root=Experiment).unused() == []


A_VOCODER = Reference("vocoder.x")
FITTING = [
    (3, int, 3),
    (3, float, 3),
    (2.5, float, 2.5),
    (True, bool, True),
    ("a", str, "a"),
    (None, int | None, None),
    (3, int | None, 3),
    ("a", Literal["a", "b"], "a"),
    ("a/b", Path, Path("a/b")),
    (None, Path | None, None),
    ("a", str | Path, "a"),
    ((1, 2), tuple[int, ...], (1, 2)),
    ((), tuple[int, ...], ()),
    ((1, 0.5), tuple[int, float], (1, 0.5)),
    ([1], Sequence[int], [1]),
    ((1,), Sequence[int], (1,)),
    ([(1, 2)], list[tuple[int, int]], [(1, 2)]),
    ({"a": 1}, dict[str, int], {"a": 1}),
    ({"a": 1}, Mapping[str, int], {"a": 1}),
    (A_VOCODER, Any, A_VOCODER),
    (A_VOCODER, Callable[..., Any], A_VOCODER),
    (A_VOCODER, Callable[..., Any] | None, A_VOCODER),
    ([A_VOCODER], Sequence[Callable[..., Any]], [A_VOCODER]),
    ({"a": A_VOCODER}, Mapping[str, Callable[..., Any]], {"a": A_VOCODER}),
]
OTHER = [
    (2.5, int),
    (True, int),
    (True, float),
    (1, bool),
    ("1", int),
    (1, str),
    (None, int),
    ("c", Literal["a", "b"]),
    (1, Literal[True]),
    (3, Path),
    ([1], tuple[int, ...]),
    ((1,), list[int]),
    ((1, "a"), tuple[int, ...]),
    ((1,), tuple[int, int]),
    ("ab", Sequence[str]),
    ({"a": "b"}, dict[str, int]),
    ([1], dict[str, int]),
    ("x", Callable[..., Any]),
    (A_VOCODER, int),
    (A_VOCODER, Sequence[int]),
    (A_VOCODER, Sequence[Callable[..., Any]]),
]


@pytest.mark.parametrize(("value", "hint", "expected"), FITTING, ids=str)
def test_a_value_of_the_annotated_type_fits(value, hint, expected):
    found = conform(value, hint)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(("value", "hint"), OTHER, ids=str)
def test_a_value_of_another_type_does_not(value, hint):
    with pytest.raises(Mismatch):
        conform(value, hint)


def test_every_recipe_is_a_variant_or_a_part():
    found = {path.stem for path in (ROOT / "recipes").glob("*.gin")}
    assert found == {*VARIANTS, "base"}, "name a new recipe in VARIANTS"


def test_a_recipe_with_a_byte_order_mark_is_read(write):
    plain = recipe.load(["recipes/cn.gin"], root=Experiment).signature()
    marked = write("mine.gin", "\ufeffinclude 'recipes/cn.gin'\n")
    assert recipe.load([marked], root=Experiment).signature() == plain
