"""A user's manifest: read whole, or refused with the line at fault."""

import pytest

from stav2a.data.manifest import ManifestDataset, ManifestError

HEADER = "id,caption,split,file,label\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not read here")
    return tmp_path


def written(folder, text, encoding="utf-8"):
    (folder / "manifest.csv").write_bytes(text.encode(encoding))
    return ManifestDataset(file=str(folder / "manifest.csv"))


def test_clips_come_in_the_order_of_the_csv(folder):
    (folder / "b.mp4").touch()
    clips = written(folder, HEADER + "b,a bell,train,b.mp4,bell\na,,test,a.mp4,\n").clips(folder)
    assert [(c.id, c.caption, c.split, c.label) for c in clips] == [
        ("b", "a bell", "train", "bell"),
        ("a", "", "test", None),
    ]
    assert clips[0].video == folder / "b.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,caption\nx,y\n", "expected id, caption, split, file. Add split, file."),
        (HEADER, "lists no clip"),
        ("id,caption,split,file,caption\na,x,train,a.mp4,y\n", "the column 'caption' occurs twice. Keep one"),
        (HEADER + "a,x,train,a.mp4,\na,y,train,a.mp4,\n", "the id 'a' occurs twice"),
        (HEADER + "a,x,train,a.mp4,\n ,y,train,a.mp4,\n", "line 3: the id is empty. Give each clip its own"),
        (HEADER + "a,x,training,a.mp4,\n", "line 2: the split is 'training'; expected one of train"),
        (HEADER + "a,x\0y,train,a.mp4,\n", r"line 2: the caption holds the control character '\\x00'. Take"),
        (HEADER + "a\x07,x,train,a.mp4,\n", r"line 2: the id holds the control character '\\x07'. Take it"),
        (HEADER + "a,x,train,b.mp4,\n", "line 2: there is no file"),
    ],
)
def test_what_is_wrong_is_said(folder, text, message):
    with pytest.raises(ManifestError, match=message.replace(".", r"\.")):
        written(folder, text).clips(folder)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ManifestError, match="there is no such file. Expected a csv"):
        ManifestDataset(file=str(tmp_path / "none.csv")).clips(tmp_path)


def test_another_encoding(folder):
    with pytest.raises(ManifestError, match="not in UTF-8"):
        written(folder, HEADER + "a,ü,train,a.mp4,\n", "latin-1").clips(folder)
