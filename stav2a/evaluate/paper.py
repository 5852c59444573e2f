"""The paper's Table I (arXiv:2409.08601, sec. III-B), to stand beside figures of the same system and crop."""

import re
from collections.abc import Mapping, Sequence

from stav2a.ablation.published import plain, read_published
from stav2a.comparison.tables.grids import Column, Entry, Grid
from stav2a.comparison.tables.numerals import NOTHING
from stav2a.evaluate.choosing import PAPERS, RELEASED
from stav2a.evaluate.scoring import REAL
from stav2a.recipe.reading import shipped_root

FILE = "table1_paper.csv"
SOURCE = "Table I of the paper, arXiv:2409.08601v2"
HEADINGS = ("FD ↓", "FAD ↓", "KL ↓", "IS ↑", "PAM ↑", "CLAP ↑", "AV-Align ↑", "AA-Align ↑")
ROUNDED_S = 0.3  # how far a crop may be from the paper's


def published(
    rows: Sequence[str], named: Mapping[str, str], duration_s: float
) -> dict[str, dict[str, float]]:
    """The paper's figures of these rows, where it has the same system at the same duration.

    Names are the same if their letters and digits are: `sta_v2a` is `STA-V2A`.

    Args:
        rows: Systems, and `real sound`.
        named: The name a metric was chosen by -> the name of its score. The paper's columns stand beside the
            released form where there is one.
        duration_s: Of the sounds.
    """
    beside = {
        named[choice]: column
        for column in PAPERS
        for choice in (f"{column}{RELEASED}", column)
        if choice in named and not (choice == column and column in TWO_FORMS)
    }
    found = {}
    for row in rows:
        figures = _of(row, duration_s)
        shown = {score: figures[column] for score, column in beside.items() if column in figures}
        if shown:
            found[row] = shown
    return found


TWO_FORMS = ("kl", "pam", "clap", "av_align", "aa_align")  # by default measured otherwise than in the paper


def table_one() -> Grid:
    """The paper's Table I as it stands there."""
    figures = _read()
    seconds = Column("seconds", [Entry(f"{of['duration_s']:g}") for of in figures.values()])
    columns = [
        Column(heading, [_entry(of.get(name), 3 if name in PAPERS[4:] else 2) for of in figures.values()])
        for name, heading in zip(PAPERS, HEADINGS, strict=True)
    ]
    return Grid(
        title="The paper's figures",
        caption=f"{SOURCE}: other clips (VGGSound's test set), the authors' weights.",
        names=[re.sub(r" \(\d+ s\)$", "", row) for row in figures],
        groups=[[seconds], *([column] for column in columns)],
    )


def _entry(value: float | None, decimals: int) -> Entry:
    return Entry(NOTHING if value is None else f"{value:.{decimals}f}")


def _of(row: str, duration_s: float) -> dict[str, float]:
    wanted = plain("GT" if row == REAL else row)
    for name, figures in _read().items():
        same = plain(re.sub(r" \(\d+ s\)$", "", name)) == wanted
        if same and abs(figures["duration_s"] - duration_s) <= ROUNDED_S:
            return figures
    return {}


def _read() -> dict[str, dict[str, float]]:
    return read_published(shipped_root("ablations") / FILE, rows=["GT"], metrics=list(PAPERS))
