import csv
import io
import re

import pytest

from stav2a.evaluation.comparison import compare
from stav2a.reports.comparison_tables import Note, comparison_csv, comparison_document, listed
from stav2a.reports.tables import NumberFormat, grid
from tests.evaluation.compared import PAPER, compared, mean, row

AA = {"aa": "higher"}


@pytest.fixture(scope="module")
def four():
    return compared(published=PAPER)


def text_of(comparison, **given):
    return comparison_document(comparison).text(**given)


def joined(text):
    """The text on one line."""
    return " ".join(text.split())


def lines(text, start, count):
    found = text.splitlines()
    return found[found.index(start) :][:count]


def test_the_text_tables(four):
    text = text_of(four)
    assert lines(text, "Metrics", 9) == [
        "Metrics",
        "Means over seeds, with 95 % intervals. "
        "Marked: the best of a column, where its paired difference to every",
        "other row excludes 0. Beside them the paper's figures.",
        "",
        "                AA-Align ↑             paper  FD ↓                  paper",
        "─────────────────────────────────────────────────────────────────────────",
        "Pretrained-T2A   0.194 [0.141, 0.245]  0.498  44.89 [40.86, 48.81]  27.25",
        "CN               0.583 [0.522, 0.638]  0.669  27.13 [23.25, 30.92]  19.58",
        "CN+Onset        *0.629 [0.575, 0.679]  0.692  27.57 [23.68, 31.42]  20.02",
    ]
    assert "CN − Pretrained-T2A  +0.390 [+0.348, +0.428]  +0.171 yes" in text


def test_a_narrow_terminal_gets_one_metric_below_the_other(four):
    text = text_of(four, width=70)
    assert max(len(line) for line in text.splitlines() if "─" in line) <= 70
    assert "                AA-Align ↑             paper" in text.splitlines()
    assert "                FD ↓                  paper" in text.splitlines()


def test_a_long_title_wraps_rather_than_make_its_column_wider():
    found = compare(
        {"CN": row([0.1, 0.2], label="A rather long name of a metric")}, metrics=AA, baseline="CN"
    )
    assert lines(text_of(found), "    A rather long name", 4) == [
        "    A rather long name",
        "    of a metric ↑",
        "────────────────────────",
        "CN  0.150 [0.100, 0.200]",
    ]


def test_wide_characters_do_not_break_a_row():
    assert grid(["", "value"], [["システム", "1.0"], ["ours", "2.0"]]).splitlines()[2:] == [
        "システム    1.0",
        "ours        2.0",
    ]


def test_text_says_how_often_the_signs_agree(four):
    assert (
        "Of 4 differences to CN: 3 with the paper's sign, 0 with the other one, 1 within noise.\n"
        "\n"
        "Of 4 steps: 3 with the paper's sign, 0 with the other one, 1 within noise.\n"
    ) in text_of(four)


def test_notes_tell_what_was_measured_and_what_is_missing(four):
    text = text_of(four)
    for line in (
        "  - AA-Align: hits; n = 40; by chance 0.15 to 0.17; onsets a real clip 3.2.",
        "  - FD: distance; n = 9.",
        "  - FD: by toy classifier.",
        "  - CN Frozen, seed 0, 1, 2: exit code 1.",
        "  - clap: no checkpoint.",
        "  - Differences are paired: the same seeds and the same draws of clips on both sides.",
    ):
        assert line in text.splitlines()
    assert "2000 draws of seeds and of clips (3 seeds, all scored on the same clips)." in joined(text)
    assert "misses the true value in 4 % of cases where only clips vary, and in up to 16 %" in joined(text)


def test_published_differences_without_a_sign_are_not_counted_and_other_metrics_are_named():
    rows = {"CN": row([0.1, 0.2]), "CN+": row([0.3, 0.4]), "CN++": row([0.5, 0.6])}
    theirs = {"CN": {"aa": 1.0, "fad": 2.0}, "CN+": {"aa": 1.01, "pam": 0.2}, "CN++": {"aa": 1.1}}
    text = text_of(compare(rows, metrics=AA, baseline="CN", published=theirs))
    assert (
        "Of 1 differences to CN: 1 with the paper's sign, 0 with the other one, 0 within noise; 1 more"
        in text
    )
    assert "+0.200 [+0.200, +0.200]  +0.01 too small" in text
    assert "Published differences of less than 2 % of the figure they are taken from are too small" in joined(
        text
    )
    assert "FAD, PAM: the paper gives figures, which were not measured here." in joined(text)


def test_steps_that_are_all_from_the_baseline_are_not_told_twice():
    rows = {"CN": row([0.1, 0.2]), "CN+": row([0.3, 0.4])}
    published = {"CN": {"aa": 0.1}, "CN+": {"aa": 0.2}}
    more = {"builds_on": {"CN+": "CN"}, "published": published}
    text = text_of(compare(rows, metrics={"aa": "higher"}, baseline="CN", **more))
    assert "Differences to CN" in text
    assert "Step by step" not in text
    assert "steps:" not in text


def test_one_seed_is_told():
    text = text_of(compare({"CN": row([0.1, 0.2])}, metrics={"aa": "higher"}, baseline="CN"))
    assert "There is one seed, so that they don't show how much another training would differ." in joined(
        text
    )
    assert "Figures with their 95 % intervals" in text


