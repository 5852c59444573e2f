"""A page of a small comparison, with films and sounds made by hand."""

from pathlib import Path

import numpy as np

from stav2a.data.media import write_clip, write_wav
from stav2a.reports.comparison_tables import comparison_document
from stav2a.reports.pages import ComparedClip, RowClip, write_page
from tests.evaluation.compared import PAPER, compared

RATE = 16_000
ONSETS_S = (0.2, 0.6)
ATTACK = '<script>alert("x")</script>'
ROWS = ("CN", "CN+Onset")


def clip(folder: Path, name: str) -> ComparedClip:
    """A clip of 0.8 s with two clicks, through two of the rows."""
    sound = np.zeros(int(0.8 * RATE), dtype=np.float32)
    sound[[int(at * RATE) for at in ONSETS_S]] = 0.9
    frames = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    write_wav(folder / f"{name}.wav", sound, RATE)
    write_clip(folder / f"{name}.mp4", frames, 25, sound, RATE)
    made = RowClip(folder / f"{name}.mp4", folder / f"{name}.wav", {"AA-Align": "0.75", "KL": "0.12"})
    return ComparedClip(
        id=name,
        caption=f"a rod strikes {ATTACK}",
        tags=["glass", "vague caption"],
        onsets_s=ONSETS_S,
        duration_s=0.8,
        reference=folder / f"{name}.wav",
        rows=dict.fromkeys(ROWS, made),
    )


def page(folder: Path, **changes: object) -> Path:
    """The page of the study in `examples`, through two clips."""
    curves = {"joint/loss": {row: [(0.0, 1.0), (1.0, 0.5)] for row in ROWS}}
    values = {
        "title": f"Table III {ATTACK}",
        "facts": {"seeds": "0, 1, 2"},
        "clips": [clip(folder, "test_0"), clip(folder, "test_1")],
        "curves": curves,
        "details": {"Command": "stav2a ablation", "Environment": {"torch": "2.13.0"}},
    }
    four = compared(published=PAPER)
    values["comparison"] = four
    return write_page(folder / "report.html", comparison_document(four), **(values | changes))  # type: ignore[arg-type]
