"""Mistakes in recipes: each is told before anything is built, with its place and what to do."""

import os
import sys

import pytest

from stav2a import recipe
from stav2a.experiments.experiment import Experiment
from stav2a.recipe import RecipeError

FILE = 'In file "mine.gin", line 2'
WRITE = (
    "Write: slot.name.parameter = value, where a value is a number, a text in quotes, True, False, None, "
    "@slot.name, or a list, tuple or dictionary of these."
)

# What is written below `include 'recipes/cn_onset.gin'`, and the message. "…" stands for anything.
MISTAKES = {
    "slot misspelt": (
        "locl_head.onset.windows = (1, 2)",
        "No configurable matching 'locl_head.onset'.",
        FILE,
        "No slot is named 'locl_head'. Did you mean local_head? Known: …",
    ),
    "name misspelt": (
        "local_head.onst.windows = (1, 2)",
        "No configurable matching 'local_head.onst': no local_head named 'onst'.",
        FILE,
        "Did you mean onset? Known: linear, nearest, none, onset, onset_released, onset_track.",
    ),
    "parameter misspelt": (
        "local_head.onset.windws = (1, 2)",
        "Configurable 'local_head.onset' doesn't have a parameter named 'windws'.",
        FILE,
        "Did you mean windows? Known: dim_per_window, windows.",
    ),
    "reference's name misspelt": (
        "run.local_head = @local_head.onst",
        "No configurable matching 'local_head.onst': no local_head named 'onst'.",
        FILE,
        "Did you mean onset? Known: linear, nearest, none, onset, onset_released, onset_track.",
    ),
    "reference's slot misspelt": (
        "run.local_head = @locl_head.onset",
        "No configurable matching 'locl_head.onset'.",
        FILE,
        "No slot is named 'locl_head'. Did you mean local_head? Known: …",
    ),
    "root misspelt": (
        "rnu.seed = 1",
        "No configurable matching 'rnu'.",
        FILE,
        "Did you mean run? Known: …",
    ),
    "root's parameter misspelt": (
        "run.local_hed = @local_head.onset",
        "Configurable 'run' doesn't have a parameter named 'local_hed'.",
        FILE,
        "Did you mean local_head? Known: …",
    ),
    "another slot's component": (
        "run.sampler = @scheduler.ddim",
        "run.sampler was given scheduler.ddim.",
        FILE,
        "Write @sampler.NAME with one of: autoregressive, fast, fast_branch_parallel, reference, "
        "similarity_guided. "
        "Or bind run.scheduler = @scheduler.ddim.",
    ),
    "wrong slot": (
        "run.local_head = @global_pooler.attentive",
        "run.local_head was given global_pooler.attentive.",
        FILE,
        "Write @local_head.NAME with one of: linear, nearest, none, onset, onset_released, onset_track. Or "
        "bind run.global_pooler = @global_pooler.attentive.",
    ),
    "wrong slot in a list": (
        "run.metrics = [@metric.aa_align, @stage.joint]",
        "run.metrics was given stage.joint.",
        FILE,
        "Write @metric.NAME with one of: …",
    ),
    "wrong slot inside a component": (
        "stage.joint.data_filter = @onset_detector.librosa",
        "stage.joint.data_filter was given onset_detector.librosa.",
        FILE,
        "Write @data_filter.NAME with one of: …",
    ),
    "text for a component": (
        "run.local_head = 'onset'",
        "run.local_head expects Callable[..., Any], but was given 'onset' (str).",
        FILE,
        "Write @local_head.NAME with one of: linear, nearest, none, onset, onset_released, onset_track.",
    ),
    "text for a number": (
        "run.seed = 'abc'",
        "run.seed expects int, but was given 'abc' (str).",
        FILE,
    ),
    "a float for a whole number": (
        "run.num_inference_steps = 2.5",
        "run.num_inference_steps expects int, but was given 2.5 (float).",
        FILE,
    ),
    "True for a number": (
        "run.seed = True",
        "run.seed expects int, but was given True (bool).",
        FILE,
    ),
    "a number for a switch": (
        "backbone.unet_controlnet.freeze_unet = 1",
        "backbone.unet_controlnet.freeze_unet expects bool, but was given 1 (int).",
        FILE,
    ),
    "None where there must be something": (
        "run.duration_s = None",
        "run.duration_s expects float, but was given None (NoneType).",
        FILE,
    ),
    "none of the choices": (
        "objective.flow.time_sampling = 'all'",
        "objective.flow.time_sampling expects Literal['uniform', 'logit_normal'], but was given 'all' (str).",
        FILE,
    ),
    "a setting that another has replaced": (
        "run.prediction_type = 'epsilon'",
        "Configurable 'run' doesn't have a parameter named 'prediction_type'.",
        FILE,
        "Bind run.objective = @objective.epsilon or @objective.v_prediction in its place.",
    ),
    "a tuple of one without its comma": (
        "local_head.onset.windows = (4)",
        "local_head.onset.windows expects tuple[int, ...], but was given 4 (int).",
        FILE,
        "Write (4,): a tuple of one needs its comma.",
    ),
    "a list for a tuple": (
        "local_head.onset.windows = [1, 2]",
        "local_head.onset.windows expects tuple[int, ...], but was given [1, 2] (list).",
        FILE,
        "Write (1, 2).",
    ),
    "a wrong item in a tuple": (
        "local_head.onset.windows = (1, 'b')",
        "local_head.onset.windows expects tuple[int, ...], but was given (1, 'b') (tuple).",
        FILE,
    ),
    "one component for a list": (
        "run.metrics = @metric.aa_align",
        "run.metrics expects Sequence[Callable[..., Any]], but was given @metric.aa_align.",
        FILE,
        "Write a list: [@metric.NAME, …] with any of: …",
    ),
    "a component for a number": (
        "run.seed = @local_head.onset",
        "run.seed expects int, but was given @local_head.onset.",
        FILE,
    ),
    "a component with parentheses": (
        "run.local_head = @local_head.onset()",
        "'@local_head.onset()' would be built too early, before its neighbours.",
        FILE,
        "Write @local_head.onset without parentheses.",
    ),
    "a slot for a component": (
        "run.local_head = @local_head",
        "'@local_head' is a slot.",
        FILE,
        "Write @local_head.NAME with one of: linear, nearest, none, onset, onset_released, onset_track.",
    ),
    "a slot's parameter": (
        "local_head.windows = (1, 2)",
        "'local_head' is a slot, not a component.",
        FILE,
        "Write local_head.NAME.windows with one of: linear, nearest, none, onset, onset_released, "
        "onset_track.",
    ),
    "a short name of one": (
        "onset_f1.tolerance_s = 0.1",
        "No configurable matching 'onset_f1'.",
        FILE,
        "Write it in full: metric.onset_f1.",
    ),
    "a short name of several": (
        "run.global_pooler = @none",
        "No configurable matching 'none'.",
        FILE,
        "Write it in full: local_head.none or global_pooler.none or vocoder.none or data_filter.none or "
        "shortcut.none or adapter.none.",
    ),
    "a scope": (
        "wide/local_head.onset.windows = (8, 16)",
        "'wide/local_head.onset' has a scope, which recipes here don't have.",
        FILE,
        "Write local_head.onset.windows; for a second variant register a second component.",
    ),
    "a reference with a scope": (
        "run.local_head = @wide/local_head.onset",
        "'@wide/local_head.onset' has a scope, which recipes here don't have.",
        FILE,
        "Write @local_head.onset; for a second variant register a second component.",
    ),
    "a wired parameter": (
        "local_head.onset.in_dim = 512",
        "'local_head.onset.in_dim' is not for a recipe to set.",
        FILE,
        "It is supplied from the neighbouring components. Leave the line out.",
    ),
    "a parameter without its component": (
        "windows = (1, 2)",
        "Macro 'windows' is never used.",
        FILE,
        "To set a parameter write slot.name.windows; to use a macro write %windows.",
    ),
    "a macro that nobody defined": (
        "WIDTH = 64\nlocal_head.onset.dim_per_window = %WIDHT",
        "No macro named 'WIDHT'.",
        'In file "mine.gin", line 3',
        "Did you mean WIDTH? Known: FILTER, OBJECTIVE, SCHEDULER, UNALIGNED, WIDTH.",
    ),
    "a macro of itself": (
        "A = %B\nB = %A\nrun.seed = %A",
        "Macro 'A' leads back to itself.",
        'In file "mine.gin", line 4',
    ),
    "the same parameter twice": (
        "run.seed = 1\nrun.seed = 2",
        "'run.seed' is bound twice; first in line 2.",
        'In file "mine.gin", line 3',
        "Keep one of the two.",
    ),
    "a missing include": (
        "include 'recipes/scale/latpop.gin'",
        'There is no recipe "recipes/scale/latpop.gin". Looked in . and …recipes.',
        FILE,
        "Did you mean recipes/scale/laptop.gin? Known: …",
    ),
    "an include of itself": (
        "include 'mine.gin'",
        '"mine.gin" leads back to itself.',
        FILE,
        "Leave this include out.",
    ),
    "an import of somebody's module": (
        "import os",
        "`import os` would run code of that module.",
        FILE,
        "Allow it with --trust-recipe if you know the recipe, or offer the module as a plugin.",
    ),
    "a missing equals sign": (
        "run.seed 1",
        "Couldn't parse statement, expected ':' or '='.",
        FILE,
        "The line is: run.seed 1",
        WRITE,
    ),
    "a call": (
        "run.guidance_scale = float('nan')",
        "…",
        FILE,
        "The line is: run.guidance_scale = float('nan')",
        WRITE,
    ),
    "text without quotes": (
        "sampler.fast.precision = float32",
        "float32 is no value. Text needs quotes; a component starts with @, a macro with %.",
        FILE,
        "The line is: sampler.fast.precision = float32",
        WRITE,
    ),
    "a dictionary with lists for keys": (
        "run.seed = {[1]: 2}",
        'A dictionary in "mine.gin" has a list or a dictionary as its key.',
    ),
    "a bracket left open": (
        "local_head.onset.windows = (1, 2",
        "A bracket or a quote is not closed.",
        "In file …",
    ),
}


