import csv
import io
import re

import pytest

from stav2a.evaluation.comparison import ComparedRow, compare
from stav2a.reports import tables
from stav2a.reports.tables import NumberFormat
from tests.evaluation.compared import METRICS, PAPER, mean, row, study


@pytest.fixture(scope="module")
def four():
    return compare(study(), metrics=METRICS, baseline="CN", published=PAPER)


def lines(text, start, count):
    found = text.splitlines()
    return found[found.index(start) :][:count]


def test_the_text_tables(four):
    text = tables.text(four)
    assert lines(text, "Metrics", 9) == [
        "Metrics",
        "Means over seeds, with 95 % intervals; the best of each column is marked. "
        "Beside them the paper's figures.",
        "",
        "                  AA-Align ↑             paper    FD ↓                   paper",
        "──────────────────────────────────────────────────────────────────────────────",
        "Pretrained-T2A     0.194 [0.141, 0.245]  0.498     44.89 [40.86, 48.81]  27.25",
        "CN                 0.583 [0.522, 0.638]  0.669    *27.13 [23.25, 30.92]  19.58",
        "CN+Onset          *0.629 [0.575, 0.679]  0.692     27.57 [23.68, 31.42]  20.02",
        "CN Frozen              –                     –         –                     –",
    ]
    assert "CN − Pretrained-T2A    +0.390 [+0.348, +0.428]  +0.171 yes\n" in text


def test_a_narrow_terminal_gets_one_metric_below_the_other(four):
    text = tables.text(four, width=70)
    assert max(len(line) for line in text.splitlines() if "─" in line) <= 70
    assert lines(text, "Metrics", 4)[3] == "                  AA-Align ↑             paper"
    assert lines(text, "Differences to CN", 14)[9:] == [
        "                  FD ↓                     paper, same sign?",
        "─────────────────────────────────────────────────────────────",
        "Pretrained-T2A    +17.76 [+17.11, +18.51]  +7.67 yes",
        "CN+Onset           +0.44 [−0.46, +1.31]    +0.44 within noise",
        "CN Frozen              –                       –",
    ]


def test_text_says_how_often_the_signs_agree(four):
    assert (
        "Of 4 differences to CN: 3 with the paper's sign, 0 with the other one, 1 within noise.\n"
        "\n"
        "Of 4 steps: 3 with the paper's sign, 0 with the other one, 1 within noise.\n"
    ) in tables.text(four)


def test_notes_tell_what_was_measured_and_what_is_missing(four):
    text = tables.text(four)
    for line in (
        "  - AA-Align: hits. Higher is better; 40 clips; by chance 0.150 to 0.170; onsets a real clip 3.2.",
        "  - FD (toy classifier): distance. Lower is better; 9 clips.",
        "  - CN Frozen, seeds 0, 1, 2: exit code 1.",
        "  - clap: no checkpoint.",
        "  - Differences are paired: the same seeds and the same draws of clips on both sides.",
    ):
        assert line in text.splitlines()
    assert "2000 draws of seeds and of clips (3 seeds, all scored on the same clips). So few seeds" in text


def test_steps_that_are_all_from_the_baseline_are_not_told_twice():
    rows = [row("CN", [0.1, 0.2]), row("CN+", [0.3, 0.4], builds_on="CN")]
    published = {"CN": {"aa": 0.1}, "CN+": {"aa": 0.2}}
    text = tables.text(compare(rows, metrics={"aa": "higher"}, baseline="CN", published=published))
    assert "Differences to CN" in text
    assert "Step by step" not in text
    assert "steps:" not in text


def test_one_seed_is_told():
    text = tables.text(compare([row("CN", [0.1, 0.2])], metrics={"aa": "higher"}, baseline="CN"))
    assert "2000 draws of clips. There is one seed, so that they don't tell how much another" in text
    assert "Figures with their 95 % intervals" in text


