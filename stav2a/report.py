"""One page that holds a whole run: figures, sounds, pictures, curves, and what they came from.

Everything is inside the file, so that it opens from a disk, in a mail, and in ten years. It asks nothing of
the network, and its content policy forbids it to.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stav2a.metrics.sets import Score
from stav2a.store import write_text

TEMPLATES = Path(__file__).with_name("templates")
BAR_WIDTH = 150  # of an interval's picture, in its own units


class ReportError(ValueError):
    """The page can't be made of what was given."""


@dataclass(frozen=True)
class Media:
    """A sound, a film or a picture, with the words beside it.

    Args:
        label: What it is: "generated", "reference".
        content: The file, or its bytes.
        kind: Its media type, such as video/mp4, audio/wav or image/png.
    """

    label: str
    content: Path | bytes
    kind: str

    @property
    def uri(self) -> str:
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return f"data:{self.kind};base64,{base64.b64encode(content).decode()}"

    @property
    def player(self) -> str:
        """The HTML element that plays it: video, audio or img."""
        player = {"video": "video", "audio": "audio", "image": "img"}.get(self.kind.partition("/")[0])
        if player is None:
            raise ReportError(f"{self.label} is of kind {self.kind!r}; expected video/…, audio/… or image/….")
        return player


@dataclass(frozen=True)
class ReportClip:
    """One clip, to see and to hear.

    Args:
        id: Its name in the dataset.
        caption: What the text encoder read.
        tags: Short words in boxes: the class, "vague caption".
        facts: Name -> value, such as its own scores.
        media: Films, sounds and pictures, in the order they are shown.
    """

    id: str
    caption: str
    tags: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    media: Sequence[Media] = ()


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    scores: Sequence[Score] = (),
    notes: Sequence[str] = (),
    clips: Sequence[ReportClip] = (),
    curves: bytes | None = None,
    details: Mapping[str, str | Mapping[str, str]] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: Where to. The folder exists.
        title: Heading of the page.
        facts: Name -> value under the heading: recipe, seed, scale, commit.
        scores: Rows of the table, as `evaluate` gives them.
        notes: Sentences under the table, such as which classifier was used.
        clips: What can be seen and heard.
        curves: Training curves as PNG, see `plots.curves_png`.
        details: Heading -> a text or a table, folded: the recipe's snapshot, its lineage, the environment.

    Returns:
        The path.

    Raises:
        ReportError: A media kind that no browser plays.
    """
    page = render(
        "report.html",
        title=title,
        facts=facts or {},
        scores=scores,
        notes=notes,
        clips=clips,
        curves=Media("Training curves", curves, "image/png") if curves else None,
        details=details or {},
    )
    write_text(Path(path), page)
    return Path(path)


def render(template: str, **values: object) -> str:
    """A page from a template of this package. Words of the values are never markup.

    Args:
        template: Its file's name; it extends page.html.
        **values: What it names; page.html itself names `title`, `facts`, `curves` and `details`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html.filters.update(figure=_figure, bar=_bar)
    html.tests["text"] = lambda value: isinstance(value, str)
    return html.get_template(template).render(**values)


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _bar(score: Score) -> dict[str, float] | None:
    """Where value, interval and chance lie on a line of BAR_WIDTH, from 0 to 1 or to what is needed."""
    known = [v for v in (score.value, score.low, score.high, score.chance) if v is not None]
    if score.low is None or score.high is None or not all(map(math.isfinite, known)):
        return None
    start = min(0.0, *known)
    end = 1.0 if max(known) <= 1 else 1.15 * max(known)
    places = {"value": score.value, "low": score.low, "high": score.high, "chance": score.chance}
    return {k: round(BAR_WIDTH * (v - start) / (end - start), 1) for k, v in places.items() if v is not None}
