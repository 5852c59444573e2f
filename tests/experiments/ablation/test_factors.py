"""Studies of factors: their combinations, designs, refusals and mistakes. Nothing is trained."""

import json
from dataclasses import asdict
from itertools import combinations, product

import numpy as np
import pytest

from stav2a.evaluation.factorial import EffectCoding
from stav2a.experiments.ablation import study
from stav2a.experiments.ablation.factors import combinations_of, d_optimal, smallest_fraction
from stav2a.experiments.ablation.planning import plan, summary, try_rows
from stav2a.experiments.ablation.study_report import new_record, parse_record
from stav2a.recipe import RecipeError

FACTORS = """include 'ablations/base.gin'
study.base = 'recipes/cn.gin'
study.factors = {
    'local head': {'onset': 'recipes/cn_onset.gin', 'linear': ()},
    'pooler': {
        'attentive': 'run.global_pooler = @global_pooler.attentive',
        'none': (),
    },
    'fuser': {
        'concat': (),
        'cross attention': 'run.condition_fuser = @condition_fuser.cross_attention',
    },
}
"""
SMOKE = ["recipes/scale/smoke.gin"]


@pytest.fixture
def load(tmp_path):
    """Loads a study of factors from a file of its own."""

    def load(more: str = "", **replaced: str) -> study.LoadedStudy:
        text = FACTORS + more
        for old, new in replaced.items():
            text = text.replace(old, new)
        (tmp_path / "mine.gin").write_text(text)
        return study.load(tmp_path / "mine.gin", SMOKE, seeds=[0])

    return load


def test_rows_are_named_after_their_levels_and_keep_them_as_fields(load):
    loaded = load()
    names = [row.name for row in loaded.rows]
    assert len(names) == 8
    assert names[:3] == [
        "onset + attentive + concat", "onset + attentive + cross attention", "onset + none + concat"
    ]  # fmt: skip
    assert loaded.baseline == names[0]
    assert loaded.rows[1].levels == {
        "local head": "onset", "pooler": "attentive", "fuser": "cross attention"
    }  # fmt: skip
    assert [path.name for path in loaded.rows[1].recipes] == ["cn.gin", "cn_onset.gin"]
    assert loaded.rows[1].bindings == (
        "run.global_pooler = @global_pooler.attentive",
        "run.condition_fuser = @condition_fuser.cross_attention",
    )


def test_another_baseline_is_named_by_its_levels(load):
    assert load("study.baseline = 'linear + none + concat'\n").baseline == "linear + none + concat"


def test_one_at_a_time_changes_one_level_of_the_baseline(load):
    loaded = load("study.design = 'one_at_a_time'\nstudy.baseline = 'linear + attentive + concat'\n")
    assert [row.name for row in loaded.rows] == [
        "onset + attentive + concat",
        "linear + attentive + concat",
        "linear + attentive + cross attention",
        "linear + none + concat",
    ]


def test_a_fraction_is_the_same_every_time_and_has_the_baseline(load):
    more = "study.design = 'fractional'\nstudy.combinations = 7\n"
    rows = [row.name for row in load(more).rows]
    assert rows == [row.name for row in load(more).rows]
    assert len(rows) == 7 and rows[0] == "onset + attentive + concat"


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 3, 2, 2), (3, 3, 3), (2, 2, 2, 2, 2)])
def test_a_fraction_can_estimate_all_main_effects_and_pairwise_interactions(sizes):
    factors = {f"{i}": [f"{i}{level}" for level in range(size)] for i, size in enumerate(sizes)}
    least, coding = smallest_fraction(factors), EffectCoding(factors)
    widths = [size - 1 for size in sizes]
    assert least == 1 + sum(widths) + sum(a * b for a, b in combinations(widths, 2))
    everything = combinations_of(factors)
    assert [tuple(each.values()) for each in everything] == list(product(*factors.values()))
    chosen = d_optimal(factors, everything[-1], least)
    matrix = np.array([coding.mean(each) for each in chosen])
    assert np.linalg.matrix_rank(matrix) == least and everything[-1] in chosen
    full = np.array([coding.mean(each) for each in everything])
    efficiency = (np.linalg.det(matrix.T @ matrix / least) / np.linalg.det(full.T @ full / len(full))) ** (
        1 / least
    )
    assert efficiency > 0.7


