"""Manifests in the forms that people have them: recognised by content, or refused with what is known."""

import json
import unicodedata

import pytest

from stav2a.data.manifest import Captions, ManifestError, open_manifest
from stav2a.data.media import MediaError
from stav2a.preparation.clip_stages import find_video

VGGSOUND = '---g-f_I2yQ,1,"people marching, in step",test\n--0PQM4-hqg,30,waterfall burbling,train\n'


def read(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    manifest = open_manifest(path)
    return manifest.form, list(manifest.read())


def test_vggsounds_csv(tmp_path):
    form, (first, second) = read(tmp_path, "vggsound.csv", VGGSOUND)
    assert form == "vggsound"
    assert (first.id, first.label, first.split) == ("---g-f_I2yQ_000001", "people marching, in step", "test")
    assert (second.id, second.file, second.line) == ("--0PQM4-hqg_000030", "", 2)


def test_mmaudios_tsv(tmp_path):
    form, (only,) = read(tmp_path, "vgg3-train.tsv", "id\tlabel\n--0PQM4-hqg_000030\twaterfall burbling\n")
    assert (form, only.id, only.label, only.split) == (
        "tsv", "--0PQM4-hqg_000030", "waterfall burbling", "",
    )  # fmt: skip


def test_tangos_jsonl(tmp_path):
    text = '{"dataset": "audiocaps", "location": "a/b.mp4", "captions": "a bell"}\n\n'
    text += '{"video": "c.mp4", "captions": ["x", "y"]}\n'
    form, (first, second) = read(tmp_path, "train.json", text)
    assert form == "jsonl"
    assert (first.id, first.file, first.caption) == ("b", "a/b.mp4", "a bell")
    assert (second.id, second.caption, second.line) == ("c", "x", 3)


def test_a_captions_csv_is_a_manifest_too(tmp_path):
    form, (only,) = read(tmp_path, "c.csv", "\ufeffyoutube_id,caption\nabc,a dog barks\n")
    assert (form, only.id, only.caption, only.file) == ("csv", "abc", "a dog barks", "")


def test_our_own_csv(tmp_path):
    form, (only,) = read(tmp_path, "m.csv", "id,caption,split,file,label\nx,a bell,val,v/x.mp4,bell\n")
    assert (only.split, only.file, only.label) == ("validation", "v/x.mp4", "bell")


def test_a_folder_of_videos(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.mp4", "b/ü\n.MOV", "notes.txt"):
        (tmp_path / name).touch()
    manifest = open_manifest(tmp_path)
    assert [(each.id, each.file) for each in manifest.read()] == [("b/ü\n", "b/ü\n.MOV"), ("z", "z.mp4")]
    before = manifest.signature()
    (tmp_path / "a.mp4").touch()
    assert open_manifest(tmp_path).signature() != before


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (VGGSOUND + "abc,one,bell,train\n", "expected YouTube id, start in seconds, label, train or test"),
        ("id,caption\nx,y,z\n", "3 fields where the header has 2"),
        ("id,caption,split\nx,y,trian\n", "the split is 'trian'; expected one of train, validation, test"),
        ('{"id": "x", "caption": "y"}\n{"id": \n', "no JSON"),
        ('{"id": "x", "caption": "y"}\n[1]\n', "JSON, but no object"),
        ('{"id": "x"}\n{"caption": "y"}\n', "neither an id nor a file"),
        ('{"id": "x"}\n{"id": "y", "label": {"a": 1}}\n', "label is {'a': 1}; expected text or a number"),
        ('{"id": "x"}\n{"id": "y", "captions": [["z"]]}\n', "captions is ['z']; expected text or a number"),
        ('{"id": "x"}\n{"id": true}\n', "id is True; expected text or a number"),
    ],
)
def test_a_line_that_cannot_be_a_clip_says_why(tmp_path, text, fault):
    _, listed = read(tmp_path, "m", text)
    assert fault in listed[-1].fault and all(not each.fault for each in listed[:-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty. Expected one of"),
        (",,\n,,\n", "empty. Expected one of"),
        ("a,b\n1,2\n", "begins with the columns a, b. Expected one of\n  VGGSound: "),
        ("id,capt\xfcon\n".encode("latin-1"), "not in UTF-8"),
        ("x" * 3_000_000, "a line of more than 1000000 characters: this is no manifest"),
        (b"id,caption\nx," + b'"' + b"y\n" * 600_000, "field larger than field limit"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, text, message):
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, "m", text)
    assert message in str(caught.value)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ManifestError, match="can't be read .No such file"):
        open_manifest(tmp_path / "none")


