from pathlib import Path

import numpy as np

from stav2a.data.clip import Clip
from stav2a.evaluation.samples import TrainingSounds
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

    sounds = TrainingSounds(Sounds(), Store(tmp_path), "key")
    assert sounds.rows == [0, 2, 4] and sounds.labels.tolist() == [0, 1, 0]
    assert [each.tolist() for each in sounds.features(total)] == [[0.0], [6.0], [12.0]]
    assert [each.tolist() for each in sounds.features(total)] == [[0.0], [6.0], [12.0]]
    assert calls == [16_000] * 3
    TrainingSounds(Sounds(), Store(tmp_path), "other clips").features(total)
    assert len(calls) == 6
