"""Small clips, and what was prepared of them once."""

from pathlib import Path

import pytest

from stav2a.cli.main import main
from stav2a.data.struck_objects import StruckObjects


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with manifest.csv and its 10 videos."""
    made = StruckObjects(train_clips=6, validation_clips=2, test_clips=2)
    return made.clips(tmp_path_factory.mktemp("world"))[0].video.parents[1]


@pytest.fixture(scope="session")
def prepare(world):
    """`stav2a prepare` on it, in this process, four clips a shard."""

    def run(output: Path, *more: str, manifest: Path | None = None, workers: int = 1) -> int:
        fixed = ["--manifest", str(manifest or world / "manifest.csv"), "--videos", str(world)]
        return main(
            [
                "prepare",
                *fixed,
                "--output",
                str(output),
                "--shard-clips",
                "4",
                "--workers",
                str(workers),
                *more,
            ]
        )

    return run


@pytest.fixture(scope="session")
def prepared(prepare, tmp_path_factory) -> Path:
    """The folder that comes of it. Not to be changed."""
    folder = tmp_path_factory.mktemp("prepared") / "whole"
    assert prepare(folder) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def files_of():
    """Every file of a folder, by its name."""
    return contents