def test_captions_are_joined_by_id(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("youtube_id,caption\n--0PQM4-hqg_30,by start\n---g-f_I2yQ,of the video\ndog,woof\n")
    captions = Captions(path)
    assert captions.of("--0PQM4-hqg_000030") == "by start"
    assert captions.of("---g-f_I2yQ_000001") == "of the video"
    assert captions.of("--0PQM4-hqg_000031") is None and captions.of("dog_bark") is None


def test_captions_that_contradict_each_other(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps({"id": "x", "caption": c}) for c in ("a", "a", "b")))
    with pytest.raises(ManifestError, match="line 3: a second caption for 'x'"):
        Captions(path)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("x.csv", 'id,caption\na,a bell\nb,"an open quote\nc,a dog\n', 3),
        ("x.tsv", 'id\tcaption\na\ta bell\nb\t"12 inch drum\nc\ta dog\n', 3),
        ("x.csv", 'id,caption\na,"a\nbell"\nb,"open\nc,"d"\n', 4),
        ("x.tsv", 'id\tcaption\nb\t"Stop" she says\n', 2),
    ],
)
def test_a_quote_that_is_not_closed_is_named_by_its_line(tmp_path, name, text, line):
    with pytest.raises(ManifestError, match=f"{name}, line {line}: a quote opens a field that does not end"):
        read(tmp_path, name, text)


def test_a_quote_that_swallows_rows_and_closes_is_named_by_its_line(tmp_path):
    with pytest.raises(
        ManifestError, match="x.csv, line 2: a quote opens a field and closes after .* line 4"
    ):
        read(tmp_path, "x.csv", 'id,caption\na,"12 inch drum\nb,x\nc,of 10"\nd,y\n')


def test_lines_are_those_of_the_file(tmp_path):
    text = 'id,caption\n\n\na,a bell\n\nb,"x\ny"\nc\n'
    _, clips = read(tmp_path, "x.csv", text)
    assert [(clip.line, clip.id) for clip in clips] == [(4, "a"), (6, "b"), (8, "c")]
    assert clips[2].fault == "1 fields where the header has 2"


def test_audiocaps_csv_names_clips_by_video_and_start(tmp_path):
    text = "audiocap_id,youtube_id,start_time,caption\n1,abcdefghijk,30,a bell\n2,abcdefghijk,60.5,a dog\n"
    _, clips = read(tmp_path, "audiocaps.csv", text)
    assert [clip.id for clip in clips] == ["abcdefghijk_000030", "abcdefghijk_000060"]
    captions = Captions(tmp_path / "audiocaps.csv")
    assert captions.of("abcdefghijk_60") == "a dog"


def test_ids_match_whatever_the_form_of_their_accents(tmp_path):
    read(tmp_path, "x.csv", f"id,caption\n{unicodedata.normalize('NFD', 'Café')},a cup\n")
    assert Captions(tmp_path / "x.csv").of(unicodedata.normalize("NFC", "Café")) == "a cup"
    (tmp_path / unicodedata.normalize("NFD", "Café.mp4")).touch()
    for name in ("Café", "Café.mp4"):
        given = unicodedata.normalize("NFC", name)
        assert find_video(tmp_path, given if "." in name else "", given).exists()


def test_a_full_path_is_told_what_to_write(tmp_path):
    (tmp_path / "train").mkdir()
    video = tmp_path / "train" / "a.mp4"
    video.touch()
    with pytest.raises(MediaError) as refused:
        find_video(tmp_path, str(video), "a")
    told = f"{video}: a full path. Write it from the folder of videos on: train/a.mp4."
    assert str(refused.value) == told


@pytest.mark.parametrize(
    "caption",
    ["a bell rings\nthen, a dog barks", "a bell\n, a dog", "x\u2028b,x", "x\fb,x", "big\ndog, cat,fox"],
)
def test_a_quoted_caption_may_have_line_breaks_and_commas(tmp_path, caption):
    _, (only, _) = read(tmp_path, "x.csv", f'id,caption\na,"{caption}"\nb,x\n')
    assert (only.caption, only.fault) == (caption, "")


def test_an_empty_list_is_missing_and_lists_give_their_first(tmp_path):
    text = '{"id": "x", "captions": []}\n{"id": 7, "caption": null, "captions": [2.5, {}]}\n'
    _, (first, second) = read(tmp_path, "m", text)
    assert (first.caption, first.fault) == ("", "")
    assert (second.id, second.caption, second.fault) == ("7", "2.5", "")


@pytest.mark.parametrize("name", ["id,caption,caption", "id,id,caption"])
def test_a_column_that_occurs_twice_is_refused(tmp_path, name):
    with pytest.raises(ManifestError, match="x.csv: the column '(id|caption)' occurs twice. Keep one"):
        read(tmp_path, "x.csv", f"{name}\na,b,c\n")


def test_columns_without_a_name_are_no_repetition(tmp_path):
    _, (only,) = read(tmp_path, "x.csv", "id,caption,,\na,a bell,,\n")
    assert (only.caption, only.fault) == ("a bell", "")
