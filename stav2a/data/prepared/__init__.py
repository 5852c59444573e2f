"""Prepared clips on disk: what `stav2a prepare` writes and training reads. docs/data.md is its data card.

DIR/prepared.json            what it was made of, and the shapes
DIR/index.parquet            a row a clip: what is known, what was decided, where its tensors lie
DIR/shards/00000.safetensors tensors of some clips, and the same rows
DIR/text/00000.safetensors   embeddings of some distinct captions
"""

from stav2a.data.prepared.reader import PreparedFolder, Sharded
from stav2a.data.prepared.shards import ClipRecord, PreparedFolderError, pack_shard, read_facts, read_shard

__all__ = [
    "PreparedFolder",
    "PreparedFolderError",
    "ClipRecord",
    "Sharded",
    "pack_shard",
    "read_facts",
    "read_shard",
]
