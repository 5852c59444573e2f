"""The index: a row a clip, gathered from the shards, of which no more than one is in memory."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from safetensors import safe_open

from stav2a.data.cache.layout import INDEX, CacheError, read_facts
from stav2a.prepare.folder import Folder

TEXTS = ("id", "file", "caption", "split", "label", "status", "rule", "reason")
WHOLE = ("position", "line", "caption_row", "shard", "row", "width", "height", "sample_rate")
REAL = ("frame_rate_hz", "duration_s")


def write_index(folder: Folder) -> Iterator[dict[str, Any]]:
    """Write it, and hand out the rows on the way.

    Raises:
        CacheError: Shards differ in the shapes of their tensors.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tensors = tensor_kinds(folder)
    schema = _schema(list(folder.settings()["filters"]), list(tensors))
    schema = schema.with_metadata({"tensors": json.dumps(tensors, sort_keys=True)})
    folder.unfinished.mkdir(exist_ok=True)
    temporary = folder.unfinished / INDEX
    with pq.ParquetWriter(temporary, schema) as file:
        for number, path in enumerate(folder.shards()):
            rows = [{**facts, "shard": number} for facts in read_facts(path)]
            file.write_table(pa.Table.from_pylist(rows, schema))
            yield from rows
    temporary.replace(folder.path / INDEX)


def tensor_kinds(folder: Folder) -> dict[str, dict[str, Any]]:
    """Shape and type of each tensor of a clip, which all shards must agree on."""
    found: dict[str, dict[str, Any]] = {}
    for path in folder.shards():
        with safe_open(path, framework="np") as file:
            for name in file.keys():
                part = file.get_slice(name)
                kind = {"shape": part.get_shape()[1:], "dtype": part.get_dtype()}
                if found.setdefault(name, kind) != kind:
                    raise CacheError(f"{path}: {name} is {kind}, elsewhere {found[name]}. Prepare them anew.")
    return found


def _schema(filters: Sequence[str], tensors: Sequence[str]) -> Any:
    import pyarrow as pa

    kinds = {"keep": pa.bool_(), "score": pa.float64(), "reason": pa.string(), "rule": pa.string()}
    decision = pa.struct(list(kinds.items()))
    return pa.schema(
        [
            *((name, pa.string()) for name in TEXTS),
            *((name, pa.int64()) for name in WHOLE),
            *((name, pa.float64()) for name in REAL),
            ("onsets_s", pa.list_(pa.float64())),
            ("notes", pa.list_(pa.string())),
            ("decisions", pa.struct([(key, decision) for key in filters])),
            ("hashes", pa.struct([(name, pa.string()) for name in tensors])),
            ("norms", pa.struct([(name, pa.float64()) for name in tensors])),
        ]
    )
