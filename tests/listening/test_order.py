"""The order of the videos."""

from collections import Counter
from pathlib import Path

from stav2a.listening.database import Video
from stav2a.listening.server import playlist
from stav2a.listening.setup import ListeningTest

CLIPS, SYSTEMS = [f"clip{i}" for i in range(6)], ["a", "b", "c"]


def order(annotator="ada", seed=0):
    videos = [Video(f"{clip}{system}", clip, system, 1.0, "") for clip in CLIPS for system in SYSTEMS]
    test = ListeningTest(Path(), SYSTEMS, {"--seed": seed}, videos)
    return [(video.clip, video.system) for video in playlist(test, annotator)]


def test_each_clip_is_met_once_through_each_system():
    assert sorted(order()) == sorted((clip, system) for clip in CLIPS for system in SYSTEMS)


def test_the_versions_of_a_clip_follow_one_another():
    met = [clip for clip, _ in order()]
    assert met == [clip for clip in dict.fromkeys(met) for _ in SYSTEMS]


def test_the_same_annotator_always_meets_the_same_order():
    assert order() == order()


def test_annotators_and_seeds_have_orders_of_their_own():
    assert len({tuple(order(name, seed)) for name in ("ada", "bob", "cy") for seed in (0, 1)}) == 6


def test_no_system_gains_by_its_place():
    firsts = Counter(
        order(f"annotator {i}")[len(SYSTEMS) * j][1] for i in range(100) for j in range(len(CLIPS))
    )
    assert all(abs(firsts[system] - 200) < 45 for system in SYSTEMS), firsts  # 4 standard deviations


def test_the_order_is_that_of_earlier_versions():
    assert order()[:4] == [("clip5", "b"), ("clip5", "a"), ("clip5", "c"), ("clip3", "a")]
