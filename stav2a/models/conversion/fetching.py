"""Fetching of published weights: download, check, conversion, and the place where they are looked for."""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from stav2a.models.conversion.catalogue import PublishedWeights
from stav2a.models.conversion.converters import convert
from stav2a.utils.downloads import DownloadedFile, DownloadError, RemoteFile, download
from stav2a.utils.errors import UsageError
from stav2a.utils.files import exclusive, write_json

RECORD = "{name}.fetched.json"


def there(weights: PublishedWeights, folder: Path) -> bool:
    """True where all that a fetch makes is in a folder."""
    return all((folder / target).exists() for target in weights.targets)


def fetch(
    name: str,
    weights: PublishedWeights,
    folder: Path,
    *,
    finish: Callable[[Path], None] = lambda made: None,
) -> list[str]:
    """Download weights into a folder, whole or not at all; an interrupted download is resumed.

    Args:
        name: Name of the weights.
        weights: Their facts.
        folder: Folder to put them into, and in which the weights are that these need.
        finish: Called with what was converted, before it takes its name.

    Returns:
        Lines on each file: its sha256, and by what it was checked.

    Raises:
        DownloadError: A file can't be had, or is another one.
        ConvertError: A file has not the published layout.
        UsageError: A part of it is there already.
    """
    for target in weights.targets:
        if (folder / target).exists():
            raise UsageError(f"{folder / target} is there already. Move it away, or give another --output.")
    staging, record = folder / f".fetch-{name}", folder / RECORD.format(name=name)
    with exclusive(staging / "lock", f"weights of {name}"):
        try:
            known = _recorded(record)
            found = {
                file.name: download(file, staging / "files" / file.name, sha256=known.get(file.name, ""))
                for file in weights.files
            }
            if weights.kind:
                _convert(weights, staging, folder, finish)
            else:
                for target in weights.targets:
                    (staging / "files" / target).replace(folder / target)
            write_json(record, {"files": {each: asdict(facts) for each, facts in found.items()}})
        except DownloadError as error:
            if not error.resumable:
                shutil.rmtree(staging)
            raise
        except ValueError:
            shutil.rmtree(staging)
            raise
        shutil.rmtree(staging)
    return [_line(file, found[file.name], known.get(file.name, ""), record) for file in weights.files]


def _convert(
    weights: PublishedWeights,
    staging: Path,
    folder: Path,
    finish: Callable[[Path], None],
) -> None:
    """Convert the first file, add the others and blocks of other weights, and give the result its name."""
    made, first = staging / "made", weights.files[0]
    shutil.rmtree(made, ignore_errors=True)
    convert(weights.kind, [staging / "files" / first.name], made)
    for file in weights.files[1:]:
        shutil.copyfile(staging / "files" / file.name, made / file.name)
    for block, source in weights.blocks.items():
        shutil.copytree(folder / source, made / block)
    finish(made)
    made.rename(folder / weights.folder)


def _recorded(record: Path) -> dict[str, str]:
    """Hashes that the first download found, by file."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        return {name: str(facts["sha256"]) for name, facts in files.items()}
    return {}


def _line(file: RemoteFile, found: DownloadedFile, recorded: str, record: Path) -> str:
    if file.sha256:
        checked = "as expected"
    elif recorded:
        checked = f"as recorded in {record}"
    elif found.announced:
        checked = f"as the hub announced; expected from now on ({record})"
    else:
        checked = f"not known before; expected from now on ({record})"
    commit = f" of commit {found.revision}" if found.revision and not file.revision else ""
    return f"read      {file.address}{commit}  sha256 {found.sha256}, {checked}"
