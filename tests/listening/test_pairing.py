"""Folders are paired by name; what does not fit is told."""

import re

import pytest

from stav2a.listening.database import ListenError
from stav2a.listening.setup import draw_clips, pair_folders, unique_systems


def touched(root, **folders):
    """Folders of empty files; pairing looks at names alone."""
    for name, files in folders.items():
        (root / name).mkdir()
        for file in files:
            (root / name / file).touch()
    return {name: root / name for name in folders}


def refused(message):
    return pytest.raises(ListenError, match=re.escape(message))


def test_clips_that_a_system_lacks_are_left_out_and_told(tmp_path):
    paired, skipped = pair_folders(
        touched(tmp_path, a=["x.mp4", "y.mp4", "z.mp4"], b=["y.mp4", "x.MP4"]), None
    )
    assert list(paired) == ["x", "y"] and skipped == {"z": ["b"]}
    assert paired["x"]["b"].own.name == "x.MP4"


def test_other_files_and_hidden_ones_are_no_clips(tmp_path):
    paired, _ = pair_folders(touched(tmp_path, a=["x.mp4", "x.wav", "x.txt", ".y.mp4", "notes.md"]), None)
    assert list(paired) == ["x"] and paired["x"]["a"].own.suffix == ".mp4"


def test_with_videos_a_sound_comes_before_a_film(tmp_path):
    systems = touched(tmp_path, a=["x.mp4", "x.wav", "y.mp4"], videos=["x.mp4", "y.mp4"])
    paired, _ = pair_folders({"a": systems["a"]}, systems["videos"])
    assert [files["a"].own.name for files in paired.values()] == ["x.wav", "y.mp4"]
    assert paired["x"]["a"].picture == tmp_path / "videos" / "x.mp4"


def test_a_clip_without_its_picture_is_left_out(tmp_path):
    systems = touched(tmp_path, a=["x.wav", "y.wav"], videos=["x.mp4"])
    assert pair_folders({"a": systems["a"]}, systems["videos"])[1] == {"y": ["--videos"]}


def test_a_missing_folder_is_told(tmp_path):
    with refused(f"--systems a: no such folder: {tmp_path}/a. Give a folder of sounds or films."):
        pair_folders({"a": tmp_path / "a"}, None)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.mp4").touch()
    with refused(f"--systems a: a file, where a folder was expected: {tmp_path}/a.mp4."):
        pair_folders({"a": tmp_path / "a.mp4"}, None)


def test_an_empty_folder_is_told(tmp_path):
    with refused(f"--systems a: no mp4 in {tmp_path}/a."):
        pair_folders(touched(tmp_path, a=["readme.txt"]), None)


def test_sounds_need_videos(tmp_path):
    with refused(
        f"only sounds (wav) in {tmp_path}/a. Add --videos DIR with the videos (mp4) that they belong to."
    ):
        pair_folders(touched(tmp_path, a=["x.wav"]), None)


def test_one_clip_in_two_files_is_told(tmp_path):
    with refused("x.MP4 and x.mp4 are one clip by their names. Remove one."):
        pair_folders(touched(tmp_path, a=["x.mp4", "x.MP4"]), None)


def test_nothing_in_common_is_told_with_an_example(tmp_path):
    with refused("no clip is in all of the 2 folders (a has 'x'; b has 'x_b')."):
        pair_folders(touched(tmp_path, a=["x.mp4"], b=["x_b.mp4"]), None)


def test_two_systems_of_one_name_are_told(tmp_path):
    with refused("--systems has 'gt' and 'GT': each system needs a name of its own."):
        unique_systems([("gt", tmp_path), ("GT", tmp_path / "other")])


def test_clips_are_drawn_by_the_seed_alone():
    clips = [f"clip{i}" for i in range(10)]
    assert (
        draw_clips(clips, {}, 4, seed=1)
        == draw_clips(clips, {}, 4, seed=1)
        != draw_clips(clips, {}, 4, seed=2)
    )
    assert len(set(draw_clips(clips, {}, 4, seed=1))) == 4
    assert draw_clips(clips, {}, 10, seed=3) == clips


def test_fewer_clips_than_asked_for_are_told(tmp_path):
    paired, skipped = pair_folders(
        touched(tmp_path, a=["x.mp4", "y.mp4", "z.mp4"], b=["x.mp4", "y.mp4"]), None
    )
    with refused(
        "--clips 3, but all systems have 2 in common (z is not in b). Write --clips 2, or add clips."
    ):
        draw_clips(list(paired), skipped, 3, seed=0)
