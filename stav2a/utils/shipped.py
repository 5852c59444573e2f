"""Files that come with the package: recipes, studies, skeletons, documentation."""

import os
from pathlib import Path


def shipped_root(kind: str) -> Path:
    """Folder of the package's recipes, ablations, skeletons or docs: inside it or, in a clone, beside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / f"_{kind}"
    return installed if installed.is_dir() else package.parent / kind


def doc(page: str) -> str:
    """Path of a page of the documentation, from here if it lies below the current folder."""
    path = shipped_root("docs") / page
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