def test_clips_left_out_are_counted_and_some_named():
    some = {f"clip{i}": 0.5 for i in range(10)}
    rows = [
        ComparedRow("CN", {0: [mean(some)]}),
        ComparedRow(
            "CN+", {0: [mean({"clip0": 1.0, "clip1": 1.0}, left_out=dict.fromkeys(some, "no onset"))]}
        ),
    ]
    text = tables.text(compare(rows, metrics={"aa": "higher"}, baseline="CN"))
    assert (
        "  - AA-Align: 8 of 10 clips, no onset (CN+, seed 0): clip2, clip3, clip4, clip5, clip6 and 3 more.\n"
        in text
    )


def test_without_any_score_there_is_still_something_to_read():
    nothing = compare([ComparedRow("CN", {}, missing={0: "killed"})], metrics={"aa": "higher"}, baseline="CN")
    assert tables.text(nothing) == (
        "How to read them:\n  - There is nothing to compare yet.\n\n"
        "Missing:\n  - CN, seed 0: killed.\n  - aa: no row has such a score; there are: none.\n"
    )
    assert tables.csv(nothing).count("\n") == 1


def test_the_markdown_tables(four):
    text = tables.markdown(four)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "## Metrics", "## Differences to CN", "## Step by step",
        "### How to read them", "### What was measured", "### Missing",
    ]  # fmt: skip
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[:2] == ["|  | AA-Align ↑ | paper | FD ↓ | paper |", "|:---|---:|---:|---:|---:|"]
    assert {line.count("|") for line in table} == {6}
    assert re.fullmatch(
        r"\| \*\*CN\+Onset\*\* \| \*\*0\.\d{3}\*\*<br><sub>\[0\.\d{3},&nbsp;0\.\d{3}\]</sub> \| 0\.692 \| .*",
        table[4],
    )
    assert table[5] == "| **CN Frozen** | – | – | – | – |"
    assert "+0.023<br><sub>✓&nbsp;yes</sub>" in text


def test_words_are_not_markup_in_markdown_or_latex():
    odd = row("a_b|<i>&50 %", [0.1, 0.2], label="AA_*x*")
    found = compare([odd], metrics={"aa": "higher"}, baseline=odd.name)
    assert r"| **a\_b\|\<i\>&50 %** |" in tables.markdown(found)
    assert r"| AA\_\*x\* ↑ |" in tables.markdown(found)
    assert r"a\_b\textbar{}\textless{}i\textgreater{}\&50 \% & \textbf{0.150} \\" in tables.latex(found)


def test_the_latex_tables(four):
    text = tables.latex(four)
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 3
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 3
    assert r"& AA-Align $\uparrow$ & paper & FD $\downarrow$ & paper \\" in text
    assert r"\begin{tabular}{lrrrr}" in text
    assert r"CN Frozen & -- & -- & -- & -- \\" in text
    assert all(line.count("&") == 4 for line in text.splitlines() if line.endswith(r"\\"))
    assert text.isascii()


def test_the_long_table(four):
    found = list(csv.DictReader(io.StringIO(tables.csv(four))))
    assert [(line["row"], line["metric"]) for line in found[:3]] == [
        ("Pretrained-T2A", "aa"), ("Pretrained-T2A", "fd"), ("CN", "aa"),
    ]  # fmt: skip
    onset = found[4]
    cell = four.cells["CN+Onset", "aa"]
    assert float(onset["value"]) == cell.estimate.value
    assert float(onset["step_low"]) == cell.to_step.estimate.low
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
    write = NumberFormat(decimals=3, published=2)
    assert write.figure(0.66666) == "0.667"
    assert [write.change(v) for v in (0.02, -0.02, 0.0, -0.0001, 0.0001)] == [
        "+0.020", "−0.020", "0.000", "0.000", "0.000",
    ]  # fmt: skip
    assert write.published_change(0.4) == "+0.40"
    assert write.published_figure(None) == "–"
    assert write.figure(float("nan")) == "–"
