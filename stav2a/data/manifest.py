"""A user's own clips: a folder of videos and a csv that says what they are."""

import csv
from collections import Counter
from pathlib import Path

from stav2a.data.clip import SPLITS, Clip
from stav2a.registry import register

REQUIRED = ("id", "caption", "split", "file")


class ManifestError(ValueError):
    """A manifest that can't be read, or says the impossible."""


@register("dataset", "manifest")
class Manifest:
    """Clips listed in a csv with the columns id, caption, split and file; label is optional.

    Args:
        file: The csv, in UTF-8.
        videos: Folder that the column `file` is relative to; None is the csv's own folder.

    Raises:
        ManifestError: The csv is missing, lacks columns, or has a row that can't be; the message names it.
    """

    def __init__(self, *, file: str, videos: str | None = None) -> None:
        self.file = Path(file)
        self.videos = Path(videos) if videos is not None else self.file.parent

    def clips(self, folder: Path) -> list[Clip]:
        """The clips in the csv's order; `folder` is not needed, as nothing is made."""
        rows = self._rows()
        repeated = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
        if repeated:
            raise ManifestError(f"{self.file}: the id {repeated[0]!r} occurs twice. Give each clip its own.")
        return [self._clip(row, number) for number, row in enumerate(rows, start=2)]

    def _rows(self) -> list[dict[str, str]]:
        try:
            with open(self.file, newline="", encoding="utf-8-sig") as lines:
                table = csv.DictReader(lines)
                rows, columns = list(table), table.fieldnames or []
        except FileNotFoundError:
            raise ManifestError(
                f"dataset.manifest.file = {str(self.file)!r}: there is no such file. Expected a csv with the "
                f"columns {', '.join(REQUIRED)}; docs/benchmark.md shows one."
            ) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise ManifestError(f"{self.file}: not a csv in UTF-8 ({error}). Save it as UTF-8.") from None
        missing = [name for name in REQUIRED if name not in columns]
        if missing:
            raise ManifestError(
                f"{self.file}: has the columns {', '.join(columns) or 'none'}; "
                f"expected {', '.join(REQUIRED)}. Add {', '.join(missing)}."
            )
        if not rows:
            raise ManifestError(f"{self.file}: lists no clip. Add a row for each.")
        return rows

    def _clip(self, row: dict[str, str], line: int) -> Clip:
        if row["split"] not in SPLITS:
            raise ManifestError(
                f"{self.file}, line {line}: the split is {row['split']!r}; "
                f"expected one of {', '.join(SPLITS)}."
            )
        video = self.videos / row["file"]
        if not video.is_file():
            raise ManifestError(
                f"{self.file}, line {line}: there is no file {video}. Check dataset.manifest.videos."
            )
        return Clip(row["id"], video, row["caption"], row["split"], label=row.get("label") or None)
