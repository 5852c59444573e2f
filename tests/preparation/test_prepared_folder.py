"""Reading a prepared folder: rows when asked for, and nothing that is not what was written."""

import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from stav2a import registry
from stav2a.data.filters import KeepAll
from stav2a.data.prepared import PreparedFolder, PreparedFolderError
from stav2a.preparation.dataset_folder import DatasetFolder
from stav2a.preparation.preparing import make_texts
from tests import tiny


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copy")


def test_rows_are_indexed_like_a_tensor(prepared):
    mel = PreparedFolder(prepared).tensor("mel")
    whole = mel[:]
    assert whole.shape == mel.shape == (10, 1, 256, 64) and len(mel) == 10
    for key in (3, -1, slice(2, 5), [4, 1], np.array([9, 0]), torch.tensor([7, 7]), torch.tensor(2)):
        torch.testing.assert_close(mel[key], whole[key])
    torch.testing.assert_close(mel[torch.arange(10) > 6], whole[7:])
    torch.testing.assert_close(mel[2, :, 5:9], whole[2, :, 5:9])
    torch.testing.assert_close(mel[1:3, :, 5:9], whole[1:3, :, 5:9])
    torch.testing.assert_close(torch.cat(list(mel.split(4))), whole)
    assert mel[[]].shape == (0, 1, 256, 64)
    with pytest.raises(IndexError):
        mel[10]


def test_clips_are_those_of_the_manifest(prepared):
    cache = PreparedFolder(prepared)
    assert [clip.id for clip in cache.clips][:2] == ["train_00000", "train_00001"]
    assert all(clip.video.is_file() and clip.label and clip.caption for clip in cache.clips)
    assert cache.tensor("onsets")[:].shape == (10, 32)


def test_the_component_gives_the_same_clips(prepared, tmp_path):
    dataset = registry.get("dataset", "prepared").factory(folder=str(prepared), videos=str(tmp_path))
    assert [clip.video for clip in dataset.clips(tmp_path)][0] == tmp_path / "train/train_00000.mp4"


def test_changed_numbers_are_found_when_their_row_is_read(copy):
    path = copy / "shards" / "00001.safetensors"
    with safe_open(path, framework="np") as file:
        told = file.metadata()
    tensors = load_file(path)
    tensors["mel"][2, 0, 7, 7] += 1
    save_file(tensors, path, told)
    mel = PreparedFolder(copy).tensor("mel")
    mel[5]
    with pytest.raises(PreparedFolderError, match="00001.safetensors: mel of row 2 is not what was written"):
        mel[6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "missing or damaged"),
        (lambda path: path.unlink(), "missing or damaged"),
    ],
)
def test_a_damaged_shard_is_found(copy, change, message):
    change(copy / "shards" / "00001.safetensors")
    mel = PreparedFolder(copy).tensor("mel")
    mel[0]
    with pytest.raises(PreparedFolderError, match=message):
        mel[4]


def test_what_is_not_there_is_said(prepared, tmp_path):
    with pytest.raises(PreparedFolderError, match="holds no e_v, but frames, mel, onsets: feature_encoder"):
        PreparedFolder(prepared).tensor("e_v")
    with pytest.raises(PreparedFolderError, match="another data filter than this recipe's: other files are"):
        PreparedFolder(prepared).decisions("0" * 64, KeepAll)
    with pytest.raises(PreparedFolderError, match="holds no text embeddings: "):
        PreparedFolder(prepared).texts([0])
    with pytest.raises(PreparedFolderError, match="holds no prepared clips"):
        PreparedFolder(tmp_path)


def test_an_unfinished_folder_is_refused(copy):
    (copy / "index.parquet").unlink()
    with pytest.raises(PreparedFolderError, match="is not finished"):
        PreparedFolder(copy)


def test_a_folder_of_an_earlier_format_is_read_and_of_no_other(copy):
    settings = copy / "prepared.json"
    text = settings.read_text()
    settings.write_text(text.replace('"format": 2', '"format": 1'))
    assert len(PreparedFolder(copy)) == 10
    settings.write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(PreparedFolderError, match="in format 3, this version reads 1 and 2. Prepare it anew"):
        PreparedFolder(copy)


def test_each_distinct_caption_is_embedded_once(copy):
    encoder = tiny.model().text_encoder
    make_texts(DatasetFolder(copy), encoder)
    cache = PreparedFolder(copy)
    captions = [clip.caption for clip in cache.clips]
    e_text, mask = cache.texts([3, 0, 9])
    with torch.no_grad():
        wanted, wanted_mask = encoder([captions[row] for row in (3, 0, 9)])
    longest = e_text.shape[1]
    assert torch.equal(mask, wanted_mask[:, :longest]) and not wanted_mask[:, longest:].any()
    torch.testing.assert_close(e_text, wanted[:, :longest], atol=2e-3, rtol=1e-3)
    null, _ = cache.texts([3], [True])
    torch.testing.assert_close(null[0, 0], encoder([""])[0][0, 0], atol=2e-3, rtol=1e-3)
    assert len(list(DatasetFolder(copy).plan.captions())) == len({"", *captions})
