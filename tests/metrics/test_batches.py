"""Sounds judged together: by length, with a bounded memory, fewer where the GPU has no room."""

import logging
import pickle

import numpy as np
import pytest
import torch

from stav2a import registry
from stav2a.evaluation.folders import pairing
from stav2a.evaluation.folders.features import ArrayCache, FeatureCache
from stav2a.metrics.batches import HELD, SoundBatches, extract_all
from stav2a.metrics.judges.judge import AT_ONCE_S, PublishedJudge
from stav2a.metrics.score import ArraySounds
from stav2a.utils import distributed, parallel
from stav2a.utils.errors import StaV2AError
from tests.evaluation.folder_material import folders
from tests.metrics.judges.judge_networks import NETWORKS, judge_of

RATE = 100


class Level(PublishedJudge):
    """Sum of a sound; as if on a GPU that has room for a number of sounds."""

    name = published = source = front_end = definition = "level"
    sample_rate = RATE
    fault = None
    room = 1000

    def __init__(self, at_once: int = 4) -> None:
        super().__init__(weights=__file__)
        self.at_once = at_once
        self.batches: list[tuple[int, int]] = []

    def load(self):
        raise AssertionError("it has no model")

    def prepare(self) -> None:
        pass

    def judge_batch(self, sounds: np.ndarray) -> list[np.ndarray]:
        self.batches.append(sounds.shape)
        if len(sounds) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore lines")
        return [np.array([sound.sum()]) for sound in sounds]


def sounds(*lengths):
    return [(np.full(length, 1.0, np.float32), RATE) for length in lengths]


def test_sounds_of_one_length_are_judged_together_and_come_back_in_order():
    judge, lengths = Level(at_once=2), [5, 9, 5, 5, 7, 9]
    assert [each.item() for each in extract_all(judge, sounds(*lengths))] == lengths
    assert sorted(judge.batches) == [(1, 5), (1, 7), (2, 5), (2, 9)]


def test_both_sides_of_a_set_are_judged_together():
    judge = Level(at_once=4)
    sides = {"generated": [np.ones(8), np.ones(3)], "references": [np.ones(8), np.ones(4)]}
    found = ArraySounds(**sides, sample_rate=RATE).features(judge)
    assert [each.item() for each in (*found.generated, *found.references)] == [8, 3, 8, 3]
    assert sorted(judge.batches) == [(2, 3), (2, 8)]


def test_long_sounds_are_judged_with_fewer_others():
    judge = Level(at_once=32)
    assert judge.batch_size(AT_ONCE_S * RATE) == 1 and judge.batch_size(2 * AT_ONCE_S * RATE) == 1
    assert judge.batch_size(AT_ONCE_S * RATE // 3) == 3 and judge.batch_size(RATE) == 32


def test_sounds_that_wait_for_others_of_their_length_are_bounded():
    judge, found = Level(at_once=32), []
    batches = SoundBatches(judge)
    most = HELD * judge.samples
    for length in range(most // 20, most // 20 + 60):  # no two alike
        batches.add(*sounds(length)[0], found.append)
        assert sum(length * len(each) for length, each in batches._waiting.items()) <= most
    assert len(found) > 30
    batches.finish()
    assert len(found) == 60


def test_a_gpu_without_room_gets_half_as_many_from_then_on_and_a_line_is_logged(monkeypatch, caplog):
    judge = Level(at_once=8)
    monkeypatch.setattr(judge, "room", 3)
    with caplog.at_level(logging.WARNING):
        assert [each.item() for each in extract_all(judge, sounds(*[5] * 12))] == [5.0] * 12
    assert [size for size, _ in judge.batches] == [8, 4, 2, 2, 2, 2, 2, 2]
    assert [record.message for record in caplog.records] == [
        f"{judge.device} has no room for level and {size} sounds: from now on at most {size // 2} at once."
        for size in (8, 4)
    ]


def test_a_gpu_without_room_for_one_sound_is_an_error_with_advice(monkeypatch):
    judge = Level(at_once=2)
    monkeypatch.setattr(judge, "room", 0)
    with pytest.raises(StaV2AError) as found:
        extract_all(judge, sounds(5, 5))
    told = "has no room for level: CUDA out of memory. Tried to allocate 2 GiB Free its memory, take another"
    assert told in str(found.value) and "\n" not in str(found.value)


def test_a_gpu_without_room_for_the_model_is_an_error_too(monkeypatch):
    class Large(torch.nn.Module):
        def to(self, device):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    judge = Level()
    monkeypatch.setattr(judge, "load", Large)
    with pytest.raises(StaV2AError, match="has no room for level: CUDA out of memory"):
        judge.model  # noqa: B018


def test_on_a_cpu_sounds_are_judged_one_by_one():
    judge = judge_of("vggish")
    assert judge.device.type == "cpu" and judge.at_once == judge.batch_size(RATE) == 1


def test_sounds_of_folders_are_judged_together_over_all_clips(tmp_path):
    where = folders(tmp_path, clips=3)
    clips, _ = pairing.pair(where["real"], {"good": where["good"], "bad": where["bad"]})
    cache = ArrayCache(tmp_path / "heard")

    def features(judge, jobs):
        known = FeatureCache(clips, crops=[1.0, None], cache=cache, workers=1, jobs=jobs)
        known.need([judge])
        return {
            (clip, key): each.item()
            for clip in known.by_clip
            for key, each in known.by_clip[clip].features.items()
        }

    judge = Level(at_once=5)
    found = features(judge, jobs=1)
    assert len(found) == 3 * 2 * 3
    assert sorted(judge.batches) == [(4, 100), (4, 200), (5, 100), (5, 200)]
    again = Level(at_once=5)
    assert features(again, jobs=1) == found and again.batches == []  # kept on disk
    for clip, (crop, name, side) in found:
        alone = FeatureCache(clips, crops=[crop], cache=ArrayCache(tmp_path / "alone"), workers=1)
        one_by_one = Level(at_once=1)
        alone.need([one_by_one])
        assert alone.by_clip[clip].features[crop, name, side].item() == found[clip, (crop, name, side)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_gives_each_sound_what_it_gets_alone(name):
    judge, seconds = judge_of(name), 5 if name == "synchformer" else 1
    noise = np.random.default_rng(0).normal(size=(2, seconds * judge.sample_rate)) * [[0.01], [0.1]]
    given = list(noise.astype(np.float32))
    alone = [flat(judge(sound, judge.sample_rate)) for sound in given]
    judge.at_once = 2
    together = [flat(found) for found in judge.judge_together(given)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())
    assert np.abs(alone[0] - alone[1]).max() > 1e-4 * np.abs(alone[0]).max() > 0


def flat(found):
    return np.concatenate([np.ravel(found[field]) for field in found.dtype.names or [...]])


def test_every_judge_has_a_network_here():
    assert set(NETWORKS) == {entry.name for entry in registry.available("judge")}


def test_another_process_loads_a_judges_model_anew():
    judge = judge_of("yamnet")
    before = judge.definition, judge.device, judge.at_once
    copy = pickle.loads(pickle.dumps(judge))
    assert before[0] == copy.definition and not {"model", "device", "at_once"} & set(vars(copy))


def test_worker_processes_take_the_gpus_in_turn(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    found = []
    for number in range(3):
        monkeypatch.setattr(parallel, "_number", number)
        found.append(str(distributed.device_named("auto")))
    assert found == ["cuda:0", "cuda:1", "cuda:0"]
    assert distributed.device_named("cpu").type == "cpu"
