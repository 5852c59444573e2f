"""Reading of what was tracked: runs, children, curves, files, and the page that compares them."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from stav2a.experiments.tracking import PARENT, TrackingError, TrackingStore, connect, open_store


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
