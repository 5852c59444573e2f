"""The table of a listening test written down: in four forms, and in MLflow."""

import math

from stav2a.comparison.tables import latex_tables, markdown_tables, text_tables
from stav2a.listen import exports
from stav2a.listen.analysis import Analysis, analyse
from stav2a.listen.folder import ListeningTest
from stav2a.listen.sheets import grids_of, notes_of
from stav2a.store import write_text
from stav2a.tracking import Tracker


def write_report(test: ListeningTest, tracker: Tracker, width: int) -> str:
    """Write report.md, .csv, .tex and ratings.csv into the folder, and track them.

    Returns:
        The tables for a terminal this wide, how far everybody is, and where the files are.

    Raises:
        ListenError: There is nothing to report yet.
    """
    ratings = test.database.ratings()
    analysis = analyse(test, ratings)
    grids, notes = grids_of(analysis), notes_of(analysis)
    files = {
        "report.md": f"# Listening test\n\n{markdown_tables.document(grids, (), notes)}",
        "report.csv": exports.figures_csv(analysis),
        "report.tex": latex_tables.document(grids),
        "ratings.csv": exports.ratings_csv(ratings),
    }
    for name, text in files.items():
        write_text(test.folder / name, text)
        tracker.log_text(text, name)
    tracker.log_metrics(_tracked(analysis), step=analysis.n)
    progress = [
        f"{name}: {done} of {analysis.total} clips rated through all systems"
        for name, done in analysis.progress.items()
    ]
    places = [str(test.folder / name) for name in files]
    return "\n".join([text_tables.document(grids, (), notes, width), *progress, "", *places])


def _tracked(analysis: Analysis) -> dict[str, float]:
    found = {f"alpha/{scale}": value for scale, value in analysis.agreement.items()}
    for (system, scale), figure in analysis.figures.items():
        own = figure.estimate
        found |= {f"{scale}/{system}": own.value, f"{scale}_t_half_width/{system}": figure.half}
        if own.low is not None and own.high is not None:
            found |= {f"{scale}_low/{system}": own.low, f"{scale}_high/{system}": own.high}
    return {name: value for name, value in found.items() if math.isfinite(value)}
