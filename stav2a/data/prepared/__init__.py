"""Prepared clips on disk, which `stav2a prepare` writes and training reads. docs/data.md is the data card.

DIR/prepared.json            the settings, and the shapes
DIR/index.parquet            a row a clip: its facts, the filters' decisions, the place of its tensors
DIR/shards/00000.safetensors tensors of some clips, and the same rows
DIR/text/00000.safetensors   embeddings of some distinct captions
"""

from stav2a.data.prepared.reader import PreparedFolder
from stav2a.data.prepared.shards import ClipRecord, PreparedFolderError

__all__ = ["ClipRecord", "PreparedFolder", "PreparedFolderError"]
