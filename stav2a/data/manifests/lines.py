"""Lines of a text file that may be anything: bounded, UTF-8, never more than one in memory."""

import csv
from collections.abc import Iterator
from pathlib import Path

from stav2a.data.manifest import ManifestError

LONGEST = 1_000_000  # characters


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, one at a time.

    Raises:
        ManifestError: It can't be read, is no UTF-8, or has a line longer than any of a manifest.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            while line := file.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise ManifestError(
                        f"{path}: a line of more than {LONGEST} characters: this is no manifest. "
                        "Give a csv, tsv or jsonl with a line a clip."
                    )
                yield line
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not in UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise ManifestError(
            f"{path}: can't be read ({error.strerror}). Give a manifest, or a folder."
        ) from None


def rows(path: Path, delimiter: str) -> Iterator[list[str]]:
    """The rows of a csv or tsv that are not empty.

    Raises:
        ManifestError: As `lines`, or where quotes are never closed.
    """
    csv.field_size_limit(LONGEST)
    try:
        for row in csv.reader(lines(path), delimiter=delimiter):
            if any(field.strip() for field in row):
                yield row
    except csv.Error as error:
        raise ManifestError(f"{path}: not a table ({error}). Save it as csv or tsv, in UTF-8.") from None
