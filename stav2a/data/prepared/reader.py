"""Reader of prepared clips: the index is in memory, tensors are read from their shards row by row."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stav2a.data.clip import Clip
from stav2a.data.filters import Decision
from stav2a.data.prepared.shards import (
    AGAIN,
    FORMAT,
    INDEX,
    SETTINGS,
    SHARDS,
    TEXT,
    TEXTS_IN_A_FILE,
    PreparedFolderError,
    TextFile,
    digest,
    norm,
    read_settings,
)
from stav2a.recipe import describing
from stav2a.registry import register
from stav2a.utils.contents import Contents

OPEN_FILES = 64
HASHED = 3  # first format with hashes of the texts
ANEW = "Prepare the clips with this recipe, into another folder."


class PreparedFolder:
    """A prepared folder. Row i of everything is clip i of those that have tensors.

    Args:
        folder: The output of `stav2a prepare`.
        videos: Folder of the clips' files; None is the folder that they were in when they were prepared.

    Raises:
        PreparedFolderError: The folder is not finished, not ours, or of another version.
    """

    def __init__(self, folder: Path, videos: Path | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder, self.settings = folder, _settings(folder)
        self.videos = videos or Path(self.settings["videos"])
        try:
            table = pq.read_table(folder / INDEX, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise PreparedFolderError(f"{folder / INDEX}: damaged ({error}). {AGAIN}") from None
        self.kinds: dict[str, Any] = json.loads(table.schema.metadata[b"tensors"])
        self.table = table.filter(np.asarray(table["row"].is_valid()))
        self._checked_texts: set[int] = set()
        self._text_file = functools.lru_cache(OPEN_FILES)(TextFile.open)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def clips(self) -> list[Clip]:
        """The clips that have tensors, in the manifest's order."""
        columns = [self.table[name].to_pylist() for name in ("id", "file", "caption", "split", "label")]
        return [
            Clip(name, self.videos / file, caption, split, label=label or None)
            for name, file, caption, split, label in zip(*columns, strict=True)
        ]

    def decisions(self, key: str, factory: Callable[..., object]) -> list[Decision]:
        """A filter's decisions on all clips.

        Args:
            key: The filter's key; see `filter_key`.
            factory: The filter's factory, for errors.

        Raises:
            PreparedFolderError: The clips were prepared without this filter, or with other settings of it.
        """
        filters = self.settings["filters"]
        if key[:16] not in filters:
            asked = describing.describe(factory)
            alike = [each for each in filters.values() if each["component"] == asked["component"]]
            nearest = min(alike, key=lambda each: len(describing.differing(each, asked)), default=None)
            if nearest is None:
                known = ", ".join(each["component"] for each in filters.values())
                fault = f"holds the decisions of {known}, but not of this recipe's {asked['component']}"
            else:
                found = describing.differences(nearest, asked) or "other files are named in it"
                fault = f"was prepared with another data filter than this recipe's: {found}"
            raise PreparedFolderError(f"{self.folder} {fault}.", advice=ANEW)
        column = self.table["decisions"].combine_chunks().field(key[:16])
        return [Decision(**each) for each in column.to_pylist()]

    def has(self, name: str) -> bool:
        return name in self.kinds

    def tensor(self, name: str) -> "Sharded":
        """A tensor of all clips, read when rows are asked for.

        Raises:
            PreparedFolderError: The clips were prepared without it.
        """
        if not self.has(name):
            raise PreparedFolderError(
                f"{self.folder} holds no {name}, but {', '.join(sorted(self.kinds))}: "
                f"{'; '.join(self.settings['kept'])}. Prepare the clips with encoders that give it."
            )
        return Sharded(self, name)

    @property
    def has_texts(self) -> bool:
        return (self.folder / TEXT).is_dir()

    @cached_property
    def _caption_rows(self) -> list[int]:
        return self.table["caption_row"].to_pylist()

    @cached_property
    def _captions(self) -> list[str]:
        return self.table["caption"].to_pylist()

    def texts(self, rows: Sequence[int], drop: Sequence[bool] | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings of some clips' captions, padded with zeros to the longest, and their mask.

        Args:
            rows: Row numbers of the clips.
            drop: True for each clip that gets the null text instead; by default none does.

        Raises:
            PreparedFolderError: The clips were prepared without text embeddings.
        """
        dropped = drop if drop is not None else [False] * len(rows)
        found = []
        for row, null in zip(rows, dropped, strict=True):
            number = 0 if null else self._caption_rows[int(row)]  # distinct caption 0 is the null text
            file_number, place = divmod(number, TEXTS_IN_A_FILE)
            path = self.folder / TEXT / f"{file_number:05d}.safetensors"
            if not path.is_file():
                raise PreparedFolderError(
                    f"{self.folder} holds no text embeddings: {'; '.join(self.settings['kept'])}."
                )
            file = self._text_file(path)
            if self.settings["format"] >= HASHED and number not in self._checked_texts:
                if not file.holds(place, "" if null else self._captions[int(row)]):
                    raise PreparedFolderError(
                        f"{path}: e_text of its caption {place} is not what was written. {AGAIN}"
                    )
                self._checked_texts.add(number)
            found.append(torch.from_numpy(file.embedding(place).astype(np.float32)))
        e_text = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        lengths = torch.tensor([len(each) for each in found])
        return e_text, torch.arange(e_text.shape[1])[None] < lengths[:, None]


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / SETTINGS).is_file():
        raise PreparedFolderError(
            f"{folder} holds no prepared clips: there is no {SETTINGS} in it. "
            "Give the --output of `stav2a prepare`."
        )
    found = read_settings(folder / SETTINGS)
    if found.get("format") not in range(1, FORMAT + 1):
        raise PreparedFolderError(
            f"{folder} was prepared in format {found.get('format')}, this version reads 1 to {FORMAT}. "
            "Prepare it anew."
        )
    if not (folder / INDEX).is_file():
        raise PreparedFolderError(
            f"{folder} is not finished. Give its `stav2a prepare` command again; it goes on."
        )
    return found


class Sharded:
    """A tensor whose first axis is the clips, on disk until rows are asked for, then float32 or uint8.

    A row's shape, type, hash and norm are checked when it is first read.
    """

    def __init__(self, folder: PreparedFolder, name: str) -> None:
        self.name, self.folder = name, folder.folder
        self.kind = folder.kinds[name]
        self.shape = torch.Size([len(folder), *self.kind["shape"]])
        self.dtype = torch.uint8 if self.kind["dtype"] == "U8" else torch.float32
        self._shards = np.asarray(folder.table["shard"], dtype=np.int64)
        self._places = np.asarray(folder.table["row"], dtype=np.int64)
        self._hashes = folder.table["hashes"].combine_chunks().field(name)
        self._norms = folder.table["norms"].combine_chunks().field(name)
        self._checked = np.zeros(len(folder), bool)
        self._part = functools.lru_cache(OPEN_FILES)(self._open)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Tensor:
        """Rows by a number, a slice, numbers or a mask; a tuple indexes each row further."""
        if isinstance(key, tuple):
            first, *rest = key
            whole = isinstance(first, int | np.integer) or (isinstance(first, Tensor) and first.ndim == 0)
            return self[first][tuple(rest) if whole else (slice(None), *rest)]
        rows = np.arange(len(self))[key.numpy() if isinstance(key, Tensor) else key]
        if rows.ndim == 0:
            return self._row(int(rows))
        if not len(rows):
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        return torch.stack([self._row(int(row)) for row in rows])

    def split(self, size: int) -> Iterator[Tensor]:
        """Successive parts of this many clips, each read when it is asked for."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def _row(self, row: int) -> Tensor:
        path = self.folder / SHARDS / f"{self._shards[row]:05d}.safetensors"
        found = self._part(path)[int(self._places[row])]
        if not self._checked[row]:
            numbers, hashed, size = found.numpy(), self._hashes[row].as_py(), self._norms[row].as_py()
            if digest(numbers) != hashed or not np.isclose(norm(numbers), size, rtol=1e-3):
                raise PreparedFolderError(
                    f"{path}: {self.name} of row {self._places[row]} is not what was written. {AGAIN}"
                )
            self._checked[row] = True
        return found.to(self.dtype)

    def _open(self, path: Path) -> Any:
        try:
            part = safe_open(path, framework="pt").get_slice(self.name)
        except (SafetensorError, OSError) as error:
            raise PreparedFolderError(f"{path}: missing or damaged ({error}). {AGAIN}") from None
        kind = {"shape": part.get_shape()[1:], "dtype": part.get_dtype()}
        if kind != self.kind:
            raise PreparedFolderError(f"{path}: {self.name} is {kind}, the index says {self.kind}. {AGAIN}")
        return part


@register("dataset", "prepared")
class PreparedClips:
    """Clips that `stav2a prepare` made, with their tensors, decisions and onsets (docs/data.md).

    Args:
        folder: The --output of `stav2a prepare`.
        videos: Folder of the clips' files; None is the folder that they were in when they were prepared.

    Raises:
        PreparedFolderError: The folder is not finished, not ours, or of another version.
    """

    def __init__(self, *, folder: str, videos: str | None = None) -> None:
        self.folder, self.videos = Path(folder), None if videos is None else Path(videos)

    @cached_property
    def prepared(self) -> PreparedFolder:
        return PreparedFolder(self.folder, self.videos)

    def identity(self, contents: Contents) -> list[Any] | None:
        """Hashes of the index, which has those of all tensors, of the texts, and of the videos to score on.

        None until the folder is finished.
        """
        if not (self.folder / INDEX).is_file():
            return None
        videos = [clip.video for clip in self.prepared.clips if clip.split == "test"]
        scored = contents.of_files(path for path in videos if path.is_file())
        return [contents.of(self.folder / INDEX), contents.of(self.folder / TEXT), scored]

    def clips(self, folder: Path) -> Sequence[Clip]:
        """The clips that have tensors; `folder` is not needed, as nothing is made."""
        return self.prepared.clips
