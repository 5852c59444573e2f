import math

import mir_eval
import numpy as np
import pytest

from stav2a.metrics.alignment import aa_align, count_hits, onset_scores, video_peaks, video_peaks_s
from stav2a.metrics.score import MetricError

MATCHINGS = ("one_to_one", "released")


def hits(estimated, reference, matching="one_to_one", tolerance_s=0.1):
    return count_hits(estimated, reference, tolerance_s=tolerance_s, matching=matching)


def av_align(onsets, flow, rate, matching="one_to_one"):
    return aa_align(onsets, video_peaks_s(flow, rate), tolerance_s=1 / rate, matching=matching)


def test_a_burst_hits_one_onset_once_or_each_time():
    burst, one = [1.00, 1.02, 1.04, 1.06], [1.03]
    assert hits(burst, one) == 1
    assert hits(burst, one, "released") == 4
    assert aa_align(burst, one) == 1 / (4 + 1 - 1)
    assert aa_align(burst, one, matching="released") == 4 / (4 + 1 - 4)  # beyond 1


def test_released_counts_the_generated_side_only():
    burst, one = [1.00, 1.02, 1.04, 1.06], [1.03]
    assert aa_align(one, burst, matching="released") == 1 / (1 + 4 - 1)


def test_a_greedy_pairing_by_nearest_would_lose_a_hit():
    # 1.08 is nearest to 1.09, but only 1.00 - 1.08 and 1.16 - 1.09 pair both.
    assert hits([1.08, 1.16], [1.00, 1.09]) == 2


def test_swapped_order_changes_nothing():
    assert hits([2.0, 1.0], [1.05, 2.05]) == hits([1.0, 2.0], [2.05, 1.05]) == 2


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("at", [0.0, 0.1, 0.2, 0.3, 0.7, 1.1, 123.4])
def test_a_tie_misses_wherever_it_lies(matching, at):
    assert hits([at], [at + 0.1], matching) == hits([at + 0.1], [at], matching) == 0
    assert hits([at], [at + 0.0999], matching) == 1


@pytest.mark.parametrize("matching", MATCHINGS)
def test_swapped_sides_count_alike_one_to_one_alone(matching):
    """Onsets 0.0 and 0.05 against 0.04: one pair of 2 + 1 - 1 = 2 one to one, both ways round.

    As released both hit, 2 / (2 + 1 - 2) = 2; the other way round one hits, 1 / (1 + 2 - 1) = 0.5.
    """
    two, one = [0.0, 0.05], [0.04]
    expected = {"one_to_one": (0.5, 0.5), "released": (2.0, 0.5)}[matching]
    assert (aa_align(two, one, matching=matching), aa_align(one, two, matching=matching)) == expected


@pytest.mark.parametrize("matching", MATCHINGS)
def test_empty_sets(matching):
    assert math.isnan(aa_align([], [], matching=matching))
    assert aa_align([1.0], [], matching=matching) == aa_align([], [1.0], matching=matching) == 0.0


def test_equal_times_pair_one_to_one():
    assert hits([1.0, 1.0], [1.0]) == 1
    assert hits([1.0, 1.0], [1.0, 1.0]) == 2


def random_sets(rng):
    return np.sort(rng.uniform(0, 3, rng.integers(0, 15))), np.sort(rng.uniform(0, 3, rng.integers(0, 15)))


def test_one_to_one_equals_mir_eval():
    """AA = F / (2 - F), for F = 2h / (g + r) and AA = h / (g + r - h).

    Continuous times never lie on the window's end, which belongs to mir_eval's window and not to ours.
    """
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(10_000):
        ours, theirs = random_sets(rng)
        if not len(ours) or not len(theirs):
            continue
        f, precision, recall = mir_eval.onset.f_measure(theirs, ours, window=0.1)
        assert abs(aa_align(ours, theirs) - f / (2 - f)) < 1e-12
        np.testing.assert_allclose(onset_scores(ours, theirs), (precision, recall, f), atol=1e-12)
        compared += 1
    assert compared > 8_500


def test_one_to_one_is_symmetric_bounded_and_one_for_equals():
    rng = np.random.default_rng(1)
    for _ in range(300):
        ours, theirs = random_sets(rng)
        if not len(ours) and not len(theirs):
            continue
        score = aa_align(ours, theirs)
        assert 0 <= score <= 1
        assert score == aa_align(theirs, ours)
        assert score <= aa_align(ours, theirs, matching="released")
        if len(ours):
            assert aa_align(ours, ours) == aa_align(ours, ours, matching="released") == 1


def test_more_tolerance_never_lowers_the_hits():
    rng = np.random.default_rng(2)
    for _ in range(100):
        ours, theirs = random_sets(rng)
        for matching in MATCHINGS:
            counts = [hits(ours, theirs, matching, t) for t in (0.01, 0.05, 0.1, 0.5)]
            assert counts == sorted(counts)


def test_onset_scores():
    assert onset_scores([1.0, 2.0, 3.0], [1.05, 4.0]) == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    assert all(math.isnan(score) for score in onset_scores([], []))
    assert onset_scores([], [1.0]) == onset_scores([1.0], []) == (0.0, 0.0, 0.0)


def test_peaks_are_strict_and_above_the_threshold():
    #         0    1    2    3    4    5    6    7     8     9
    flow = [0.5, 0.2, 0.9, 0.3, 0.7, 0.7, 0.1, 0.0, 0.08, 0.0]
    assert video_peaks(flow).tolist() == [2]  # 4 and 5 are level, 8 is too weak, 0 is an end
    assert video_peaks(flow, None).tolist() == [2, 8]
    assert video_peaks([0.0, 0.1, 0.0]).tolist() == []  # not above 0.1


def test_a_static_video_has_no_peaks():
    assert not video_peaks(np.zeros(50), None).size
    assert av_align([0.5], np.zeros(50), 25.0) == 0.0
    assert math.isnan(av_align([], np.zeros(50), 25.0))


def test_av_align_by_hand():
    flow = np.zeros(20)
    flow[[4, 10, 15]] = 1.0  # at 0.4, 1.0 and 1.5 s
    # 0.45 and 0.35 both lie near the first peak, 1.11 is too far from the second.
    onsets = [0.35, 0.45, 1.11]
    assert av_align(onsets, flow, 10.0) == 1 / (3 + 3 - 1)
    assert av_align(onsets, flow, 10.0, matching="released") == 2 / (3 + 3 - 2)
    assert av_align([0.5], flow, 10.0) == 0  # one frame away exactly: a tie


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_video_too_short_is_refused(frames):
    with pytest.raises(MetricError, match=rf"the video has {frames} frame\(s\). AV-Align needs 3 or more"):
        av_align([0.1], np.ones(frames), 25.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, None])
def test_a_video_without_frame_rate_is_refused(rate):
    with pytest.raises(MetricError, match="the video's frame rate was .* AV-Align needs one above 0 Hz"):
        av_align([0.1], np.ones(9), rate)


def test_wrong_input_is_told():
    with pytest.raises(MetricError, match="matching was 'greedy'. Write one of: one_to_one, released."):
        aa_align([1.0], [1.0], matching="greedy")
    with pytest.raises(MetricError, match="the estimated onsets were not all finite"):
        aa_align([math.nan], [1.0])
    with pytest.raises(MetricError, match=r"the reference onsets were of shape \(1, 1\)"):
        aa_align([1.0], [[1.0]])
    with pytest.raises(MetricError, match="tolerance_s was 0. Give a time above 0 s."):
        aa_align([1.0], [1.0], tolerance_s=0)
