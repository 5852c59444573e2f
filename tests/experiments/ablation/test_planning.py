"""Plans: which runs a study comes to, what they share, and what is there already. Nothing is trained."""

import json
import logging
from pathlib import Path

import pytest

from stav2a.experiments.ablation import study
from stav2a.experiments.ablation.planning import duration, plan, summary, training_s
from stav2a.recipe import RecipeError, describing
from stav2a.utils.contents import hashes_of

ROOT = Path(__file__).parents[3]
STUDIES = sorted(path for path in (ROOT / "ablations").glob("*.gin") if path.name != "base.gin")
TWO_ROWS = "tests/experiments/ablation/two_rows.gin"


def table3(*seeds: int) -> study.LoadedStudy:
    """The paper's table at the smallest scale."""
    return study.load("ablations/table3.gin", ["recipes/scale/smoke.gin"], seeds=seeds)


def finish(entry, store) -> None:
    """Put an empty folder into the store in the place of an entry."""
    store.path(entry.kind, entry.key, entry.name).mkdir(parents=True)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_package_can_be_planned(path, tmp_path):
    loaded = study.load(path)
    planned = plan(loaded, tmp_path)
    assert len(planned.runs) == len(loaded.rows) * len(loaded.seeds)
    assert not any(tmp_path.iterdir())


def test_rows_share_what_they_have_in_common(tmp_path):
    missing = plan(table3(0, 1), tmp_path).missing()
    count = {
        name: sum(entry.title == name for entry in missing) for name in {entry.title for entry in missing}
    }
    assert count["autoencoder"] == count["t2a_pretrain"] == count["contrastive"] == count["onset"] == 2
    assert count["joint"] == 10 and count["classifier"] == count["data"] == 1


def test_runs_stand_row_by_row_so_that_neighbours_train_different_seeds(tmp_path):
    runs = plan(table3(4, 5), tmp_path).runs
    assert [run.title for run in runs[:3]] == [
        "Pretrained-T2A, seed 4", "Pretrained-T2A, seed 5", "FineTuned-T2A, seed 4"
    ]  # fmt: skip
    overlay = "recipes/evaluation/three_waveforms.gin"
    assert runs[0].recipes == ("recipes/pretrained_t2a.gin", overlay, "recipes/scale/smoke.gin")
    assert runs[1].bindings == ("run.seed = 5",)
    assert runs[0].folder.path == tmp_path / f"pretrained_t2a-{runs[0].signature[:8]}"


def test_what_the_store_holds_is_reused(tmp_path):
    before = plan(table3(0), tmp_path)
    assert "reused:  nothing" in summary(before)
    for entry in before.missing():
        if entry.title in ("data", "autoencoder", "text_contrastive", "t2a_pretrain"):
            finish(entry, before.store)
    text = summary(plan(table3(0), tmp_path))
    assert text.endswith("reused:  data, autoencoder, text_contrastive, t2a_pretrain")
    assert "  Pretrained-T2A  trains classifier\n  FineTuned-T2A   trains t2a_finetune\n" in text


def test_a_finished_run_makes_nothing(tmp_path):
    before = plan(table3(0), tmp_path)
    run = before.runs[0]
    facts = {"recipe": "pretrained_t2a", "environment": {}, "git": {}}
    run.folder.begin(signature=run.signature, snapshot="", facts=facts)
    assert run.missing(before.store)
    run.folder.add(seconds=1.0, finished=True, files=hashes_of(run.folder.path, [run.folder.snapshot]))
    again = plan(table3(0), tmp_path)
    assert again.runs[0].missing(again.store) == []
    assert "  Pretrained-T2A  finished\n  FineTuned-T2A   trains autoencoder" in summary(again)
    run.folder.snapshot.write_text("damaged")
    assert "  Pretrained-T2A  trains autoencoder" in summary(plan(table3(0), tmp_path))


