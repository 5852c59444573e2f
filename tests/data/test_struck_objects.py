import csv
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from stav2a.data.media import opening
from stav2a.data.optical_flow import motion
from stav2a.data.struck_objects import StruckObjects
from stav2a.data.struck_objects.rendering import render_picture, render_sound
from stav2a.data.struck_objects.scene import (
    CLASSES,
    DURATION_S,
    GRAMMAR,
    OBJECTS,
    distance,
    filled,
    phrasings,
    plan,
    slid,
)
from stav2a.metrics.alignment import video_peaks_s
from stav2a.utils.parallel import parallel

MANY = [plan(0, "train", index, 0.4, 0.6) for index in range(320)]
STRUCK = [performance for performance in MANY if OBJECTS[performance.label].manner == "struck"]


def by_flaw(flaw: str | None):
    return next(performance for performance in MANY if performance.flaw == flaw)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.mp4"))}


def test_events_lie_apart_inside_the_clip():
    for performance in MANY:
        thing, seen = OBJECTS[performance.label], performance.seen
        assert thing.counts[0] <= len(seen.times_s) <= thing.counts[1]
        assert seen.times_s[0] >= 0.2 and seen.times_s[-1] <= DURATION_S - 0.2
        assert np.all(np.diff(seen.times_s) > thing.gap_s - 1e-3)
        ends = np.add(seen.times_s, seen.lengths_s)
        assert np.all(ends[:-1] < seen.times_s[1:]) and ends[-1] < DURATION_S


def test_good_clips_sound_as_they_look_and_shifted_ones_do_not():
    for performance in MANY:
        assert (performance.heard == performance.seen) == (performance.flaw != "shifted")


def test_fractions_of_flaws_and_vague_captions_are_as_asked():
    flaws = Counter(performance.flaw for performance in MANY)
    assert flaws["static"] / len(MANY) == pytest.approx(0.2, abs=0.06)
    assert flaws["shifted"] / len(MANY) == pytest.approx(0.2, abs=0.06)
    assert np.mean([performance.vague for performance in MANY]) == pytest.approx(0.6, abs=0.08)


def test_the_test_split_is_never_flawed():
    assert all(plan(0, "test", index, 1.0, 0.6).flaw is None for index in range(20))


