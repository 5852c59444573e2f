"""Clips decoded once, into the arrays that encoders, stages, filters and metrics need."""

import json
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from stav2a.components.feature_encoders import CAVP
from stav2a.data import mel
from stav2a.data.clip import Clip
from stav2a.data.filters import AVAlignFilter, Decision, KeepAll, filter_key
from stav2a.data.media import MediaError, audio, decode, video
from stav2a.data.onsets import SuperFlux, onset_frames
from stav2a.data.optical_flow import Farneback, clip_motion
from stav2a.data.struck_objects import StruckObjects
from stav2a.evaluation.samples import mean_flows
from stav2a.models.stav2a import STAV2A, assemble
from stav2a.training import corpus
from stav2a.training.corpus import DecodedCorpus
from stav2a.utils.contents import ChangedError
from stav2a.utils.errors import UsageError
from stav2a.utils.store import Store, save_tensors
from tests import tiny

FILTERS = {filter_key(KeepAll): KeepAll(), filter_key(AVAlignFilter): AVAlignFilter(detector=SuperFlux)}
KEYS = {"clips": "clips", "flows": "flows", "features": "features", "latents": "latents"}


@pytest.fixture(scope="module")
def model() -> STAV2A:
    encoder = partial(CAVP, width=4, blocks=(1, 1, 1, 1), dim=16, frame_rate_hz=12.5, frame_size=32)
    return assemble(tiny.factories(feature_encoder=encoder), duration_s=2.56).eval()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    counts = {"train_clips": 10, "validation_clips": 2, "test_clips": 6}
    return StruckObjects(**counts).clips(tmp_path_factory.mktemp("world"))


def decoded(clips, model, root: Path, **changes) -> DecodedCorpus:
    settings = {"detector": SuperFlux(), "filters": FILTERS, "store": Store(root), "keys": KEYS, **changes}
    return DecodedCorpus(clips, model, **settings)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def whole(clips, model, root) -> DecodedCorpus:
    return decoded(clips, model, root, workers=1)


def test_arrays_fit_the_encoder_and_the_duration(whole):
    assert (whole.frames.shape, whole.frames.dtype) == ((18, 32, 3, 32, 32), torch.uint8)
    assert whole.mel.shape == (18, 1, 256, 64) and whole.onsets.shape == (18, 32)
    assert (whole.audio([0]).shape, whole.audio([0]).dtype) == ((1, 40_960), np.float32)


def test_frames_and_sound_are_those_of_the_file(clips, whole):
    frames = video.read_video(clips[4].video, frame_rate_hz=12.5, size=32)
    np.testing.assert_array_equal(whole.frames[4].numpy(), frames.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(whole.audio([4])[0], audio.read_audio(clips[4].video, 16_000))


def test_a_peak_is_for_the_mel_alone(clips, model, whole, tmp_path):
    scaled = decoded(clips[4:6], model, tmp_path, audio_peak=0.5, workers=1)
    sound = mel.normalised(audio.read_audio(clips[4].video, 16_000), 0.5)
    torch.testing.assert_close(scaled.mel[:1], mel.log_mel(torch.from_numpy(sound)[None]))
    np.testing.assert_array_equal(scaled.audio([0, 1]), whole.audio([4, 5]))
    assert torch.equal(scaled.onsets, whole.onsets[4:6])
    assert not torch.allclose(scaled.mel, whole.mel[4:6], atol=0.1)


def test_pseudo_onsets_match_the_truth(whole, root):
    table = json.loads((Store(root).path("clips", "clips") / "clips.json").read_text())
    for i, (clip, onsets_s) in enumerate(zip(whole.clips, table["pseudo_onsets"], strict=True)):
        if clip.label not in ("sandpaper", "jug"):  # whose grains and bubbles are onsets too
            assert np.abs(np.subtract.outer(clip.onsets_s, onsets_s)).min(axis=1).max() < 0.03
            assert len(onsets_s) <= len(clip.onsets_s) + 1
        np.testing.assert_array_equal(whole.onsets[i], onset_frames(onsets_s, 32, 12.5))


def test_the_filter_tells_good_from_flawed(whole):
    decisions = whole.decisions[filter_key(AVAlignFilter)]
    agreed = [d.keep == (clip.flaw is None) for d, clip in zip(decisions, whole.clips, strict=True)]
    assert np.mean(agreed) >= 0.75


def test_rows_of_a_split_that_a_filter_keeps(whole):
    assert whole.rows("validation", KeepAll).tolist() == [10, 11]
    assert whole.rows("train", KeepAll).tolist() == list(range(10))
    kept, decisions = whole.rows("train", AVAlignFilter), whole.decisions[filter_key(AVAlignFilter)]
    assert 0 < len(kept) < 10 and all(decisions[row].keep for row in kept)


def test_a_split_without_clips_is_an_error(clips, model, tmp_path):
    few = decoded(clips[:2], model, tmp_path)
    with pytest.raises(UsageError, match="none of 2 clips is of the split 'test', which a run is measured"):
        few.rows("test", KeepAll)


def test_the_reason_of_an_empty_split_is_of_its_own_clips(clips, model, whole):
    few = copy(whole)
    reasons = {"train": "too dark", "validation": "too quiet", "test": "too short"}
    few.decisions = {filter_key(KeepAll): [Decision(False, None, reasons[clip.split]) for clip in clips]}
    with pytest.raises(UsageError, match="of the split 'validation'. .* reason: too quiet. Give more"):
        few.rows("validation", KeepAll)
    few.clips = [replace(clip, split="train") for clip in clips]
    with pytest.raises(UsageError, match="none of 18 clips is of the split 'validation'"):
        few.rows("validation", KeepAll)


def test_workers_change_nothing(clips, model, whole, root, tmp_path):
    decoded(clips, model, tmp_path, workers=2)
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"arrays.safetensors", "decisions.json"}
    assert all((tmp_path / path).read_bytes() == (root / path).read_bytes() for path in files)


