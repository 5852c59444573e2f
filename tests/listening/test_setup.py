"""A test is begun once, goes on with the same command, and refuses another set-up."""

import re
import shutil

import pytest

from stav2a.data.media import MediaError, probe, read_audio
from stav2a.listening.database import ListenError, StorageError
from stav2a.listening.setup import begin_or_resume, load
from tests.listening.listening_examples import FPS, RATE_HZ, SECONDS, begun, film, folders, sound, tone


def settings(root, **changes):
    return {"systems": folders(root), "clips": 2, "seed": 0, "videos": None} | changes


def test_every_clip_is_there_through_every_system(tmp_path):
    test = begun(tmp_path)
    assert len(test.clips) == 2 and test.systems == ["gt", "mine"]
    assert [(video.clip, video.system) for video in test.videos] == [
        (clip, system) for clip in test.clips for system in ("gt", "mine")
    ]
    for video in test.videos:
        original = tmp_path / video.system / f"{video.clip}.mp4"
        assert test.path(video).read_bytes() == original.read_bytes()


def test_names_of_copies_tell_nothing(tmp_path):
    test = begun(tmp_path)
    names = sorted(path.name for path in (test.folder / "copies").iterdir())
    assert names == sorted(f"{video.token}.mp4" for video in test.videos)
    assert all(re.fullmatch(r"[0-9a-f]{32}\.mp4", name) for name in names)


def test_the_same_settings_go_on(tmp_path):
    test = begun(tmp_path)
    test.database.rate("ada", test.videos[0].token, "oq", 70)
    again, remarks = begin_or_resume(test.folder, **settings(tmp_path))
    assert again == test and remarks == []
    assert [rating.value for rating in again.database.ratings()] == [70]


def test_folders_may_move_and_gain_clips(tmp_path):
    test = begun(tmp_path)
    shutil.move(tmp_path / "gt", tmp_path / "elsewhere")
    for folder in ("elsewhere", "mine"):
        film(tmp_path / folder / "new.mp4")
    moved = {"gt": tmp_path / "elsewhere", "mine": tmp_path / "mine"}
    assert begin_or_resume(test.folder, moved, clips=2, seed=0)[0] == test


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clips": 3}, "--clips was 2, now 3"),
        ({"seed": 1}, "--seed was 0, now 1"),
        ({"systems": ("gt", "mine", "third")}, "--systems was gt, mine, now gt, mine, third"),
        ({"videos": "gt"}, "--videos was not given, now given"),
    ],
)
def test_another_set_up_is_refused(tmp_path, changes, told):
    test = begun(tmp_path)
    if "systems" in changes:
        changes = {"systems": folders(tmp_path, changes["systems"])}
    if "videos" in changes:
        changes = {"videos": tmp_path / changes["videos"]}
    with pytest.raises(ListenError) as caught:
        begin_or_resume(test.folder, **settings(tmp_path, **changes))
    assert str(caught.value) == (
        f"{test.folder} holds a test of another set-up: {told}. "
        "Go on with the first settings, or choose another --output."
    )


def test_other_contents_are_refused(tmp_path):
    test = begun(tmp_path)
    film(tmp_path / "mine" / f"{test.clips[0]}.mp4", pitch_hz=1000)
    same = {name: tmp_path / name for name in ("gt", "mine")}
    with pytest.raises(ListenError, match=f"{test.clips[0]} of mine has other contents now"):
        begin_or_resume(test.folder, same, clips=2, seed=0)
    for system in ("gt", "mine"):
        (tmp_path / system / f"{test.clips[0]}.mp4").unlink()
    with pytest.raises(ListenError, match=f"{test.clips[0]} of gt is not in the folders any more"):
        begin_or_resume(test.folder, same, clips=2, seed=0)


def test_clips_left_out_are_told(tmp_path):
    systems = folders(tmp_path)
    (tmp_path / "mine" / "dog.mp4").unlink()
    _, remarks = begin_or_resume(tmp_path / "test", systems, clips=2, seed=0)
    assert remarks == ["left out: dog, not in mine"]


def test_all_versions_end_with_the_shortest(tmp_path):
    systems = folders(tmp_path, clips=["bell"])
    film(tmp_path / "mine" / "bell.mp4", seconds=1.2)
    test, remarks = begin_or_resume(tmp_path / "test", systems, clips=1, seed=0)
    assert [video.seconds for video in test.videos] == [pytest.approx(SECONDS, abs=0.07)] * 2
    assert remarks == [f"bell: all versions end after {test.videos[0].seconds:.2f} s, like that of gt."]


def test_pictures_of_different_size_are_told(tmp_path):
    systems = folders(tmp_path, clips=["bell"])
    film(tmp_path / "mine" / "bell.mp4", size=64)
    _, (remark,) = begin_or_resume(tmp_path / "test", systems, clips=1, seed=0)
    assert remark.startswith("bell: the pictures differ in size (gt 32×32, mine 64×64)")


def test_sounds_are_put_on_the_same_picture(tmp_path):
    film(tmp_path / "videos" / "bell.mp4", pitch_hz=300)
    for system, pitch in (("gt", 500), ("mine", 1000)):
        sound(tmp_path / system / "bell.wav", pitch)
    systems = {name: tmp_path / name for name in ("gt", "mine")}
    test, _ = begin_or_resume(tmp_path / "test", systems, clips=1, seed=0, videos=tmp_path / "videos")
    for video, pitch in zip(test.videos, (500, 1000), strict=True):
        info, heard = probe(test.path(video)), read_audio(test.path(video), RATE_HZ)
        assert info.frames == round(SECONDS * FPS)
        expected = tone(pitch)
        length = min(len(heard), len(expected))
        assert abs(heard[:length] @ expected[:length]) > 0.95 * (expected @ expected)


def test_a_picture_that_browsers_do_not_play_is_refused(tmp_path):
    import av
    import numpy as np

    (tmp_path / "gt").mkdir()
    with av.open(str(tmp_path / "gt" / "old.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with pytest.raises(
        ListenError, match="its picture is mpeg4, which browsers don't play. Convert it to one"
    ):
        begin_or_resume(tmp_path / "test", {"gt": tmp_path / "gt"}, clips=1, seed=0)


def test_a_broken_film_is_told_and_leaves_no_test(tmp_path):
    systems = folders(tmp_path, clips=["bell"])
    (tmp_path / "mine" / "bell.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError, match="bell.mp4: not a readable video"):
        begin_or_resume(tmp_path / "test", systems, clips=1, seed=0)
    with pytest.raises(ListenError, match="no listening test in it"):
        load(tmp_path / "test")
    film(tmp_path / "mine" / "bell.mp4")
    test, _ = begin_or_resume(tmp_path / "test", systems, clips=1, seed=0)
    assert len(list((test.folder / "copies").iterdir())) == 2


def test_a_report_on_nothing_is_told(tmp_path):
    with pytest.raises(ListenError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no listening test in it (no ratings.sqlite). Give the --output of `stav2a listen`."
    )


def test_a_damaged_database_is_told(tmp_path):
    test = begun(tmp_path)
    path = test.database.path
    content = bytearray(path.read_bytes())
    content[4096:12_288] = b"\xff" * 8192
    path.write_bytes(content)
    with pytest.raises(
        StorageError, match=r"ratings.sqlite: damaged, or no database \(.*\). Put a copy of it"
    ):
        load(test.folder)
    path.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with pytest.raises(StorageError, match="damaged, or no database"):
        load(test.folder)


def test_the_database_of_something_else_is_told(tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "ratings.sqlite") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(StorageError, match="not the database of a listening test"):
        load(tmp_path)