def test_classes_are_balanced_and_told_by_specific_captions_alone():
    assert set(Counter(performance.label for performance in MANY).values()) == {len(MANY) // len(CLASSES)}
    names = {label: {*OBJECTS[label].names, OBJECTS[label].painted} for label in CLASSES}
    for performance in MANY:
        told = [label for label in CLASSES if names[label] & named(performance)]
        assert told == ([] if performance.vague else [performance.label])


def named(performance) -> set[str]:
    """What stands in the caption for the {} of its phrasing."""
    before, _, after = performance.phrasing.partition("{}")
    found = re.fullmatch(f"{before}(.+?){after}(, bell rings [a-z]+)?", performance.caption)
    return {found[1]} if found and "{}" in performance.phrasing else set()


def test_captions_are_short_in_hundreds_of_phrasings_some_only_for_testing():
    tests = [plan(0, "test", index, 0, 0.6) for index in range(160)]
    assert len({performance.phrasing for performance in MANY}) > 150
    assert max(len(performance.caption.replace(",", "").split()) for performance in MANY + tests) <= 11
    assert not any(performance.held_out for performance in MANY)
    assert 0.3 < np.mean([performance.held_out for performance in tests]) < 0.7
    for manner in GRAMMAR:
        known, new = (set(phrasings(manner, held_out)) for held_out in (False, True))
        assert not known & new and len(new) > 0.1 * len(known)
    known = {performance.phrasing for performance in MANY}
    assert not known & {performance.phrasing for performance in tests if performance.held_out}


def test_an_object_whose_look_is_shared_is_named_and_looks_like_the_others():
    painted = [performance for performance in MANY if performance.look == "shared"]
    assert len({performance.label for performance in painted}) == 4
    assert not any(performance.vague for performance in painted)
    wood = next(performance for performance in painted if performance.label == "wood")
    glass = replace(wood, label="glass")
    np.testing.assert_array_equal(render_picture(wood), render_picture(glass))
    assert np.abs(render_sound(wood) - render_sound(glass)).max() > 0.1


def test_a_bell_is_heard_and_told_but_not_seen():
    performance = next(p for p in MANY if p.bell_s is not None and p.label == "wood")
    assert "bell rings" in performance.caption and performance.bell_s in performance.onsets_s
    without = replace(performance, bell_s=None)
    np.testing.assert_array_equal(render_picture(performance), render_picture(without))
    start, difference = (
        round(performance.bell_s * 16_000),
        render_sound(performance) - render_sound(without),
    )
    assert np.abs(difference[:start]).max() < 1e-3 < 0.02 < np.abs(difference[start : start + 1600]).max()


@pytest.mark.parametrize("label", ["sandpaper", "jug"])
def test_continuous_sounds_are_as_loud_as_the_visible_speed(label):
    performance = next(p for p in MANY if p.label == label and p.flaw is None and p.bell_s is None)
    audio, t = render_sound(performance).reshape(-1, 640), (np.arange(64) + 0.5) / 25
    loudness, speed = np.sqrt((audio**2).mean(axis=1)), performance.seen.speed(t)
    assert np.corrcoef(loudness, speed)[0, 1] > 0.8
    moved = filled(performance, t) if label == "jug" else slid(performance, t)
    assert np.corrcoef(np.abs(np.gradient(moved)), speed)[0, 1] > 0.7


def test_levels_add_what_distracts():
    easy, hard = ([plan(0, "train", k, 0, 0.6, level) for k in range(160)] for level in ("easy", "hard"))
    for fact in ("misses_s", "bell_s"):
        assert sum(bool(getattr(p, fact)) for p in easy) < sum(bool(getattr(p, fact)) for p in hard)
    assert {p.look for p in easy} == {"own"} and sum(p.look == "shared" for p in hard) > 10
    assert [p.seen for p in easy] == [p.seen for p in hard]
    noise = [
        np.abs(np.diff(render_picture(by[0])[:2, :20].astype(float), axis=0)).mean() for by in (easy, hard)
    ]
    assert noise[0] < noise[1] / 2


def test_the_mallet_touches_at_the_strikes_only_and_is_fastest_there():
    t = np.arange(0, DURATION_S, 1e-3)
    for performance in STRUCK[:60]:
        away = distance(performance, t)
        strikes = np.round(np.array(performance.strikes_s) * 1000).astype(int)
        assert away.min() >= 0 and np.all(away[strikes] < 1)
        nearest = np.abs(np.subtract.outer(t, performance.strikes_s)).min(axis=1)
        assert away[nearest > 0.08].min() > 1
        speed = np.abs(np.diff(away))
        rebounds = np.where(nearest[1:] > 0.1, speed, 0)
        for strike in strikes:
            assert speed[strike - 5 : strike].max() > 0.9 * rebounds[strike : strike + 200].max()


def test_the_height_of_the_mallet_tells_the_time_left_whatever_the_strength():
    heights = []
    for performance in STRUCK[:60]:
        times = np.array([-1, *performance.strikes_s])
        alone = times[1:][np.diff(times) > 0.6] - 0.05
        calm = alone[np.abs(np.subtract.outer(alone, [*performance.misses_s, 9])).min(axis=1) > 0.3]
        heights += distance(performance, calm).tolist()
    assert len(heights) > 40 and np.ptp(heights) < 0.01


def test_a_near_miss_is_silent_and_stops_short():
    performance = next(p for p in STRUCK if p.misses_s and not p.flaw and p.label == "wood" and not p.bell_s)
    miss = performance.misses_s[0]
    away = distance(performance, np.array([miss - 0.3, miss, miss + 0.3]))
    assert away[1] < 0.5 * min(away[0], away[2]) and away[1] > 2
    start = round((miss - 0.03) * 16_000)
    assert np.abs(render_sound(performance)[start : start + 1000]).max() < 0.05


def test_sound_begins_exactly_at_the_first_strike():
    for performance in STRUCK[:12]:
        audio, start = render_sound(performance), round(performance.onsets_s[0] * 16_000)
        assert audio.shape == (40_960,) and audio.dtype == np.float32
        assert np.abs(audio[:start]).max() < 0.012 and np.abs(audio[start : start + 160]).max() > 0.05
        assert np.abs(audio).max() <= 0.9


def test_classes_have_different_spectra():
    def centre(performance) -> float:
        power = np.abs(np.fft.rfft(render_sound(performance))) ** 2
        return float((power * np.fft.rfftfreq(40_960, 1 / 16_000)).sum() / power.sum())

    some = [performance for performance in MANY[:64] if performance.bell_s is None]
    centres = {label: [centre(p) for p in some if p.label == label] for label in CLASSES}
    assert max(centres["drum"]) < min(centres["wood"] + centres["metal"])
    assert max(centres["wood"] + centres["water"]) < min(centres["glass"] + centres["tambourine"])


def test_static_clips_show_nothing_but_sensor_noise():
    still, moves = motion(render_picture(by_flaw("static"))), motion(render_picture(by_flaw(None)))
    assert 0 < still.max() < 0.1 < 1 < moves.max()


@pytest.mark.parametrize("label", ["wood", "metal", "glass", "drum", "tambourine", "sandpaper"])
def test_most_events_are_peaks_of_motion(label):
    found = []
    for performance in [p for p in MANY if p.label == label and p.flaw is None][:4]:
        small = [
            cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in render_picture(performance)
        ]
        peaks = video_peaks_s(motion(np.stack(small)), 25.0)
        found += (np.abs(np.subtract.outer(performance.strikes_s, peaks)).min(axis=1) < 0.045).tolist()
    assert np.mean(found) > 0.6


def test_rendering_gives_real_files_a_manifest_and_the_truth(tmp_path):
    clips = StruckObjects(train_clips=3, validation_clips=1, test_clips=2).clips(tmp_path)
    assert [clip.split for clip in clips] == ["train"] * 3 + ["validation"] + ["test"] * 2
    info = opening.probe(clips[0].video)
    assert (info.width, info.height, info.frame_rate_hz, info.frames) == (128, 128, 25.0, 64)
    manifest = clips[0].video.parents[1] / "manifest.csv"
    rows = list(csv.DictReader(manifest.open(encoding="utf-8")))
    for clip, row in zip(clips, rows, strict=True):
        assert (clip.id, clip.caption, clip.label, clip.flaw or "") == (
            row["id"],
            row["caption"],
            row["label"],
            row["flaw"],
        )
        assert (row["level"], row["version"]) == ("standard", "3") and row["look"] in ("own", "shared")
        assert clip.caption.startswith(row["phrasing"].split("{}")[0]) and row["held_out"] in "01"
        np.testing.assert_allclose(clip.onsets_s, [float(t) for t in row["onsets_s"].split()], atol=1e-4)
        assert manifest.parent / row["file"] == clip.video


def test_a_clip_depends_on_neither_counts_nor_workers(tmp_path):
    few = StruckObjects(train_clips=4, validation_clips=0, test_clips=1)
    many = StruckObjects(train_clips=16, validation_clips=2, test_clips=1)
    few.clips(tmp_path / "few")
    many.clips(tmp_path / "many")  # enough for worker processes
    expected = contents(tmp_path / "many")
    for name, bytes_ in contents(tmp_path / "few").items():
        assert expected[name] == bytes_


def test_rendering_goes_on_where_it_stopped(tmp_path):
    world = StruckObjects(train_clips=3, validation_clips=0, test_clips=0)
    clips = world.clips(tmp_path)
    before = contents(tmp_path)
    clips[1].video.unlink()
    kept = os.stat(clips[0].video).st_mtime_ns
    assert world.clips(tmp_path) == clips
    assert contents(tmp_path) == before and os.stat(clips[0].video).st_mtime_ns == kept


@pytest.mark.parametrize("damage", ["video", "hashes", "name"])
def test_a_damaged_clip_is_rendered_again(tmp_path, damage, caplog):
    dataset = StruckObjects(train_clips=0, validation_clips=0, test_clips=2)
    clips = dataset.clips(tmp_path)
    written = [clip.video.read_bytes() for clip in clips]
    (hashes,) = tmp_path.rglob("content.json")
    if damage != "video":
        text = hashes.read_text()
        hashes.write_text(text[:9] if damage == "hashes" else text.replace(clips[0].id, "another"))
    clips[0].video.write_bytes(written[1])
    assert [clip.video.read_bytes() for clip in dataset.clips(tmp_path)] == written
    assert f"first {clips[0].id}. They are rendered again." in caplog.text


def test_another_seed_or_level_is_another_world_beside_the_first(tmp_path):
    worlds = [StruckObjects(train_clips=1, validation_clips=0, test_clips=0, seed=seed) for seed in (0, 1)]
    worlds.append(StruckObjects(train_clips=1, validation_clips=0, test_clips=0, level="hard"))
    first, second, third = (world.clips(tmp_path)[0].video for world in worlds)
    assert len({first, second, third}) == len({each.read_bytes() for each in (first, second, third)}) == 3


def test_impossible_settings_are_refused():
    with pytest.raises(
        ValueError, match=r"struck_objects.flawed_fraction was given 1.5. Give a number from 0 to 1."
    ):
        StruckObjects(flawed_fraction=1.5)
    with pytest.raises(ValueError, match="Give 0 or more for each split"):
        StruckObjects(train_clips=-1)
    with pytest.raises(ValueError, match="level was given 'harder'. Write one of: easy, standard, hard."):
        StruckObjects(level="harder")
    with pytest.raises(ValueError, match="struck_objects.seed = -1: expected 0 to"):
        StruckObjects(seed=-1)


def test_a_failing_worker_stops_the_rest():
    with pytest.raises(ValueError, match="invalid literal"):
        list(parallel(int, ["1"] * 40 + ["x"] * 40, workers=2, description="numbers"))
