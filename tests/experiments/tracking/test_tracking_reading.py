"""Reading of what was tracked: runs, children, curves, files, and the page that compares them."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from stav2a.experiments.tracking import (
    NOTE,
    PARENT,
    WITHIN,
    TrackingError,
    TrackingStore,
    connect,
    open_store,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two rows."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tags = {"kind": "study", "study": "it's one"}
        with connect(None, root, experiment="one", run_name="one", tags=tags) as study:
            for row in ("CN", "CN+Onset"):
                tags = {PARENT: str(study.run_id), "row": row, "study": "it's one"}
                with connect(None, root, experiment="one", run_name=row, tags=tags) as run:
                    run.log_params({"pooler": "none"})
                    run.log_metrics({"joint/loss": 2.0}, step=20)
                    run.log_metrics({"joint/loss": 1.0}, step=10)
                    run.log_text(f"{row}\n", "samples/note.txt")
                    for name in ("per_clip.json", "per_clip.json", "rows/cn.json", "rows/cn.json"):
                        run.log_table({"clip": ["a", "b"], "aa_align": [0.5, None]}, name)
    return root


@pytest.fixture
def store(root: Path) -> TrackingStore:
    return open_store(f"sqlite:///{root}/mlflow.db", root)


def test_a_study_and_its_children_are_found(store: TrackingStore):
    study = store.study("it's one")
    assert (study.name, study.status, study.tags["kind"]) == ("one", "FINISHED", "study")
    assert [run.tags["row"] for run in store.children(study.run_id)] == ["CN+Onset", "CN"]  # newest first
    for found in (store.study(study.run_id), store.get(study.run_id)):
        assert vars(found) == vars(study)


def test_a_run_is_read_back(store: TrackingStore):
    (run,) = store.runs({"row": "CN"})
    assert run.params == {"pooler": "none"} and run.metrics == {"joint/loss": 2.0}
    assert store.history(run, "joint/loss") == [(10, 1.0), (20, 2.0)]
    assert store.history(run, "other") == []
    assert store.files(run, "samples") == ["samples/note.txt"]
    assert store.text(run, "samples/note.txt") == "CN\n"
    for name in ("per_clip.json", "rows/cn.json"):
        table = json.loads(store.text(run, name))
        assert table == {"columns": ["clip", "aa_align"], "data": [["a", 0.5], ["b", None]]}


def test_the_compare_page_has_the_runs(store: TrackingStore):
    runs = store.runs({"study": "it's one"})[:2]
    for base, expected in ((None, "http://127.0.0.1:5000"), ("http://127.0.0.1:7", "http://127.0.0.1:7")):
        url = store.compare_url(runs, base)
        assert url.startswith(f"{expected}/#/compare-runs?")
        query = parse_qs(urlsplit(url.replace("#/", "")).query)
        assert json.loads(query["runs"][0]) == [run.run_id for run in reversed(runs)]
        assert json.loads(query["experiments"][0]) == [runs[0].experiment_id]


def test_the_children_s_list_and_charts_take_the_view_that_was_kept(store: TrackingStore, root: Path):
    study = store.study("it's one")
    wanted = f"tags.`mlflow.parentRunId` = '{study.run_id}'"
    for charts, mode in ((True, ["CHART"]), (False, None)):
        url = store.children_url(study, "http://127.0.0.1:7", charts=charts)
        query = parse_qs(urlsplit(url.replace("#/", "")).query)
        assert query["workflowType"] == ["machine_learning"] and query.get("compareRunsMode") == mode
        assert query["searchFilter"] == [wanted] and query["orderByKey"] == ["attributes.run_name"]
    with connect(f"sqlite:///{root}/mlflow.db", root, experiment="one", run_name="more") as tracker:
        tracker.set_experiment_tags(store.children_views(study, ["aa_align", "kl"]))
    for charts, mode in ((True, ["CHART"]), (False, None)):
        url = store.children_url(study, WITHIN, charts=charts)
        assert url.startswith(f"/#/experiments/{study.experiment_id}/runs?workflowType=machine_learning&")
        query = parse_qs(urlsplit(url.replace("#/", "")).query)
        key = query["viewStateShareKey"][0]
        assert query.get("compareRunsMode") == mode and "searchFilter" not in query
        view = json.loads(
            store.client.get_experiment(study.experiment_id).tags[f"mlflow.sharedViewState.{key}"]
        )
        columns = ["tags.`row`", "tags.`seed`", "metrics.`aa_align`", "metrics.`kl`"]
        assert view["selectedColumns"] == columns and view["searchFilter"] == wanted
        bars = [chart["metricKey"] for chart in view.get("compareRunCharts", [])]
        assert bars == (["aa_align", "kl"] if charts else []) and ("groupBy" in view) == charts


def test_a_run_and_its_experiment_are_described(store: TrackingStore, root: Path):
    with connect(f"sqlite:///{root}/mlflow.db", root, experiment="told", run_name="one") as run:
        run.describe("a run")
    with connect(f"sqlite:///{root}/mlflow.db", root, experiment="told", run_name="two") as study:
        study.describe("x" * 6000)
        study.set_experiment_tags({NOTE: "x" * 6000})
    one, two = (store.client.get_run(each.run_id).data.tags[NOTE] for each in (run, study))
    experiment = store.client.get_experiment_by_name("told")
    assert one == "a run" and len(two) == 6000
    assert len(experiment.tags[NOTE]) == 5000 and experiment.tags[NOTE].endswith(" … (cut, 6000 characters)")


def test_what_is_missing_is_an_error(store: TrackingStore, tmp_path: Path):
    (run,) = store.runs({"row": "CN"})
    with pytest.raises(TrackingError, match=r"it holds no study 'two', but it's one\.\n  Name another"):
        store.study("two")
    with pytest.raises(TrackingError, match="it holds no run abc"):
        store.get("abc")
    with pytest.raises(TrackingError, match=rf"the file x\.txt of the run CN \({run.run_id}\) can't be read"):
        store.file(run, "x.txt")
    with pytest.raises(TrackingError, match="there is no such file yet"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    with pytest.raises(TrackingError, match="tracks nothing, so there is nothing to read"):
        open_store("none", tmp_path)
