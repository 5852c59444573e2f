import numpy as np
import pytest

from stav2a.data.clip import Clip
from stav2a.data.decoded import DecodedClips, prepare
from stav2a.data.filters import AVAlignFilter, KeepAll
from stav2a.data.media import MediaError, audio, video
from stav2a.data.onsets import SuperFlux
from stav2a.data.struck_objects import StruckObjects


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    world = StruckObjects(train_clips=10, validation_clips=2, test_clips=6)
    return world.clips(tmp_path_factory.mktemp("world"))


def prepared(clips: list[Clip], workers: int = 1) -> DecodedClips:
    filters = {"none": KeepAll(), "av_align": AVAlignFilter(detector=SuperFlux, flow_size=32)}
    return prepare(
        clips,
        frame_rate_hz=12.5,
        frame_size=32,
        duration_s=2.56,
        detector=SuperFlux(),
        filters=filters,
        workers=workers,
        progress=False,
    )


@pytest.fixture(scope="module")
def whole(clips) -> DecodedClips:
    return prepared(clips)


def test_arrays_fit_the_encoder_and_the_duration(whole):
    assert (whole.frames.shape, whole.frames.dtype) == ((18, 32, 3, 32, 32), np.uint8)
    assert (whole.audio.shape, whole.audio.dtype) == ((18, 40_960), np.float32)


def test_frames_and_sound_are_those_of_the_file(clips, whole):
    frames = video.read_video(clips[4].video, frame_rate_hz=12.5, size=32)
    np.testing.assert_array_equal(whole.frames[4], frames.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(whole.audio[4], audio.read_audio(clips[4].video, 16_000))


def test_pseudo_onsets_match_the_truth(whole):
    for clip, onsets in zip(whole.clips, whole.pseudo_onsets, strict=True):
        np.testing.assert_allclose(onsets, clip.onsets_s, atol=0.03)


def test_the_filter_tells_good_from_flawed(whole):
    agreed = [
        d.keep == (clip.flaw is None)
        for d, clip in zip(whole.decisions["av_align"], whole.clips, strict=True)
    ]
    assert np.mean(agreed) >= 0.8


def test_rows_of_a_split_that_a_filter_keeps(whole):
    assert whole.rows("validation").tolist() == [10, 11]
    kept = whole.rows("train", kept_by="av_align")
    assert 0 < len(kept) < 10 and all(whole.decisions["av_align"][row].keep for row in kept)
    assert whole.rows("train", kept_by="none").tolist() == list(range(10))


def test_workers_change_nothing(clips, whole):
    again = prepared(clips, workers=2)
    np.testing.assert_array_equal(again.frames, whole.frames)
    np.testing.assert_array_equal(again.audio, whole.audio)
    assert again.decisions == whole.decisions


def test_an_unreadable_clip_is_left_out_with_its_reason(clips, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    bad = Clip(id="bad", video=tmp_path / "bad.mp4", caption="", split="train")
    some = prepared([clips[0], bad, clips[1]])
    assert [clip.id for clip in some.clips] == [clips[0].id, clips[1].id]
    assert len(some.frames) == len(some.audio) == len(some.pseudo_onsets) == len(some.decisions["none"]) == 2
    assert "bad.mp4: not a readable video" in some.failed["bad"]


def test_nothing_readable_is_an_error(tmp_path):
    missing = Clip(id="x", video=tmp_path / "x.mp4", caption="", split="train")
    with pytest.raises(MediaError, match="None of 1 clips can be read. The first: .*no such file"):
        prepared([missing])


def test_what_is_saved_is_loaded(whole, tmp_path):
    (tmp_path / "p").mkdir()
    whole.save(tmp_path / "p")
    loaded = DecodedClips.load(tmp_path / "p")
    assert (loaded.clips, loaded.decisions, loaded.failed) == (whole.clips, whole.decisions, whole.failed)
    np.testing.assert_array_equal(loaded.frames, whole.frames)
    np.testing.assert_array_equal(loaded.audio, whole.audio)
    for ours, theirs in zip(loaded.pseudo_onsets, whole.pseudo_onsets, strict=True):
        np.testing.assert_array_equal(ours, theirs)