def matches(message: str, expected: str) -> bool:
    """Whether the message is the expected one, with "…" for anything."""
    start, *rest = expected.split("…")
    if not message.startswith(start):
        return False
    position = len(start)
    for part in rest:
        found = message.find(part, position) if part else len(message)
        if found < 0:
            return False
        position = found + len(part)
    return position == len(message)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(mistake, empty_folder):
    line, *expected = MISTAKES[mistake]
    (empty_folder / "mine.gin").write_text(f"include 'recipes/cn_onset.gin'\n{line}\n")
    with pytest.raises(RecipeError) as caught:
        recipe.load(["mine.gin"], root=Experiment)
    told = [each.strip() for each in str(caught.value).splitlines()]
    assert len(told) == len(expected) and all(map(matches, told, expected)), str(caught.value)


def test_a_setting_without_effect_is_refused_under_strict(empty_folder):
    (empty_folder / "mine.gin").write_text("include 'recipes/cn.gin'\nlocal_head.onset.windows = (1, 2)\n")
    with pytest.raises(RecipeError) as caught:
        recipe.load(["mine.gin"], strict=True, root=Experiment)
    assert str(caught.value) == (
        "local_head.onset.windows has no effect: local_head.onset is not in use.\n"
        f"  {FILE}\n"
        "  Use @local_head.onset or leave the line out."
    )


