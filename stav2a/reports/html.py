"""One page that holds a whole run: figures, sounds, pictures, curves, and what they came from.

Everything is inside the file, so that it opens from a disk, in a mail, and in ten years. It asks nothing of
the network, and its content policy forbids it to.
"""

import base64
import math
from dataclasses import dataclass
from pathlib import Path

from stav2a.metrics.score import Score
from stav2a.utils.errors import StaV2AError

TEMPLATES = Path(__file__).with_name("templates")
BAR_WIDTH = 150  # of an interval's picture, in its own units


class ReportError(StaV2AError):
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