def test_flows_are_those_of_the_whole_clips_whatever_the_number_of_workers(clips, tmp_path):
    stores = [Store(tmp_path / str(workers)) for workers in (1, 2)]
    for workers, store in enumerate(stores, start=1):
        flows = mean_flows(clips[2:], Farneback(), store=store, key="flows", workers=workers)
        assert [flow.frame_rate_hz for flow in flows] == [25.0] * 16
    for flow, clip in zip(flows[10:], clips[12:], strict=True):
        np.testing.assert_array_equal(flow.motion, clip_motion(decode(clip.video)))
    one, two = (store.path("flows", "flows") / "flows.safetensors" for store in stores)
    assert one.read_bytes() == two.read_bytes()


def test_an_unreadable_clip_is_left_out_with_its_reason(clips, model, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    bad = Clip(id="bad", video=tmp_path / "bad.mp4", caption="", split="train")
    some = decoded([clips[0], bad, clips[1]], model, tmp_path / "store")
    assert [clip.id for clip in some.clips] == [clips[0].id, clips[1].id]
    assert len(some.frames) == len(some.mel) == len(some.onsets) == len(some.labels) == 2
    assert all(len(decisions) == 2 for decisions in some.decisions.values())
    assert "bad.mp4: not a readable video" in some.failed["bad"]


def test_nothing_readable_is_an_error(model, tmp_path):
    missing = Clip(id="x", video=tmp_path / "x.mp4", caption="", split="train")
    with pytest.raises(MediaError, match="None of 1 clips can be read. The first: .*no such file"):
        decoded([missing], model, tmp_path / "store")


def test_another_filter_is_asked_later(clips, model, whole, root):
    again = decoded(clips, model, root, filters={"more": KeepAll(), **FILTERS})
    assert [decision.keep for decision in again.decisions["more"]] == [True] * 18
    assert torch.equal(again.frames, whole.frames) and again.decisions.items() >= whole.decisions.items()


class Rewriting(KeepAll):
    """A filter that lasts so long that a video is written anew meanwhile."""

    video: Path

    def __call__(self, clip):
        self.video.write_bytes(self.video.read_bytes() + b"more")
        return super().__call__(clip)


def test_a_video_that_changes_while_it_is_decoded_leaves_nothing_in_the_store(model, tmp_path):
    own = StruckObjects(train_clips=2, validation_clips=0, test_clips=1).clips(tmp_path / "world")
    store, rewriting = Store(tmp_path / "store"), Rewriting()
    rewriting.video = own[0].video
    store.contents.of_files(clip.video for clip in own)
    with pytest.raises(ChangedError, match="changed while it was read"):
        decoded(own, model, store.root, store=store, filters={"r": rewriting})
    assert not store.has("clips", "clips")
    assert not store.has("filter", "clipsr")


def test_a_video_that_changes_while_its_flow_is_computed_leaves_nothing_in_the_store(clips, tmp_path):
    class Slow(Farneback):
        def __call__(self, frames):
            video_file.touch()
            return super().__call__(frames)

    video_file = tmp_path / "x.mp4"
    video_file.write_bytes(clips[12].video.read_bytes())
    store = Store(tmp_path / "store")
    store.contents.of_files([video_file])
    with pytest.raises(ChangedError, match="changed while it was read"):
        mean_flows([replace(clips[12], video=video_file)], Slow(), store=store, key="flows")
    assert not store.has("flows", "flows")


@pytest.mark.parametrize("kind", ["filter", "features", "flows"])
def test_an_entry_of_another_number_of_clips_is_set_aside_and_made_again(kind, model, tmp_path, caplog):
    own = StruckObjects(train_clips=3, validation_clips=0, test_clips=1).clips(tmp_path / "world")
    store = Store(tmp_path / "store")
    keep = {"filters": {filter_key(KeepAll): KeepAll()}}
    whole = decoded(own, model, store.root, **keep)
    features = whole.features()
    mean_flows(own[3:], Farneback(), store=store, key="flows")
    entry = store.path(kind, {"filter": "clips" + filter_key(KeepAll)}.get(kind, kind))
    (entry / "content.json").unlink()  # as an older version wrote it
    if kind == "filter":
        rows = json.loads((entry / "decisions.json").read_text())
        (entry / "decisions.json").write_text(json.dumps(rows[:-1]))
    elif kind == "features":
        save_tensors(entry / "tensors.safetensors", {"e_v": features[:-1].contiguous()})
    else:
        (entry / "rates.json").write_text("[]")
    again = decoded(own, model, store.root, **keep)
    assert again.rows("train", KeepAll).tolist() == [0, 1, 2]
    assert torch.equal(again.features(), features)
    assert len(mean_flows(own[3:], Farneback(), store=store, key="flows")) == 1
    assert "is damaged: " in caplog.text and "It is made again." in caplog.text
    assert any(path.name.startswith(entry.name) for path in (store.root / "damaged").iterdir())


def test_a_moved_folder_of_clips_is_decoded_once(model, tmp_path, monkeypatch):
    world = StruckObjects(train_clips=1, validation_clips=0, test_clips=1)
    there = decoded(world.clips(tmp_path / "there"), model, tmp_path / "store")
    (tmp_path / "there").rename(tmp_path / "here")
    monkeypatch.setattr(corpus, "decode", None)
    here = decoded(world.clips(tmp_path / "here"), model, tmp_path / "store")
    assert torch.equal(here.frames, there.frames) and here.decisions == there.decisions
    assert all(clip.video.is_file() and clip.video.is_relative_to(tmp_path / "here") for clip in here.clips)
