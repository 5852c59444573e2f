from pathlib import Path

import numpy as np

from stav2a.data.clip import Clip
from stav2a.evaluation.samples import RealSounds
from stav2a.training.corpus import Corpus
from stav2a.utils.store import Store


class Sounds(Corpus):
    """Clips whose sound is their number."""

    sample_rate = 16_000

    def __init__(self):
        kinds = [("train", "bell"), ("test", "dog"), ("train", "dog"), ("train", ""), ("train", "bell")]
        self.clips = [
            Clip(f"clip{i}", Path(f"{i}.mp4"), "", split, label=label or None)
            for i, (split, label) in enumerate(kinds)
        ]

    def audio(self, rows):
        return np.array([[row, 2.0 * row] for row in rows], np.float32)


def test_the_training_clips_that_have_a_class_are_judged_once(tmp_path):
    calls = []

    def total(audio, sample_rate):
        calls.append(sample_rate)
        return np.array([audio.sum()])

    sounds = RealSounds.of_training(Sounds(), Store(tmp_path), "key")
    assert sounds.rows == [0, 2, 4] and sounds.labels.tolist() == [0, 1, 0]
    assert [each.tolist() for each in sounds.features(total)] == [[0.0], [6.0], [12.0]]
    assert [each.tolist() for each in sounds.features(total)] == [[0.0], [6.0], [12.0]]
    assert calls == [16_000] * 3
    RealSounds.of_training(Sounds(), Store(tmp_path), "other clips").features(total)
    assert len(calls) == 6
    RealSounds(Sounds(), [1], Store(tmp_path), "key").features(total)
    assert len(calls) == 7


class Counting:
    """Judge whose features are as many as its sound's number."""

    definition = "counts"

    def __init__(self):
        self.calls = 0

    def __call__(self, audio, sample_rate):
        self.calls += 1
        return np.arange(audio[0])


def test_a_judge_s_features_of_unequal_lengths_are_taken_from_the_store(tmp_path):
    judges = [Counting(), Counting()]
    for judge in judges:
        found = RealSounds(Sounds(), [1, 2, 3], Store(tmp_path), "key").features(judge)
        assert [each.tolist() for each in found] == [[0.0], [0.0, 1.0], [0.0, 1.0, 2.0]]
    judges[1].version = "2"
    RealSounds(Sounds(), [1, 2, 3], Store(tmp_path), "key").features(judges[1])
    assert [judge.calls for judge in judges] == [3, 3]


def test_features_of_a_function_are_not_kept_beyond_the_run(tmp_path):
    def first(audio, sample_rate):
        return np.array([audio.sum()])

    def changed(audio, sample_rate):
        return np.array([-audio.sum()])

    changed.__name__ = "first"
    for function, expected in ((first, [[3.0], [6.0]]), (changed, [[-3.0], [-6.0]])):
        found = RealSounds(Sounds(), [1, 2], Store(tmp_path), "key").features(function)
        assert [each.tolist() for each in found] == expected
    assert not list(tmp_path.glob("judged-*"))