def test_a_mistake_in_a_binding_shows_the_binding():
    with pytest.raises(RecipeError) as caught:
        recipe.load(["recipes/cn.gin"], ["run.sed = 1"], root=Experiment)
    assert str(caught.value).splitlines()[:2] == [
        "Configurable 'run' doesn't have a parameter named 'sed'.",
        '  In binding "run.sed = 1"',
    ]


def test_a_slot_left_empty_is_told(empty_folder):
    (empty_folder / "mine.gin").write_text("run.seed = 1\n")
    with pytest.raises(RecipeError) as caught:
        recipe.load(["mine.gin"], root=Experiment)
    told = str(caught.value).splitlines()
    assert told[0] == "run.feature_encoder has no value."
    assert told[1].startswith("  Write @feature_encoder.NAME with one of: cavp")


WRONG_FILES = {
    "missing": ("recipes/cn_onest.gin", "Did you mean recipes/cn_onset.gin? Known: "),
    "without its suffix": ("recipes/cn_onset", "Did you mean recipes/cn_onset.gin? Known: "),
    "of another kind": ("notes.txt", '"notes.txt" is no recipe: recipes are files that end in .gin.'),
    "a folder": ("recipes", '"recipes" is a folder: recipes are files that end in .gin.'),
    "not text": ("noise.gin", '"noise.gin" is no recipe: it holds no text.'),
}


@pytest.mark.parametrize(("name", "told"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_is_no_recipe_is_told(empty_folder, name, told):
    (empty_folder / "notes.txt").write_text("hello")
    (empty_folder / "noise.gin").write_bytes(os.urandom(64) + b"\xff\xfe")
    (empty_folder / "recipes").mkdir()
    with pytest.raises(RecipeError) as caught:
        recipe.load([name], root=Experiment)
    assert any(line.strip().startswith(told) for line in str(caught.value).splitlines()), str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_told(empty_folder):
    (empty_folder / "mine.gin").touch(mode=0)
    with pytest.raises(RecipeError, match='Can\'t read "mine.gin": Permission denied.'):
        recipe.load(["mine.gin"], root=Experiment)


def test_a_trusted_recipe_may_import(empty_folder):
    (empty_folder / "mine.gin").write_text("import colorsys\ninclude 'recipes/cn.gin'\n")
    assert (
        recipe.load(["mine.gin"], trust=True, root=Experiment).snapshot().startswith("import colorsys\nrun.")
    )


def test_a_trusted_recipe_may_import_what_lies_beside_it(empty_folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    there = empty_folder / "there"
    there.mkdir()
    (there / "beside_the_recipe.py").write_text("VALUE = 1\n")
    (there / "mine.gin").write_text("import beside_the_recipe\ninclude 'recipes/cn.gin'\n")
    snapshot = recipe.load([there / "mine.gin"], trust=True, root=Experiment).snapshot()
    assert snapshot.startswith("import beside_the_recipe\nrun.")
    assert sys.modules.pop("beside_the_recipe").VALUE == 1
    # A snapshot lies elsewhere: then the current folder counts.
    (empty_folder / "in_this_folder.py").write_text("")
    assert (
        "in_this_folder"
        in recipe.load(["recipes/cn.gin"], ["import in_this_folder"], trust=True, root=Experiment).imports
    )


def test_an_import_that_fails_is_told(empty_folder):
    (empty_folder / "mine.gin").write_text("import no_such_module_anywhere\n")
    with pytest.raises(RecipeError) as caught:
        recipe.load(["mine.gin"], trust=True, root=Experiment)
    assert str(caught.value) == (
        "Can't import no_such_module_anywhere: "
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'\n"
        '  In file "mine.gin", line 1'
    )