def test_clips_left_out_are_counted_and_some_named():
    some = {f"clip{i}": 0.5 for i in range(10)}
    few = mean({"clip0": 1.0, "clip1": 1.0}, skipped=dict.fromkeys(some, "no onset"))
    rows = {"CN": {0: [mean(some)]}, "CN+": {0: [few]}}
    text = text_of(compare(rows, metrics={"aa": "higher"}, baseline="CN"))
    assert (
        "AA-Align: 8 of 10 clips, no onset (CN+, seed 0): clip2, clip3, clip4, clip5, clip6, and 3 more"
        in text
    )


def test_without_any_score_there_is_still_something_to_read():
    nothing = compare({"CN": {}}, metrics={"aa": "higher"}, baseline="CN", missing={"CN": {0: "killed"}})
    assert text_of(nothing) == (
        "How to read them:\n  - There is nothing to compare yet.\n\n"
        "Missing:\n  - CN, seed 0: killed.\n  - aa: no row has such a score; there are: none.\n"
    )
    assert comparison_csv(nothing).count("\n") == 1


def test_the_markdown_tables(four):
    text = comparison_document(four).markdown()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "## Metrics", "## Differences to CN", "## Step by step", "## Parts of the variance",
        "### How to read them", "### What was measured", "### Too few clips", "### Missing",
    ]  # fmt: skip
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[:2] == ["|  | AA-Align ↑ | paper | FD ↓ | paper |", "|:---|---:|---:|---:|---:|"]
    assert {line.count("|") for line in table} == {6, 8}  # of rows; of the parts of the variance
    assert re.fullmatch(
        r"\| \*\*CN\+Onset\*\* \| \*\*0\.\d{3}\*\*<br><sub>\[0\.\d{3},&nbsp;0\.\d{3}\]</sub> \| 0\.692 \| .*",
        table[4],
    )
    assert table[5] == "| **CN Frozen** | – | – | – | – |"
    assert "+0.023<br><sub>✓&nbsp;yes</sub>" in text


def test_words_are_not_markup_in_markdown_or_latex():
    odd = {"a_b|<i>&50 %": row([0.1, 0.2], label="AA_*x*")}
    found = compare(odd, metrics={"aa": "higher"}, baseline="a_b|<i>&50 %")
    assert r"| **a\_b\|\<i\>&50 %** |" in comparison_document(found).markdown()
    assert r"| AA\_\*x\* ↑ |" in comparison_document(found).markdown()
    assert r"a\_b\textbar{}\textless{}i\textgreater{}\&50 \% & 0.150 \\" in comparison_document(found).latex()


def test_the_latex_tables(four):
    text = comparison_document(four).latex()
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 4
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 4
    assert r"& AA-Align $\uparrow$ & paper & FD $\downarrow$ & paper \\" in text
    assert r"\begin{tabular}{lrrrr}" in text
    assert r"CN Frozen & -- & -- & -- & -- \\" in text
    assert {line.count("&") for line in text.splitlines() if line.endswith(r"\\")} == {4, 6}
    assert text.isascii()


def test_the_long_table(four):
    found = list(csv.DictReader(io.StringIO(comparison_csv(four))))
    assert [(line["row"], line["metric"]) for line in found[:3]] == [
        ("Pretrained-T2A", "aa"), ("Pretrained-T2A", "fd"), ("CN", "aa"),
    ]  # fmt: skip
    onset = found[4]
    assert float(onset["value"]) == four.estimates["CN+Onset", "aa"].value
    assert float(onset["step_low"]) == four.to_step["CN+Onset", "aa"].low
    assert (onset["seeds"], onset["clips"], onset["direction"]) == ("0 1 2", "40", "higher")
    assert (onset["baseline"], onset["builds_on"]) == ("CN", "CN")
    assert (onset["published"], onset["published_difference"], onset["sign_as_published"]) == (
        "0.692", "0.023", "yes",
    )  # fmt: skip
    frozen = found[6]
    assert (frozen["row"], frozen["value"], frozen["difference"], frozen["baseline"]) == (
        "CN Frozen",
        "",
        "",
        "CN",
    )


def test_numbers_are_written_alike():
    ours, theirs = NumberFormat(3), NumberFormat.as_given([0.5, 0.25])
    assert ours.figure(0.66666) == "0.667"
    assert [ours.figure(v, signed=True) for v in (0.02, -0.02, 0.0, -0.0001, 0.0001)] == [
        "+0.020", "−0.020", "0.000", "0.000", "0.000",
    ]  # fmt: skip
    assert theirs.figure(0.4, signed=True) == "+0.40"
    assert theirs.figure(None) == ours.figure(float("nan")) == "–"
    assert [NumberFormat.of([value]).figure(value) for value in (9.9, 123.456, -2000.0)] == [
        "9.900", "123.46", "−2000.0",
    ]  # fmt: skip


def test_notes_on_several_tables_are_merged_where_their_values_are_equal():
    same, one = Note("sign", {"share": 2.0}), Note("absent", {"metric": "FD", "reason": "no weights."})
    other = Note("absent", {"metric": "FD", "reason": "too few clips"})
    found = listed({"first 4 s": [same, one], "whole": [same, other]})
    assert list(found) == ["How to read them", "Missing"]
    assert found["Missing"] == ["first 4 s: FD: no weights.", "whole: FD: too few clips."]
    assert [line[:35] for line in found["How to read them"]] == ["Same sign as the paper's: yes or no w"[:35]]