def test_a_run_starts_where_it_can_work_beside_the_running_ones(tmp_path):
    planned = plan(table3(0), tmp_path)
    store, runs = planned.store, {run.row.name: run for run in planned.runs}
    whole, pretrained, frozen = (runs[name] for name in ("CN+Onset+GVF", "Pretrained-T2A", "CN Frozen"))
    assert not pretrained.may_start(store, [whole])  # both begin with the data

    def finish_all(*titles: str) -> None:
        for entry in planned.missing():
            if entry.title in titles:
                finish(entry, store)

    finish_all("data", "filter")
    assert pretrained.may_start(store, [whole])  # autoencoder, contrastive encoder, classifier, flow
    finish_all("contrastive", "text_contrastive", "classifier", "optical flow", "onset")
    assert not pretrained.may_start(store, [whole])  # all wait for the autoencoder
    assert not frozen.may_start(store, [whole])
    finish_all("autoencoder", "t2a_pretrain", "t2a_finetune")
    assert frozen.may_start(store, [whole])  # each has a joint stage of its own
    assert pretrained.may_start(store, [whole, frozen])


def test_another_seed_has_work_of_its_own(tmp_path):
    planned = plan(table3(0, 1), tmp_path)
    pretrained, other_seed, *_ = planned.runs
    assert not other_seed.may_start(planned.store, [pretrained])
    for entry in planned.missing():
        if entry.kind in ("clips", "filter", "classifier", "flows"):
            finish(entry, planned.store)
    assert other_seed.may_start(planned.store, [pretrained])


def test_the_plan_says_what_is_trained_once(tmp_path):
    assert summary(plan(table3(0, 1), tmp_path)).splitlines()[:9] == [
        "table3: 7 rows × 2 seeds (0, 1), compared with CN",
        "over all rows: recipes/evaluation/three_waveforms.gin, recipes/scale/smoke.gin",
        "  Pretrained-T2A  trains 2 × autoencoder, 2 × text_contrastive, 2 × t2a_pretrain, classifier",
        "  FineTuned-T2A   trains 2 × t2a_finetune",
        "  CN w/o Filter   trains 2 × contrastive, 2 × joint",
        "  CN Frozen       trains 2 × joint",
        "  CN              trains 2 × joint",
        "  CN+Onset        trains 2 × onset, 2 × joint",
        "  CN+Onset+GVF    trains 2 × joint",
    ]


def test_a_study_of_sampling_trains_once(tmp_path):
    planned = plan(study.load("ablations/guidance.gin", seeds=[0]), tmp_path)
    assert sum(entry.title == "joint" for entry in planned.missing()) == 1
    assert "  w = 5    samples and measures" in summary(planned)


def test_the_time_comes_from_this_store_s_records(tmp_path):
    planned = plan(study.load(TWO_ROWS, seeds=[0]), tmp_path)
    first, *rest = planned.runs
    for entry in first.entries:
        finish(entry, planned.store)
        if entry.steps:
            facts = {"seconds": 2.0 * entry.steps, "steps": entry.steps}
            (planned.store.path(entry.kind, entry.key, entry.name) / "facts.json").write_text(
                json.dumps(facts)
            )
    (steps,) = [entry.steps for entry in planned.missing() if entry.trains]
    assert training_s(planned) == steps * 2.0  # one joint stage
    line = summary(planned, jobs=2).splitlines()[-1]
    assert line == (
        f"time:    about {duration(2.0 * steps)} of training, {duration(steps)} with 2 runs at a time "
        "(steps as timed in this store)"
    )


def test_nothing_is_said_of_the_time_before_anything_was_timed(tmp_path):
    planned = plan(study.load(TWO_ROWS), tmp_path)
    assert training_s(planned) is None
    assert "time:" not in summary(planned)


def test_the_signature_is_the_study_s_as_it_stands(tmp_path):
    one, two = (plan(table3(*seeds), tmp_path).signature() for seeds in ((0,), (0, 1)))
    assert one != two
    assert plan(table3(0), tmp_path / "elsewhere").signature() == one


