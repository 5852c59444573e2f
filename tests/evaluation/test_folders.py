import pytest

from stav2a.evaluation.folders.pairing import SkippedClip, pair
from stav2a.utils.errors import UsageError


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_clips_are_files_of_one_name_in_every_folder(tmp_path):
    real = fill(tmp_path / "real", "a.mp4", "b.wav", "c.wav")
    ours = fill(tmp_path / "ours", "a.wav", "b.mp4", "d.wav", "notes.txt")
    clips, left_out = pair(real, {"ours": ours})
    assert [clip.id for clip in clips] == ["a", "b"]
    assert clips[0].files == {"reference": real / "a.mp4", "ours": ours / "a.wav"}
    assert (clips[0].video, clips[1].video) == (real / "a.mp4", None)
    assert left_out == [
        SkippedClip("c", "ours", f"no such file in {ours}"),
        SkippedClip("d", "reference", f"no such file in {real}"),
    ]


def test_of_a_sound_and_a_film_of_one_name_the_sound_is_taken(tmp_path):
    real, ours = fill(tmp_path / "real", "a.mp4"), fill(tmp_path / "ours", "a.mp4", "a.wav")
    assert pair(real, {"ours": ours})[0][0].files["ours"] == ours / "a.wav"


def test_films_may_lie_elsewhere(tmp_path):
    real, ours = fill(tmp_path / "real", "a.wav"), fill(tmp_path / "ours", "a.wav")
    films = fill(tmp_path / "films", "a.mp4", "b.mp4")
    assert pair(real, {"ours": ours}, videos=films)[0][0].video == films / "a.mp4"


def test_captions_are_by_id(tmp_path):
    real, ours = fill(tmp_path / "real", "a.wav", "b.wav"), fill(tmp_path / "ours", "a.wav", "b.wav")
    (tmp_path / "captions.csv").write_text('id,caption\na,"a dog, barking"\n')
    clips, _ = pair(real, {"ours": ours}, captions=tmp_path / "captions.csv")
    assert [clip.caption for clip in clips] == ["a dog, barking", None]


@pytest.mark.parametrize(
    ("real", "ours", "told"),
    [
        (None, ["a.wav"], "reference: no such folder: .*real"),
        ([], ["a.wav"], "reference: .*real holds no file of the kinds .wav"),
        (["a.wav"], ["notes.txt"], "ours: .*ours holds no file of the kinds .wav"),
        (["a.wav"], ["a.wav", "a.flac"], "ours: a.flac and a.wav are one clip by their names. Remove one."),
        (["a.wav"], ["b.wav"], r"no name is in all folders \(reference 1, ours 1 files\)"),
    ],
)
def test_folders_without_a_clip_are_refused(tmp_path, real, ours, told):
    for name, files in (("real", real), ("ours", ours)):
        if files is not None:
            fill(tmp_path / name, *files)
    with pytest.raises(UsageError, match=told):
        pair(tmp_path / "real", {"ours": tmp_path / "ours"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds nothing; expected the columns id and caption"),
        ("name,text\na,b\n", "holds name, text; expected"),
    ],
)
def test_other_captions_are_refused(tmp_path, text, told):
    real = fill(tmp_path / "real", "a.wav")
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        pair(real, {"ours": real}, captions=tmp_path / "captions.csv")
