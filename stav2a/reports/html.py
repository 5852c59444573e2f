"""HTML pages with everything inside one file.

They need no network, and their content policy forbids its use.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

from stav2a.utils.errors import StaV2AError

TEMPLATES = Path(__file__).with_name("templates")


class ReportError(StaV2AError):
    """A page that can't be made of what was given."""


@dataclass(frozen=True)
class Media:
    """A sound, a film or a picture, with the words beside it.

    Args:
        label: Description, such as "generated" or "real sound".
        content: The file, or its bytes.
        kind: Media type, such as video/mp4, audio/wav or image/png.
    """

    label: str
    content: Path | bytes
    kind: str

    @property
    def uri(self) -> str:
        """The content inside an address."""
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
        template: Name of its file; it extends page.html.
        **values: Values of its names; page.html itself names `title`, `facts`, `curves` and `details`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html.tests["text"] = lambda value: isinstance(value, str)
    return html.get_template(template).render(**values)
