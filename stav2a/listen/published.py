"""The paper's Table II: means and 95 % intervals of 6 annotators and 20 clips a model (sec. III)."""

import functools
from typing import NamedTuple

from stav2a.ablation.published import plain, read_published
from stav2a.listen.scales import NAMES
from stav2a.recipe.reading import shipped_root

FILE = "table2_paper.csv"

SOURCE = (
    "Table II of arXiv:2409.08601v2, 6 professional annotators, 20 clips a model; it does not tell how its ± "
    "were computed"
)


class Published(NamedTuple):
    """A mean, and half of its 95 % interval."""

    mean: float
    half: float


def published(system: str) -> dict[str, Published]:
    """Scale -> the paper's figure for a system of this name, whatever its capitals and strokes; or nothing.

    Example:
        >>> published("sta_v2a")["oq"], published("mine")
        (Published(mean=92.0, half=1.03), {})
    """
    return _table().get(plain(system), {})


@functools.cache
def _table() -> dict[str, dict[str, Published]]:
    rows = read_published(shipped_root("ablations") / FILE, rows=["GT"], metrics=NAMES)
    return {
        plain(row): {scale: Published(figures[scale], figures[f"{scale}_ci"]) for scale in NAMES}
        for row, figures in rows.items()
    }
