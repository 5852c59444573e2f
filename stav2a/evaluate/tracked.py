"""An evaluation as a tracked run: a figure's name is `system/crop/metric`."""

from collections.abc import Sequence
from pathlib import Path

from stav2a.evaluate.grids import crop_in_figures
from stav2a.evaluate.tables import Tables
from stav2a.evaluation import figures, per_clip
from stav2a.tracking import connect, environment

EXPERIMENT = "evaluation"


def track(uri: str | None, folder: Path, tables: Tables, files: Sequence[Path]) -> str:
    """Log figures, values per clip and files.

    Args:
        uri: See `tracking.connect`.
        folder: Of the evaluation; its name is the run's.
        tables: The figures.
        files: To keep with the run.

    Returns:
        Where it can be seen.

    Raises:
        AddressError: The address is misspelt.
        TrackingError: Nothing answers there, or it can't be written.
    """
    with connect(uri, folder, experiment=EXPERIMENT, run_name=folder.resolve().name) as tracker:
        tracker.log_params({f"version.{name}": value for name, value in environment().items()})
        for crop, rows in tables.evaluated.scores.items():
            at = crop_in_figures(crop)
            tracker.log_params({f"clips.{at}": len(tables.evaluated.ids[crop])})
            for row, scores in rows.items():
                values = figures(scores)
                tracker.log_metrics({f"{row}/{at}/{name}": value for name, value in values.items()})
                tracker.log_params(
                    {f"{row}/{at}/{s.name}": s.definition for s in scores if not s.unavailable}
                )
                tracker.log_table(per_clip(scores), f"per_clip/{row}-{at}.json")
        for file in files:
            tracker.log_artifact(file)
        return tracker.where()
