"""Metrics of sound and picture: on arrays, on folders, and in a run's store."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stav2a.data.clip import Clip
from stav2a.evaluation.folders import pairing
from stav2a.evaluation.folders.systems import score
from stav2a.evaluation.samples import ClipVideos
from stav2a.metrics.judges.cavp import CAVPJudge
from stav2a.metrics.judges.judge import AudioVisualJudge
from stav2a.metrics.registered.audiovisual import CAVPScore
from stav2a.metrics.score import ArraySounds, EvaluationSet, MetricError, VideoFeatures
from stav2a.utils.store import Store
from tests.evaluation.folder_material import clicks, film, folders


class Loudness(AudioVisualJudge):
    """A judge whose feature is the time of the loudest moment, or of the frame that differs most."""

    name = published = source = front_end = "loudness"
    sample_rate = 16_000
    fault = None
    watched_films = 0

    def __init__(self) -> None:
        super().__init__(weights=__file__)

    def load(self):
        raise AssertionError("it has no model")

    def prepare(self) -> None:
        pass

    def judge_batch(self, sounds: np.ndarray) -> list[np.ndarray]:
        return [np.array([[1.0, np.abs(sound).argmax() / 16_000]]) for sound in sounds]

    def frame_times_s(self, duration_s: float) -> np.ndarray:
        if duration_s < 1:
            raise MetricError(f"lasts {duration_s:g} s; at least 1 s is needed")
        return np.arange(0, duration_s, 0.1)

    def fit(self, frame: np.ndarray) -> np.ndarray:
        return frame[::4, ::4]

    def watch(self, frames: np.ndarray) -> np.ndarray:
        type(self).watched_films += 1
        assert frames.shape[1:] == (12, 16, 3)
        moved = np.abs(np.diff(frames.astype(float), axis=0)).sum(axis=(1, 2, 3))
        return np.array([[1.0, 0.1 * (1 + moved.argmax())]])


metric = partial(CAVPScore, judge=Loudness, shuffles=3, resamples=50)


class GivenVideos:
    def __init__(self, features, faults):
        self.found = VideoFeatures(features, faults)

    def __len__(self):
        return len(self.found.features) + len(self.found.faults)

    def features(self, watcher):
        return self.found


def arrays(count, videos):
    sounds = [clicks(0.3 * i) for i in range(1, count + 1)]
    return EvaluationSet(
        ids=[f"clip{i}" for i in range(count)],
        sounds=ArraySounds(generated=sounds, references=sounds, sample_rate=16_000),
        videos=videos,
    )


def test_a_clip_is_compared_with_its_own_picture_and_with_others_for_chance():
    pictures = {i: np.array([[1.0, 0.3 * (i + 1)]]) for i in range(4)}
    found = metric()(arrays(4, GivenVideos(pictures, {})))
    assert found.value == pytest.approx(1.0, abs=1e-3)
    assert found.value > found.chance and found.extras["real sound"] == pytest.approx(1.0, abs=1e-3)


def test_a_clip_without_a_picture_is_left_out_with_its_reason():
    found = metric()(arrays(3, GivenVideos({0: np.array([[1.0, 0.3]])}, {1: "no video", 2: "too short"})))
    assert found.n == 1 and found.skipped == {"clip1": "no video", "clip2": "too short"}


def test_without_videos_there_is_no_score():
    assert metric()(arrays(2, None)).unavailable == "no clip has a video"
    assert (
        "weights of CAVP not found"
        in CAVPScore(judge=partial(CAVPJudge, weights="/no"))(
            arrays(2, GivenVideos({}, {0: "", 1: ""}))
        ).unavailable
    )


def test_each_film_of_a_folder_is_watched_once(tmp_path):
    made = folders(tmp_path)
    systems = {"good": made["good"], "bad": made["bad"]}
    clips, unpaired = pairing.pair(made["real"], systems)
    Loudness.watched_films = 0
    for _ in range(2):
        found = score(clips, [metric()], crops=[None], unpaired=unpaired, cache=tmp_path / "cache", workers=1)
        rows = found.scores[None]
        assert Loudness.watched_films == len(clips)  # for both systems, and not again from the cache
    assert {row: scores[0].n for row, scores in rows.items()} == {"real sound": 4, "good": 4, "bad": 4}


def test_a_film_that_is_missing_or_too_short_is_told_by_clip(tmp_path):
    made = folders(tmp_path, clips=2)
    films = tmp_path / "films"
    film(films / "clip0.mp4", [0.3])
    (films / "clip1.mp4").write_bytes(b"no film")
    clips, _ = pairing.pair(made["real"], {"good": made["good"]}, videos=films)
    found = score(clips, [metric()], crops=[None, 0.5], cache=tmp_path / "cache", workers=1)
    whole, short = (found.scores[crop]["good"][0] for crop in (None, 0.5))
    assert whole.n == 1 and "clip1.mp4" in whole.skipped["clip1"]
    assert "at least 1 s is needed" in short.unavailable


def test_a_run_keeps_the_pictures_features_in_its_store(tmp_path):
    film(tmp_path / "a.mp4", [0.6])
    film(tmp_path / "b.mp4", [1.2])
    clips = [Clip(name, tmp_path / f"{name}.mp4", "", "test") for name in "ab"]
    Loudness.watched_films = 0
    for _ in range(2):
        found = ClipVideos(clips, Store(tmp_path / "store"), "key", 2.0).features(Loudness())
        assert [found.features[i][0, 1] for i in range(2)] == pytest.approx([0.6, 1.2])
    assert Loudness.watched_films == 2
    short = ClipVideos(clips, Store(tmp_path / "store"), "key", 0.5).features(Loudness())
    assert short.features == {} and set(short.faults) == {0, 1}
    assert Path(tmp_path / "store").is_dir()
