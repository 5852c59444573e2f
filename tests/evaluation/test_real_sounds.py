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


def test_features_of_unequal_lengths_are_kept_too(tmp_path):
    sounds = RealSounds(Sounds(), [1, 2, 3], Store(tmp_path), "key")
    found = [sounds.features(lambda audio, sample_rate: np.arange(audio[0])) for _ in range(2)]
    assert [[each.tolist() for each in sides] for sides in found] == [
        [[0.0], [0.0, 1.0], [0.0, 1.0, 2.0]]
    ] * 2


def test_only_features_of_a_defined_judge_are_taken_from_the_store(tmp_path):
    class Judge:
        definition = "sum"

        def __call__(self, audio, sample_rate):
            return np.array([audio.sum()])

    sounds = RealSounds(Sounds(), [1, 2], Store(tmp_path), "key")
    assert [each.tolist() for each in sounds.known_features(Judge()) or ()] == [[3.0], [6.0]]
    assert sounds.known_features(lambda audio, sample_rate: audio) is None
