"""Reading a prepared folder: rows when asked for, and nothing that is not what was written."""

import json
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
    for earlier in (1, 2):
        settings.write_text(text.replace('"format": 3', f'"format": {earlier}'))
        assert len(PreparedFolder(copy)) == 10
    settings.write_text(text.replace('"format": 3', '"format": 4'))
    with pytest.raises(PreparedFolderError, match="in format 4, this version reads 1 to 3. Prepare it anew"):
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


def flip_numbers(tensors):
    tensors["e_text"] *= -1


def move_an_end(tensors):
    tensors["lengths"][:2] += [1, -1]


def end_too_late(tensors):
    tensors["lengths"][-1] += 1


@pytest.fixture
def texts(copy):
    """The file of a folder's text embeddings."""
    make_texts(DatasetFolder(copy), tiny.model().text_encoder)
    return copy / "text" / "00000.safetensors"


@pytest.mark.parametrize("change", [flip_numbers, move_an_end, end_too_late])
def test_changed_text_embeddings_are_found_when_they_are_read_and_made_again(change, copy, texts, capsys):
    written, tensors = texts.read_bytes(), load_file(texts)
    with safe_open(texts, framework="np") as file:
        told = file.metadata()
    change(tensors)
    save_file(tensors, texts, told)
    with pytest.raises(
        PreparedFolderError, match="00000.safetensors: e_text of its caption . is not what was"
    ):
        PreparedFolder(copy).texts(range(10))
    make_texts(DatasetFolder(copy), tiny.model().text_encoder)
    assert texts.read_bytes() == written
    assert capsys.readouterr().err.count("not what was written: its captions are encoded again") == 1


@pytest.mark.parametrize("cut", [lambda content: content[:-9], lambda content: content[:9]])
def test_a_damaged_file_of_text_embeddings_is_told(cut, copy, texts):
    texts.write_bytes(cut(texts.read_bytes()))
    with pytest.raises(PreparedFolderError, match=r"text/00000.safetensors: damaged \("):
        PreparedFolder(copy).texts([0])


def test_an_embedding_of_another_caption_is_found(copy, texts):
    caption = PreparedFolder(copy).clips[0].caption
    texts.write_bytes(texts.read_bytes().replace(caption.encode(), caption[::-1].encode()))
    with pytest.raises(PreparedFolderError, match="e_text of its caption 1 is not what was written"):
        PreparedFolder(copy).texts([0])


def test_text_embeddings_of_an_earlier_format_are_read_without_their_hashes(copy, texts):
    wanted, _ = PreparedFolder(copy).texts([3])
    captions = list(DatasetFolder(copy).plan.captions())
    save_file(load_file(texts), texts, {"captions": json.dumps(captions)})
    settings = copy / "prepared.json"
    settings.write_text(settings.read_text().replace('"format": 3', '"format": 2'))
    torch.testing.assert_close(PreparedFolder(copy).texts([3])[0], wanted)


def test_a_changed_fact_in_the_index_is_found(copy):
    index = copy / "index.parquet"
    index.write_bytes(index.read_bytes().replace(b"train", b"trail"))
    with pytest.raises(PreparedFolderError, match=r"index.parquet: damaged \("):
        PreparedFolder(copy)
