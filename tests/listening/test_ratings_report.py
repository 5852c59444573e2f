"""The table, by hand-computed figures; and what is left out of it."""

import csv
import io
import shutil

import pytest

from stav2a.experiments.tracking import Tracker, connect
from stav2a.listening.analysis import analyse
from stav2a.listening.database import ListenError, Rating
from stav2a.listening.ratings_report import published, write_report
from stav2a.listening.setup import load
from tests.listening.listening_examples import begun, rate_all


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """On OQ gt has 60, 70, 80 and 90, mine ten less; all else is 50."""
    test = begun(tmp_path_factory.mktemp("rated"))

    def values(first):
        level = dict(zip(test.clips, first, strict=True))
        return lambda clip, system, scale: level[clip] - 10 * (system == "mine") if scale == "oq" else 50

    rate_all(test, "ada", values((60, 70)))
    rate_all(test, "bob", values((80, 90)))
    return test.folder


@pytest.fixture
def test(once, tmp_path):
    """A copy of its own, for each write waits for the disk."""
    return load(shutil.copytree(once, tmp_path / "test"))


def test_means_and_intervals_by_hand(test):
    found = analyse(test, test.database.ratings())
    assert (found.n, found.annotators, found.clips) == (4, 2, 2)
    figure = found.means["gt", "oq"]
    assert figure.mean.value == 75
    # s² = (225 + 25 + 25 + 225) / 3, t(0.975, 3) = 3.1824: 3.1824 · 12.910 / 2
    assert figure.t_half_width == pytest.approx(20.543, abs=1e-3)
    # One draw in 16 has ada and the lower clip twice; so many lie below 2.5 %.
    assert (figure.mean.low, figure.mean.high) == (60, 90)
    assert figure.difference is None
    change = found.means["mine", "oq"].difference
    assert (change.value, change.low, change.high) == (-10, -10, -10)


def test_agreement_by_hand(test):
    # Four units, (60 80) (70 90) (50 70) (60 80): s_u² = 200. All eight, 50 60 60 70 70 80 80 90, have mean
    # 70 and squares 400 100 100 0 0 100 100 400: s² = 1200 / 7.
    alpha = analyse(test, test.database.ratings()).agreement
    assert alpha["oq"] == pytest.approx(1 - 200 / (1200 / 7))
    assert alpha["aq"] != alpha["aq"]  # all 50: nothing to agree on


def test_a_clip_counts_once_all_systems_are_rated_and_heard(test):
    first, second, third, _ = test.videos  # first and second are of one clip
    for video in (first, second):
        test.database.mark_played("cy", video.token)
        for scale in ("aq", "sa", "ta", "oq"):
            test.database.rate("cy", video.token, scale, 20)
    for scale in ("aq", "sa", "ta", "oq"):
        test.database.rate("cy", third.token, scale, 1)  # the other clip, through one system
        test.database.rate("dan", first.token, scale, 1)  # never heard
        test.database.rate("dan", second.token, scale, 1)
    found = analyse(test, test.database.ratings())
    assert found.progress == {"ada": 2, "bob": 2, "cy": 1, "dan": 0}
    assert (found.n, found.annotators) == (5, 3)
    assert found.means["gt", "oq"].mean.value == (60 + 70 + 80 + 90 + 20) / 5


def test_nothing_rated_is_told(test):
    nothing: list[Rating] = []
    with pytest.raises(ListenError) as caught:
        analyse(test, nothing)
    assert str(caught.value) == (
        f"{test.folder}: no clip is rated through all 2 systems yet. Rate one first."
    )


def test_one_rating_has_a_mean_alone(tmp_path):
    test = begun(tmp_path, clips=1, systems=["mine"])
    rate_all(test, "ada", lambda *_: 70)
    text = write_report(test, Tracker(), 200)
    assert "mine  70.00  70.00  70.00  70.00" in text
    assert "n = 1 ratings a figure: 1 annotator, 1 clip" in text
    assert "Differences" not in text and "paper's figures" not in text
    assert "One annotator: the intervals do not cover how much another one would differ." in text


def test_the_tables(test):
    text = write_report(test, Tracker(), 200)
    assert "*75.00 ± 20.54 [60.00, 90.00]  94.38 ± 0.77" in text
    assert "−10.00 [−10.00, −10.00]" in text
    assert "ada: 2 of 2 clips rated through all systems" in text
    assert "2 annotators are few: intervals contain the truth less often than their 95 %." in text
    markdown = (test.folder / "report.md").read_text()
    assert markdown.startswith("# Listening test\n\n## Ratings\n")
    assert "**75.00 ± 20.54**<br><sub>[60.00,&nbsp;90.00]</sub> | 94.38 ± 0.77 |" in markdown
    assert r"\textbf{75.00 $\pm$ 20.54} & 94.38 $\pm$ 0.77" in (test.folder / "report.tex").read_text()


def test_only_what_an_interval_separates_is_marked(tmp_path):
    """On SA the sounds are equal, on TA better for one annotator and worse for the other."""
    test = begun(tmp_path)
    for annotator, sign in (("ada", 1), ("bob", -1)):
        levels = {"oq": 10, "aq": 1, "sa": 0, "ta": 10 * sign + 2}
        rate_all(test, annotator, lambda _, system, scale, to=levels: 50 + to[scale] * (system == "gt"))
    found = analyse(test, test.database.ratings())
    assert found.means["gt", "ta"].mean.value > found.means["mine", "ta"].mean.value
    assert dict(found.best) == {"oq": "gt", "aq": "gt"}
    text = write_report(test, Tracker(), 200)
    assert text.count("*") == 2 and "Marked: the best of a" in text


def test_the_csv_has_a_line_for_a_system_and_a_scale(test):
    write_report(test, Tracker(), 110)
    lines = list(csv.DictReader(io.StringIO((test.folder / "report.csv").read_text())))
    assert [(line["system"], line["scale"]) for line in lines] == [
        (system, scale) for system in ("gt", "mine") for scale in ("aq", "sa", "ta", "oq")
    ]
    assert lines[3]["mean"] == "75.0" and lines[3]["paper"] == "94.38" and lines[3]["difference"] == ""
    assert lines[7]["against"] == "gt" and lines[7]["difference"] == "-10.0" and lines[7]["paper"] == ""


def test_files_to_pass_on_name_no_annotator(test):
    write_report(test, Tracker(), 110)
    for name in ("report.md", "report.csv", "report.tex", "ratings.csv"):
        assert "ada" not in (test.folder / name).read_text()
    lines = list(csv.DictReader(io.StringIO((test.folder / "ratings.csv").read_text())))
    assert len(lines) == 2 * 2 * 2 * 4 and {line["annotator"] for line in lines} == {"1", "2"}


@pytest.mark.parametrize("name", ["STA-V2A", "sta_v2a", "StaV2A"])
def test_the_papers_figures_are_found_by_any_spelling(name):
    assert published(name)["ta"] == (91.05, 1.41)


def test_foleycrafter_has_two_rows():
    assert published("foleycrafter w/o T")["oq"].mean == 83.09
    assert published("foleycrafter w. T")["oq"].mean == 87.30


@pytest.mark.slow
def test_the_table_is_tracked(test, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with connect(uri, tmp_path, experiment="listening", run_name="test") as tracker:
        write_report(test, tracker, 110)
        run_id = tracker.run_id
    import mlflow

    run = mlflow.MlflowClient(uri).get_run(run_id)
    assert run.data.metrics["oq/gt"] == 75 and run.data.metrics["oq_low/gt"] == 60
    assert "alpha/aq" not in run.data.metrics  # not known
