import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stav2a.data.media import opening
from stav2a.data.optical_flow import motion
from stav2a.data.struck_objects import StruckObjects
from stav2a.data.struck_objects.rendering import render_picture, render_sound
from stav2a.data.struck_objects.scene import CLASSES, DURATION_S, OBJECTS, distance, plan
from stav2a.utils.parallel import parallel

MANY = [plan(0, "train", index, 0.4, 0.6) for index in range(300)]


def by_flaw(flaw: str | None):
    return next(performance for performance in MANY if performance.flaw == flaw)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.mp4"))}


def test_strikes_lie_apart_inside_the_clip():
    for performance in MANY:
        assert 1 <= len(performance.strikes_s) <= 5
        assert performance.strikes_s[0] >= 0.2 and performance.strikes_s[-1] <= DURATION_S - 0.2
        assert np.all(np.diff(performance.strikes_s) > 0.2799)


def test_good_clips_sound_as_they_look_and_shifted_ones_do_not():
    for performance in MANY:
        same = performance.onsets_s == performance.strikes_s
        assert same == (performance.flaw != "shifted")


def test_fractions_of_flaws_and_vague_captions_are_as_asked():
    flaws = Counter(performance.flaw for performance in MANY)
    assert flaws["static"] / len(MANY) == pytest.approx(0.2, abs=0.06)
    assert flaws["shifted"] / len(MANY) == pytest.approx(0.2, abs=0.06)
    assert np.mean([performance.vague for performance in MANY]) == pytest.approx(0.6, abs=0.08)


def test_the_test_split_is_never_flawed():
    assert all(plan(0, "test", index, 1.0, 0.6).flaw is None for index in range(20))


def test_classes_are_balanced_and_told_by_specific_captions_alone():
    assert set(Counter(performance.label for performance in MANY).values()) == {len(MANY) // len(CLASSES)}
    for performance in MANY:
        told = [label for label in CLASSES if OBJECTS[label].name in performance.caption]
        assert told == ([] if performance.vague else [performance.label])


def test_the_mallet_touches_at_the_strikes_only_and_is_fastest_there():
    t = np.arange(0, DURATION_S, 1e-3)
    for performance in MANY[:60]:
        away = distance(performance, t)
        strikes = np.round(np.array(performance.strikes_s) * 1000).astype(int)
        assert away.min() >= 0 and np.all(away[strikes] < 1)
        far = np.abs(np.subtract.outer(t, performance.strikes_s)).min(axis=1) > 0.08
        assert away[far].min() > 1
        speed = np.abs(np.diff(away))
        rebounds = far[1:] & (np.abs(np.subtract.outer(t[1:], performance.strikes_s)).min(axis=1) > 0.1)
        for strike in strikes:
            assert (
                speed[strike - 5 : strike].max()
                > 0.9 * np.where(rebounds, speed, 0)[strike : strike + 200].max()
            )


def test_a_near_miss_is_silent_and_stops_short():
    performance = next(p for p in MANY if p.misses_s and not p.flaw and p.misses_s[0] < 2.2)
    miss = performance.misses_s[0]
    away = distance(performance, np.array([miss - 0.3, miss, miss + 0.3]))
    assert away[1] < 0.5 * min(away[0], away[2]) and away[1] > 2
    start = round((miss - 0.03) * 16_000)
    later = [s for s in performance.strikes_s if s < miss]
    if not later or performance.label == "wood":
        assert np.abs(render_sound(performance)[start : start + 1000]).max() < 0.05


def test_sound_begins_exactly_at_the_first_strike():
    for performance in MANY[:12]:
        audio, start = render_sound(performance), round(performance.onsets_s[0] * 16_000)
        assert audio.shape == (40_960,) and audio.dtype == np.float32
        assert np.abs(audio[:start]).max() < 0.006 and np.abs(audio[start : start + 160]).max() > 0.05
        assert np.abs(audio).max() <= 0.9


def test_classes_have_different_spectra():
    def centre(performance) -> float:
        power = np.abs(np.fft.rfft(render_sound(performance))) ** 2
        return float((power * np.fft.rfftfreq(40_960, 1 / 16_000)).sum() / power.sum())

    centres = {label: [centre(p) for p in MANY[:60] if p.label == label] for label in CLASSES}
    assert max(centres["drum"]) < min(centres["wood"] + centres["metal"])
    assert max(centres["wood"] + centres["water"]) < min(centres["tambourine"])


def test_static_clips_show_nothing_but_sensor_noise():
    still, moves = motion(render_picture(by_flaw("static"))), motion(render_picture(by_flaw(None)))
    assert 0 < still.max() < 0.1 < 1 < moves.max()


def test_motion_is_greatest_at_the_first_strike():
    performance = next(p for p in MANY if p.flaw is None and len(p.strikes_s) == 1)
    peak = int(np.argmax(motion(render_picture(performance))))
    assert abs(peak / 25 - performance.strikes_s[0]) < 0.045


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


def test_another_seed_is_another_world_beside_the_first(tmp_path):
    worlds = [StruckObjects(train_clips=1, validation_clips=0, test_clips=0, seed=seed) for seed in (0, 1)]
    first, second = (world.clips(tmp_path)[0].video for world in worlds)
    assert first != second and first.read_bytes() != second.read_bytes()


def test_impossible_settings_are_refused():
    with pytest.raises(
        ValueError, match=r"struck_objects.flawed_fraction was given 1.5. Give a number from 0 to 1."
    ):
        StruckObjects(flawed_fraction=1.5)
    with pytest.raises(ValueError, match="Give 0 or more for each split"):
        StruckObjects(train_clips=-1)


def test_a_failing_worker_stops_the_rest():
    with pytest.raises(ValueError, match="invalid literal"):
        list(parallel(int, ["1"] * 40 + ["x"] * 40, workers=2, description="numbers"))
