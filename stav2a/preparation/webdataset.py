"""The kept clips as tar files, as the webdataset library and many trainers read them."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stav2a.data.prepared.shards import KEPT, ClipRecord, read_shard
from stav2a.preparation.dataset_folder import Folder
from stav2a.utils.files import new_folder


def export(prepared: Path, target: Path) -> Path:
    """Write one tar a shard: `00000012.json` and `00000012.NAME.npy` for each tensor of clip 12.

    Args:
        prepared: A finished folder.
        target: A new folder.

    Raises:
        UsageError: The target is there already.
    """
    with new_folder(target) as folder:
        for shard in Folder(prepared).shards():
            with tarfile.open(folder / f"{shard.stem}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
                for row in read_shard(shard):
                    if row.facts["status"] == KEPT:
                        for name, content in _files(row):
                            entry = tarfile.TarInfo(f"{row.position:08d}.{name}")
                            entry.size = len(content)
                            tar.addfile(entry, io.BytesIO(content))
    return target


def _files(row: ClipRecord) -> Iterator[tuple[str, bytes]]:
    yield "json", json.dumps(dict(row.facts), sort_keys=True).encode()
    for name, tensor in sorted(row.tensors.items()):
        content = io.BytesIO()
        np.save(content, tensor)
        yield f"{name}.npy", content.getvalue()