@pytest.mark.slow
def test_combinations_that_can_not_work_are_listed_and_the_others_go_on(load, tmp_path):
    two_factors = {"    'local head': {'onset': 'recipes/cn_onset.gin', 'linear': ()},\n": ""}
    tried = try_rows(plan(load(**two_factors), tmp_path / "runs"))
    reason = (
        "condition_fuser.cross_attention needs video tokens, and run.global_pooler = @global_pooler.none "
        "gives none. Bind run.global_pooler = @global_pooler.frames, or another pooler."
    )
    assert tried.refused == {"none + cross attention": reason}
    assert len(tried.runs) == len(tried.study.rows) == 3
    text = summary(tried)
    assert text.startswith(
        "mine: 3 rows × 1 seed (0), compared with attentive + concat\n"
        "factors: pooler (attentive, none), fuser (concat, cross attention)\n"
    )
    assert f"  none + cross attention       refused: {reason}\n" in text
    record = parse_record(json.dumps(new_record(tried, "stav2a ablation --gin mine.gin")))
    assert record["refused"] == [["none + cross attention", reason]]
    assert record["factors"][0] == ["pooler", ["attentive", "none"]]
    assert [row["levels"] for row in record["rows"]] == [dict(row.levels) for row in tried.study.rows]


def test_a_combination_equal_to_another_is_refused(load, tmp_path):
    loaded = load(
        **{"'cross attention': 'run.condition_fuser = @condition_fuser.cross_attention'": "'eq. 5': ()"}
    )
    planned = plan(loaded, tmp_path)
    assert planned.refused["onset + none + eq. 5"] == (
        "every setting is equal to those of onset + none + concat."
    )
    assert len(planned.refused) == len(planned.runs) == 4


def test_a_study_of_which_the_baseline_alone_is_left_is_refused(tmp_path):
    text = "include 'ablations/base.gin'\nstudy.base = 'recipes/cn.gin'\nstudy.factors = {{'fuser': {}}}"
    file = tmp_path / "mine.gin"
    file.write_text(text.format({"concat": (), "eq. 5": "run.condition_fuser = @condition_fuser.concat"}))
    with pytest.raises(RecipeError) as caught:
        plan(study.load(file, SMOKE), tmp_path)
    assert "line 3" in str(caught.value)
    assert str(caught.value).startswith(
        "Nothing is left to compare with the baseline 'concat': all other combinations are refused, 'eq. 5' "
        "because every setting is equal to those of concat."
    )


def test_a_binding_of_a_factor_holds_against_a_recipe_of_a_later_one(tmp_path):
    levels = {
        "pooler": {"mean": "run.global_pooler = @global_pooler.mean", "the recipe's": ()},
        "recipe": {"without": (), "with": "recipes/cn_onset_gvf.gin"},  # which binds another pooler
    }
    text = f"include 'ablations/base.gin'\nstudy.base = 'recipes/cn_onset.gin'\nstudy.factors = {levels}"
    (tmp_path / "mine.gin").write_text(text)
    planned = plan(study.load(tmp_path / "mine.gin", SMOKE, seeds=[0]), tmp_path)
    assert planned.refused == {"mean + with": "every setting is equal to those of mean + without."}
    poolers = [run.described["parameters"]["global_pooler"]["component"] for run in planned.runs]
    assert poolers == ["global_pooler.mean", "global_pooler.none", "global_pooler.attentive"]


def test_the_baseline_is_not_refused_but_an_error(load, tmp_path):
    with pytest.raises(RecipeError) as caught:
        plan(load(**{"'recipes/cn_onset.gin'": "'stage.joint.epochs = 2'"}), tmp_path)
    told = str(caught.value)
    assert told.startswith(
        "Row 'onset + attentive + concat' can't run: stage.joint.steps = 2 and stage.joint"
    )
    assert 'mine.gin", line 3' in told