def test_two_rows_that_are_the_same_are_refused(tmp_path):
    with pytest.raises(RecipeError) as caught:
        plan(study.load("ablations/guidance.gin", bindings=["run.guidance_scale = 1.0"]), tmp_path)
    assert str(caught.value).startswith("Rows 'w = 1' and 'w = 1.5' are the same: every setting is equal.\n")
    assert "line 5\n  Leave one out; or see whether what is laid over" in str(caught.value)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            "{'aa_algn': 'higher'}",
            "study.metrics: no row measures 'aa_algn'.\n  …Did you mean aa_align? Known: ",
        ),
        (
            "{'kl': 'higher'}",
            "study.metrics: kl is better when it is lower, not higher.\n  …line 3\n  Write 'kl': 'lower'.",
        ),
        (
            "{'fad': 'lower', 'clap': 'higher'}",
            "study.metrics: no row measures any of fad, clap.\n  …The rows measure aa_align, av_align, ",
        ),
    ],
)
def test_metrics_are_checked_before_anything_is_trained(tmp_path, metrics, message):
    two_rows = Path(TWO_ROWS).resolve()
    (tmp_path / "mine.gin").write_text(f"include '{two_rows}'\n\nstudy.metrics = {metrics}\n")
    with pytest.raises(RecipeError) as caught:
        plan(study.load(tmp_path / "mine.gin"), tmp_path)
    start, end = message.split("…")
    assert str(caught.value).startswith(start) and end in str(caught.value)


PAPERS = "fad", "kl_released", "pam_released", "clap_released", "av_align_released", "aa_align_released"


def test_a_scale_has_its_own_metrics_and_the_paper_s_figures_stand_beside_their_like(tmp_path):
    smoke = plan(study.load("ablations/table3.gin", ["recipes/scale/smoke.gin"], seeds=[0]), tmp_path)
    own = ["aa_align", "av_align", "class_accuracy_named", "class_accuracy_vague", "kl", "fd", "is"]
    assert list(smoke.study.metrics) == [*own, "fd_yamnet", "kad_yamnet", "probe_accuracy_vague_yamnet"]
    assert smoke.study.published["CN"]["aa_align"] == 0.669, "for its sign alone: no row measures theirs"
    assert smoke.study.unmeasured == (*PAPERS, "pam", "clap")
    assert f"not measured by any row: {', '.join(smoke.study.unmeasured)}" in summary(smoke)
    paper = plan(study.load("ablations/table3.gin", ["recipes/scale/paper.gin"], seeds=[0]), tmp_path)
    assert {*PAPERS, "fd", "is", "kl", "pam", "clap", "av_align", "aa_align"} == set(paper.study.metrics)
    assert set(paper.study.published["CN"]) == {"fd", "is", *PAPERS}
    assert paper.study.published["CN"]["aa_align_released"] == 0.669


STUDIES = sorted(set(Path("ablations").glob("*.gin")) - {Path("ablations/base.gin")})


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_every_study_can_be_planned_at_every_scale(path, scale, tmp_path):
    assert plan(study.load(path, [f"recipes/scale/{scale}.gin"], seeds=[0]), tmp_path).runs


def test_a_row_with_a_value_that_can_not_be_is_named(tmp_path):
    with pytest.raises(RecipeError) as caught:
        plan(study.load(TWO_ROWS, bindings=["stage.joint.epochs = 2"]), tmp_path)
    told = str(caught.value)
    assert told.startswith(
        "Row 'none' can't run: stage.joint.steps = 300 and stage.joint.epochs = 2: expected"
    )
    assert "two_rows.gin" in told and "bind stage.joint.steps = None" in told


def test_the_seed_is_not_for_a_binding_to_set():
    with pytest.raises(RecipeError, match="'run.seed = 3': a study sets the seeds.\n  Write --seeds 0 1 2."):
        study.load(TWO_ROWS, bindings=["run.seed = 3"])


def test_a_warning_is_printed_once_for_all_seeds(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        plan(study.load(TWO_ROWS, bindings=["local_head.linear.dim = 8"]), tmp_path)
    assert caplog.text.count("local_head.linear.dim has no effect") == 1


def test_a_parameter_at_its_default_in_some_rows_is_one_that_differs(tmp_path):
    planned = plan(study.load("ablations/samplings.gin", seeds=[0]), tmp_path)
    assert "run.num_waveforms_per_clip" not in planned.lacking()
    one = describing.flatten(planned.runs[0].described)
    assert one["run.num_waveforms_per_clip"] == 1
