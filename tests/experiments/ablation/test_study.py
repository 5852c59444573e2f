"""Study files: what they say, and what is told of mistakes in them."""

from pathlib import Path

import pytest

from stav2a import recipe
from stav2a.evaluation.published import PublishedError, read_published
from stav2a.experiments.ablation import study
from stav2a.experiments.experiment import Experiment
from stav2a.recipe import RecipeError

ROOT = Path(__file__).parents[3]
STUDIES = sorted(path for path in (ROOT / "ablations").glob("*.gin") if path.name != "base.gin")

TWO_ROWS = """include 'ablations/base.gin'
study.rows = {
    'CN': 'recipes/cn.gin',
    'K = 16': ('recipes/cn_onset_gvf.gin', 'global_pooler.attentive.tokens = 16'),
}
study.baseline = 'CN'
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a study into an empty folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "mine.gin") -> str:
        (tmp_path / name).write_text(text)
        return name

    return write


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_come_with_the_package_load(path):
    loaded = study.load(path)
    assert loaded.name == path.stem
    assert len(loaded.seeds) >= 3 and len(loaded.rows) >= 2


def test_both_encoders_of_the_blocks_get_the_same_frames():
    rows = [
        row
        for row in study.load(ROOT / "ablations" / "blocks.gin").rows
        if "onset + attentive + concat" in row.name
    ]
    built = [recipe.load(row.recipes, row.bindings, root=Experiment).build() for row in rows]
    encoders = [each.feature_encoder() for each in built]
    assert {type(each).__name__ for each in encoders} == {"CAVP", "CLIP"}
    assert len({(each.frame_rate_hz, each.frame_size) for each in encoders}) == 1


def test_the_paper_s_table_has_its_rows_its_figures_and_its_steps():
    loaded = study.load(ROOT / "ablations" / "table3.gin")
    assert {row.name: row.builds_on for row in loaded.rows} == {
        "Pretrained-T2A": None,
        "FineTuned-T2A": "Pretrained-T2A",
        "CN w/o Filter": "CN",
        "CN Frozen": "CN",
        "CN": "FineTuned-T2A",
        "CN+Onset": "CN",
        "CN+Onset+GVF": "CN+Onset",
    }
    assert set(loaded.published) == {row.name for row in loaded.rows} | {"GT"}
    assert loaded.published["CN"] == {
        "fd": 19.58, "fad": 2.23, "kl": 2.51, "is": 13.38,
        "pam": 0.273, "clap": 0.506, "av_align": 0.277, "aa_align": 0.669,
    }  # fmt: skip
    assert loaded.published["GT"] == {"pam": 0.319, "clap": 0.485, "av_align": 0.3, "aa_align": 1.0}


def test_a_study_is_found_from_anywhere_by_its_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = study.load("ablations/table3.gin")
    assert loaded.rows[0].recipes == (ROOT / "recipes" / "pretrained_t2a.gin",)


def test_a_row_is_recipes_and_bindings(write):
    cn, more = study.load(write(TWO_ROWS)).rows
    assert cn.bindings == ()
    assert more.bindings == ("global_pooler.attentive.tokens = 16",)
    assert more.builds_on == "CN"  # through cn_onset, which is no row here


def test_a_row_of_bindings_builds_on_its_bare_recipe(write):
    text = TWO_ROWS.replace("study.baseline", "# the bare one\nstudy.baseline")
    text = text.replace("'CN': 'recipes/cn.gin',", "'CN': 'recipes/cn.gin', 'K': 'recipes/cn_onset_gvf.gin',")
    assert [row.builds_on for row in study.load(write(text)).rows] == [None, "CN", "K"]


def test_a_recipe_beside_the_study_comes_before_the_package_s(write, tmp_path):
    (tmp_path / "mine_cn.gin").write_text("include 'recipes/cn.gin'\n")
    loaded = study.load(write(TWO_ROWS.replace("'recipes/cn.gin'", "'mine_cn.gin'")))
    assert loaded.rows[0].recipes == (tmp_path / "mine_cn.gin",)


def test_overlays_lie_over_all_rows_and_under_the_command_line_s(write, tmp_path):
    (tmp_path / "own.gin").write_text("run.guidance_scale = 1.5\n")
    name = write(TWO_ROWS + "study.overlays = ('own.gin', 'recipes/evaluation/three_waveforms.gin')\n")
    loaded = study.load(name, ["recipes/scale/smoke.gin"])
    shipped = "recipes/evaluation/three_waveforms.gin"
    assert loaded.recipes[0] == "own.gin" and loaded.recipes[1].endswith(shipped)
    for laid, expected in ((loaded.recipes[:2], (1.5, 3, 10)), (loaded.recipes, (1.5, 1, 2))):
        built = recipe.load([*loaded.rows[0].recipes, *laid], root=Experiment).build()
        found = built.guidance_scale, built.num_waveforms_per_clip, built.num_inference_steps
        assert found == expected
    with pytest.raises(study.StudyError, match=r"study.overlays: 'run.seed = 1' is no recipe"):
        study.load(write(TWO_ROWS + "study.overlays = ('run.seed = 1',)\n"))


def test_seeds_can_be_given_instead(write):
    name = write(TWO_ROWS)
    assert study.load(name).seeds == (0, 1, 2)
    assert study.load(name, seeds=[7]).seeds == (7,)
    with pytest.raises(RecipeError, match="--seeds holds 3 twice.\n  A seed gives the same run again"):
        study.load(name, seeds=[3, 3])


# What replaces what in TWO_ROWS, and the message. The line is checked too where one is given.
MISTAKES = {
    "no rows": (
        TWO_ROWS[TWO_ROWS.index("study.rows") : TWO_ROWS.index("study.base")],
        "",
        "The study has neither study.rows nor study.factors; expected one of them.\n"
        "  Write study.rows = {'NAME': ",
    ),
    "empty rows": (
        TWO_ROWS[TWO_ROWS.index("study.rows") : TWO_ROWS.index("study.base")],
        "study.rows = {}\n",
        'study.rows is empty.\n  In file "mine.gin", line 2\n  Write study.rows = {\'NAME\': ',
    ),
    "baseline of no row": (
        "baseline = 'CN'",
        "baseline = 'CNN'",
        "study.baseline = 'CNN' is no row.\n  In file \"mine.gin\", line 6\n"
        "  Did you mean CN? Known: CN, K = 16.",
    ),
    "no baseline": (
        "study.baseline = 'CN'\n",
        "",
        "study.baseline has no value.\n  Write study.baseline = 'CN', or another row.",
    ),
    "rows and factors": (
        "study.baseline",
        "study.factors = {'K': {'1': (), '2': ()}}\nstudy.baseline",
        "The study has study.rows and study.factors; expected one of them.\n  In file \"mine.gin\", line 6\n",
    ),
    "a plane of no metrics": (
        "study.baseline",
        "study.plane = ('aa_align', 'fdd')\nstudy.baseline",
        "study.plane = ('aa_align', 'fdd'): expected two of the study's metrics.\n"
        "  In file \"mine.gin\", line 6\n  They are: aa_align, ",
    ),
    "a hypothesis of no row": (
        "study.baseline",
        "study.hypotheses = {'H1': ('K = 61', 'CN', 'aa_align')}\nstudy.baseline",
        "The hypothesis 'H1' names 'K = 61', which is no row of the study.\n  In file \"mine.gin\", line 6\n"
        "  Did you mean K = 16?",
    ),
    "a hypothesis of no metric": (
        "study.baseline",
        "study.hypotheses = {'H1': ('K = 16', 'CN', 'aa_alin')}\nstudy.baseline",
        "The hypothesis 'H1' names 'aa_alin', which is no metric of the study.",
    ),
    "a hypothesis of one row": (
        "study.baseline",
        "study.hypotheses = {'H1': ('CN', 'CN', 'aa_align')}\nstudy.baseline",
        "The hypothesis 'H1' compares 'CN' with itself.",
    ),
    "a hypothesis without a metric": (
        "study.baseline",
        "study.hypotheses = {'H1': ('K = 16', 'CN')}\nstudy.baseline",
        "The hypothesis 'H1' is ('K = 16', 'CN').\n  In file \"mine.gin\", line 6\n  Write ('BETTER ROW', ",
    ),
    "a hypothesis in square brackets": (
        "study.baseline",
        "study.hypotheses = {'H1': ['K = 16', 'CN', 'aa_align']}\nstudy.baseline",
        "study.hypotheses['H1'] expects tuple[str, ...], but was given ['K = 16', 'CN', 'aa_align'] (list).\n"
        "  In file \"mine.gin\", line 6\n  Write ('K = 16', 'CN', 'aa_align').",
    ),
    "a hypothesis in words": (
        "study.baseline",
        "study.hypotheses = {'H1': 'K = 16 is better'}\nstudy.baseline",
        "study.hypotheses['H1'] expects tuple[str, ...], but was given 'K = 16 is better' (str).\n"
        '  In file "mine.gin", line 6',
    ),
    "a design of rows": (
        "study.baseline",
        "study.design = 'one_at_a_time'\nstudy.baseline",
        "study.design = 'one_at_a_time': it is for studies of factors, and this one lists its rows.\n"
        "  In file \"mine.gin\", line 6\n  Leave the line out, or write study.factors.",
    ),
    "a row without a recipe": (
        "'recipes/cn_onset_gvf.gin', ",
        "",
        "Row 'K = 16' names no recipe.\n  In file \"mine.gin\", line 4\n  Give a file that ends in .gin",
    ),
    "a recipe that is not there": (
        "recipes/cn.gin",
        "recipes/cnn.gin",
        'There is no recipe "recipes/cnn.gin". Looked in . and …\n  In file "mine.gin", line 3\n'
        "  Did you mean recipes/cn.gin? Known: ",
    ),
    "a part that is nothing": (
        "'global_pooler.attentive.tokens = 16'",
        "'tokens'",
        "Row 'K = 16': 'tokens' is neither a recipe nor a binding.\n  In file \"mine.gin\", line 4\n",
    ),
    "a row that sets the seed": (
        "global_pooler.attentive.tokens = 16",
        "run.seed = 1",
        "Row 'K = 16' binds run.seed.\n  In file \"mine.gin\", line 4\n"
        "  Every row gets the seeds of study.seeds.",
    ),
    "two rows of one name": (
        "'K = 16'",
        "'CN'",
        "The key 'CN' stands twice in one dictionary.\n  In file \"mine.gin\", line 4\n"
        "  Keep one of the two.",
    ),
    "two rows of one file name": (
        "'K = 16': (",
        "'K 16': 'recipes/cn.gin', 'K/16': (",
        "Rows 'K 16' and 'K/16' would write the same files.\n  In file \"mine.gin\", line 4\n",
    ),
    "a row without a name": ("'CN'", "' '", "A row has no name.\n"),
    "an unknown direction": (
        "study.baseline",
        "study.metrics = {'kl': 'lowr'}\nstudy.baseline",
        "study.metrics: 'kl' is 'lowr', which is no direction.\n  In file \"mine.gin\", line 6\n"
        "  Did you mean lower? Known: higher, lower.",
    ),
    "no metrics": ("study.baseline", "study.metrics = {}\nstudy.baseline", "study.metrics is empty.\n"),
    "no seeds": (
        "study.baseline",
        "study.seeds = ()\nstudy.baseline",
        "study.seeds is empty. Expected at least one, such as (0, 1, 2).\n  In file \"mine.gin\", line 6",
    ),
    "a seed twice": (
        "study.baseline",
        "study.seeds = (0, 1, 1)\nstudy.baseline",
        "study.seeds holds 1 twice.\n  In file \"mine.gin\", line 6\n  A seed gives the same run again: name",
    ),
    "a seed below zero": (
        "study.baseline",
        "study.seeds = (-1,)\nstudy.baseline",
        "study.seeds holds -1. Expected 0 or more.\n",
    ),
    "a setting misspelt": (
        "study.baseline",
        "study.basline",
        "Configurable 'study' doesn't have a parameter named 'basline'.\n  In file \"mine.gin\", line 6\n"
        "  Did you mean baseline? ",
    ),
    "a word for rows": (
        TWO_ROWS[TWO_ROWS.index("study.rows") : TWO_ROWS.index("study.base")],
        "study.rows = 'recipes/cn.gin'\n",
        "study.rows expects Mapping[str, str | tuple[str, ...]] | None, but was given 'recipes/cn.gin' "
        "(str).\n",
    ),
    "a setting of a recipe": (
        "study.baseline",
        "run.seed = 1\nstudy.baseline",
        "'run.seed' is a setting of a recipe, but a study was expected here.\n"
        "  In file \"mine.gin\", line 6\n"
        "  Give it to `stav2a run --gin`, name it as a row, or lay it over all rows of a study.",
    ),
    "figures that are not there": (
        "study.baseline",
        "study.published = 'paper.csv'\nstudy.baseline",
        "There is no file 'paper.csv'. Looked in . and here.\n  In file \"mine.gin\", line 6\n"
        "  Name a CSV beside the study, or leave the line out.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_place_and_what_to_do(write, old, new, told):
    assert old in TWO_ROWS
    with pytest.raises(RecipeError) as caught:
        study.load(write(TWO_ROWS.replace(old, new)))
    message = str(caught.value)
    if "…" in told:
        start, end = told.split("…")
        assert message.startswith(start) and end in message
    else:
        assert message.startswith(told)


def test_a_recipe_is_no_study():
    with pytest.raises(RecipeError, match="is a setting of a recipe, but a study was expected here."):
        study.load("recipes/cn.gin")


def test_a_study_is_no_recipe():
    with pytest.raises(RecipeError, match="'study.seeds' is a setting of a study, but a recipe was expected"):
        recipe.load("ablations/table3.gin", root=Experiment)


PUBLISHED = {
    "no row column": ("name,kl\nCN,2.5\n", '"p.csv" has no column row. Its first line is: name,kl'),
    "no metric": (
        "row,kll\nCN,2.5\n",
        '"p.csv" has no column of any metric of the study, such as kl. Did you mean kll? Known: kll.',
    ),
    "no row": (
        "row,kl\nCNN,2.5\n",
        "\"p.csv\" has no row of the study, such as 'CN'. Did you mean CNN? Known: CNN.",
    ),
    "a row twice": ("row,kl\nCN,2.5\nCN,2.5\n", "\"p.csv\", line 3: the row 'CN' is there already."),
    "a word": (
        "row,kl\nCN,low\n",
        "\"p.csv\", line 2: kl is 'low'. Expected a figure, or nothing.",
    ),
    "a cell too many": ("row,kl\nCN,1,2\n", '"p.csv", line 2: it has not as many cells as the first line.'),
    "a cell too few": ("row,kl\nCN\n", '"p.csv", line 2: it has not as many cells as the first line.'),
    "nothing": ("", '"p.csv" has no column row. Its first line is: '),
}


@pytest.mark.parametrize(("text", "told"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_table_of_figures_that_can_not_be(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(PublishedError) as caught:
        read_published(tmp_path / "p.csv", rows=["CN"], metrics=["kl"])
    assert str(caught.value) == told


def test_figures_that_a_paper_does_not_give_are_left_out(tmp_path):
    (tmp_path / "p.csv").write_text("row,kl,fd\nCN,–,1.5\nGT,,-\n")
    assert read_published(tmp_path / "p.csv", rows=["CN"], metrics=["kl"]) == {"CN": {"fd": 1.5}, "GT": {}}


def test_a_mistake_in_the_figures_names_the_study_s_line(write, tmp_path):
    (tmp_path / "p.csv").write_text("row,kl\nCN,low\n")
    with pytest.raises(study.StudyError, match="kl is 'low'.*\n  In file \"mine.gin\", line 7"):
        study.load(write(TWO_ROWS + "study.published = 'p.csv'\n"))