def test_rows_of_factors_share_what_they_have_in_common(load, tmp_path):
    missing = plan(load(), tmp_path).missing()
    count = [entry.title for entry in missing].count
    assert (count("joint"), count("onset"), count("contrastive"), count("autoencoder")) == (8, 1, 1, 1)


MISTAKES = {
    "no factors": (
        FACTORS[FACTORS.index("study.factors") :],
        "study.factors = {}\n",
        "study.factors is empty.\n  In file \"mine.gin\", line 3\n  Write study.factors = {'FACTOR': ",
    ),
    "one level": (
        ", 'linear': ()",
        "",
        "The factor 'local head' has 1 level; expected two or more.\n  In file \"mine.gin\", line 4\n",
    ),
    "a list of levels": (
        "{'onset': 'recipes/cn_onset.gin', 'linear': ()}",
        "['onset', 'linear']",
        "study.factors['local head'] expects Mapping[str, str | tuple[str, ...]], but was given "
        "['onset', 'linear'] (list).\n  In file \"mine.gin\", line 4",
    ),
    "a number for a level": (
        "'none': ()",
        "'none': 1",
        "study.factors['pooler']['none'] expects str | tuple[str, ...], but was given 1 (int).\n"
        "  In file \"mine.gin\", line 5",
    ),
    "an empty name": ("'none': ()", "' ': ()", "The factor 'pooler' has a name that is empty, its own or "),
    "a baseline of no combination": (
        "study.base =",
        "study.baseline = 'onset + attentive'\nstudy.base =",
        "study.baseline = 'onset + attentive' is no combination of one level of each factor.\n"
        '  In file "mine.gin", line 2\n  Did you mean onset + attentive + concat? Known: ',
    ),
    "no such design": (
        "study.base =",
        "study.design = 'ful'\nstudy.base =",
        "study.design = 'ful' is no design.\n  In file \"mine.gin\", line 2\n  Did you mean full? Known: ",
    ),
    "a number for all combinations": (
        "study.base =",
        "study.combinations = 7\nstudy.base =",
        "study.combinations = 7: it is for study.design = 'fractional'.\n  In file \"mine.gin\", line 2\n",
    ),
    "too few combinations": (
        "study.base =",
        "study.combinations = 6\nstudy.design = 'fractional'\nstudy.base =",
        "study.combinations = 6: expected 7 to 8, 7 being the number of main effects and pairwise "
        'interactions with their mean.\n  In file "mine.gin", line 2\n  Write study.combinations = 7',
    ),
    "too many combinations": (
        "study.base =",
        "study.combinations = 9\nstudy.design = 'fractional'\nstudy.base =",
        "study.combinations = 9: expected 7 to 8, 7 being the number of main effects and pairwise "
        'interactions with their mean.\n  In file "mine.gin", line 2\n  Write study.combinations = 8.',
    ),
    "no recipe": (
        "study.base = 'recipes/cn.gin'\n",
        "",
        "Row 'linear + attentive + concat' names no recipe.\n  In file \"mine.gin\", line 2\n"
        "  Write study.base = 'recipes/NAME.gin', over which its levels are laid.",
    ),
    "a level that sets the seed": (
        "'none': ()",
        "'none': 'run.seed = 1'",
        "Row 'onset + none + concat' binds run.seed.\n",
    ),
    "a level that is nothing": (
        "'none': ()",
        "'none': 'no'",
        "Row 'onset + none + concat': 'no' is neither a recipe nor a binding.\n",
    ),
    "two combinations of one file name": (
        "'none': ()",
        "'attentive ': ()",
        "Rows 'onset + attentive + concat' and 'onset + attentive  + concat' would write the same files.\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_place_and_what_to_do(tmp_path, monkeypatch, old, new, told):
    monkeypatch.chdir(tmp_path)
    assert old in FACTORS
    (tmp_path / "mine.gin").write_text(FACTORS.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        study.load("mine.gin")
    assert str(caught.value).startswith(told)


def test_a_listed_row_has_no_levels(tmp_path):
    loaded = study.load("tests/experiments/ablation/two_rows.gin")
    assert loaded.factors == {} and [asdict(row)["levels"] for row in loaded.rows] == [{}, {}]
