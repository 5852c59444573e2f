"""Several sounds of one video: rejection and ranking."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stav2a.data.media import write_clip
from stav2a.evaluation.variants import RejectedError, Variant, draw_variants, ranked, ranking
from stav2a.metrics.judges.yamnet import PRESENCE
from stav2a.utils.errors import UsageError

RATE_HZ, FPS = 16_000, 25


def sounds(seed: int, count: int) -> list[np.ndarray]:
    """Sounds whose level is their seed."""
    return [np.full(RATE_HZ, float(each), np.float32) for each in range(seed, seed + count)]


def odd_speaks(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Speech in one of two windows of sounds of odd seeds, music in none."""
    found = np.zeros(2, PRESENCE)
    found["speech"][1] = audio[0] % 2
    return found


def test_sounds_with_what_is_not_wanted_are_replaced_by_those_of_later_seeds():
    judge: Any = odd_speaks
    kept = draw_variants(sounds, RATE_HZ, count=3, seed=1, unwanted=["speech"], judge=judge)
    assert [each.seed for each in kept] == [2, 4, 6]
    assert all(each.audio[0] == each.seed and each.shares == {"speech": 0} for each in kept)
    music = draw_variants(sounds, RATE_HZ, count=3, seed=1, unwanted=["music"], judge=judge)
    assert [each.seed for each in music] == [1, 2, 3]


def test_without_a_judge_the_first_seeds_are_taken():
    assert [each.seed for each in draw_variants(sounds, RATE_HZ, count=2, unwanted=["speech"])] == [0, 1]


def test_fewer_are_given_where_few_are_left_and_none_is_an_error():
    def makes_one_in_five(seed: int, count: int) -> list[np.ndarray]:
        return [np.full(9, float(each % 5 != 0), np.float32) for each in range(seed, seed + count)]

    judge: Any = odd_speaks
    given = {"count": 2, "unwanted": ["speech"], "judge": judge}
    assert [each.seed for each in draw_variants(makes_one_in_five, RATE_HZ, seed=1, **given)] == [5]
    message = (
        "speech in each of 4 sounds, of the seeds 1 to 4: none is written. "
        "Try another seed, another prompt, or leave out --no-speech."
    )
    with pytest.raises(RejectedError, match=message):
        draw_variants(makes_one_in_five, RATE_HZ, seed=1, **(given | {"count": 1}))


@pytest.fixture(scope="module")
def jumping(tmp_path_factory) -> tuple[Path, list[float]]:
    """A film whose bright square jumps at some times, which are returned."""
    path = tmp_path_factory.mktemp("films") / "jumping.mp4"
    jumps_s, place = [0.6, 1.2, 1.8], 4
    frames = np.zeros((round(2.4 * FPS), 64, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        place += 6 * (number / FPS in jumps_s)
        frame[20:44, place : place + 24] = np.arange(24)[None, :, None] * 10
    write_clip(path, frames, FPS, np.zeros(round(2.4 * RATE_HZ)), RATE_HZ)
    return path, jumps_s


def clicks(times_s: list[float]) -> np.ndarray:
    rng, sound = np.random.default_rng(0), np.zeros(round(2.4 * RATE_HZ), np.float32)
    for time_s in times_s:
        first = round(time_s * RATE_HZ)
        sound[first : first + 800] += rng.normal(0, 0.3, 800).astype(np.float32)
    return sound


def test_the_sound_that_begins_when_the_picture_moves_is_ranked_first(jumping):
    path, jumps_s = jumping
    silence = np.zeros(round(2.4 * RATE_HZ), np.float32)
    variants = [
        Variant(5, clicks([time_s + 0.3 for time_s in jumps_s])),
        Variant(6, clicks(jumps_s)),
        Variant(7, silence),
    ]
    found = ranked(variants, path, RATE_HZ, metric=ranking("av_align"))
    assert found[0].seed == 6 and found[0].score is not None and found[0].score > 0.5
    assert [each.seed for each in found[1:]] == [5, 7] and found[1].score == 0


def test_variants_without_a_score_keep_their_order(tmp_path):
    still = np.zeros((FPS, 32, 32, 3), np.uint8)
    write_clip(tmp_path / "still.mp4", still, FPS, np.zeros(RATE_HZ), RATE_HZ)
    variants = [Variant(seed, np.zeros(RATE_HZ, np.float32)) for seed in (3, 4)]
    found = ranked(variants, tmp_path / "still.mp4", RATE_HZ, metric=ranking("av_align"))
    assert [(each.seed, each.score) for each in found] == [(3, None), (4, None)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fd", "'fd' ranks no sounds. Expected one of av_align, "),
        ("desync", "sounds can't be ranked by desync: weights of Synchformer not found: put "),
        ("clap", "sounds can't be ranked by clap: weights of CLAP"),
    ],
)
def test_a_metric_that_can_not_rank_is_refused(name, told, monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    with pytest.raises(UsageError, match=told):
        ranking(name)
