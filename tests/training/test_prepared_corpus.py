"""A run on prepared clips: the same rows, tensors and figures as on their videos."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.data.prepared import PreparedFolder, PreparedFolderError
from stav2a.data.struck_objects import StruckObjects
from stav2a.experiments.dry_run import dry_run
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.run_folder import load
from stav2a.experiments.steps import RunSteps
from stav2a.models.stav2a import encode_captions
from stav2a.training.corpus import PreparedCorpus, encode_frames
from stav2a.utils import distributed
from stav2a.utils.errors import UsageError
from stav2a.utils.store import Store

COUNTS = {"train_clips": 6, "validation_clips": 2, "test_clips": 2}
SMOKE = ["recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin"]
BINDINGS = [f"dataset.struck_objects.{name} = {count}" for name, count in COUNTS.items()]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return StruckObjects(**COUNTS).clips(tmp_path_factory.mktemp("world"))[0].video.parents[1]


@pytest.fixture(scope="module")
def prepared(world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "whole"
    fixed = ["--manifest", str(world / "manifest.csv"), "--videos", str(world), "--output", str(folder)]
    recipes = [word for path in SMOKE for word in ("--gin", path)]
    assert main(["prepare", *fixed, *recipes, "--workers", "1", "--shard-clips", "4"]) == 0
    return folder


def using(folder: Path) -> list[str]:
    return ["run.dataset = @dataset.prepared", f"dataset.prepared.folder = '{folder}'"]


def pipeline(bindings: list[str], store: Path) -> RunSteps:
    loaded = recipe.load(SMOKE, bindings, root=Experiment)
    return RunSteps(loaded.build(), Store(store), lambda name, value, step: None, lambda line: None)


def test_rows_and_tensors_are_those_of_the_videos(prepared, tmp_path):
    made = {}
    for name, bindings in (("videos", BINDINGS), ("cache", using(prepared))):
        each = pipeline(bindings, tmp_path / name)
        made[name] = each._corpus(each.experiment.model())
        assert list(made[name].decisions) == list(each.keys.filters)
    ours, theirs = made["cache"], made["videos"]
    assert ours.decisions == theirs.decisions
    assert [clip.id for clip in ours.clips] == [clip.id for clip in theirs.clips]
    assert torch.equal(ours.frames[:], theirs.frames) and torch.equal(ours.onsets, theirs.onsets)
    assert torch.equal(ours.labels, theirs.labels)
    torch.testing.assert_close(ours.mel[:], theirs.mel)
    np.testing.assert_allclose(ours.audio([8, 9]), theirs.audio([8, 9]), atol=1e-6)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("feature_encoder.cavp.frame_size = 16", "settings than this recipe's: frame_size is 64 there, 16"),
        (
            "run.onset_detector = @onset_detector.librosa",
            "settings than this recipe's: onset_detector is onset_detector.superflux there, onset_det",
        ),
        ("run.audio_peak = 0.5", "settings than this recipe's: audio_peak is None there, 0.5 here"),
        (
            "data_filter.av_align.threshold = 0.3",
            "another data filter than this recipe's: data_filter.av_align.threshold is 0.2 there, 0.3 here. "
            "Prepare the clips with this recipe, into another folder.",
        ),
        (
            "stage.joint.data_filter = @data_filter.silence",
            "data_filter.none, data_filter.av_align, but not of this recipe's data_filter.silence. Prepare",
        ),
        ("dataset.prepared.videos = 'docs'", "2 of the 2 videos that a run is measured on are not there"),
    ],
)
def test_another_recipe_is_refused_by_a_check_and_by_a_run(prepared, tmp_path, binding, message):
    each = pipeline([*using(prepared), binding], tmp_path)
    with pytest.raises(PreparedFolderError, match=re.escape(message)):
        each._corpus(each.experiment.model())
    with pytest.raises(PreparedFolderError, match=re.escape(message)):
        dry_run(each.experiment)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_without_clips_is_told_by_a_check(prepared, tmp_path, split):
    index = pq.read_table(prepared / "index.parquet")
    whole = shutil.copytree(prepared, tmp_path / "whole")
    there = index.filter(pc.not_equal(index["split"], split))
    pq.write_table(there, whole / "index.parquet")
    with pytest.raises(UsageError, match=f"none of {there.num_rows} clips is of the split '{split}'"):
        dry_run(pipeline(using(whole), tmp_path).experiment)


def test_a_filter_that_keeps_none_of_a_prepared_split_is_told_by_a_check(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "none")
    index = pq.read_table(prepared / "index.parquet").to_pylist()
    for row in index:
        for decision in row["decisions"].values():
            decision["keep"] = False
    metadata = pq.read_schema(prepared / "index.parquet")
    pq.write_table(pa.Table.from_pylist(index, schema=metadata), folder / "index.parquet")
    with pytest.raises(UsageError, match="keeps none of 6 clips of the split 'train'"):
        dry_run(pipeline(using(folder), tmp_path).experiment)


@pytest.mark.slow
def test_a_run_trains_on_them_and_its_encoders_prepare_others(prepared, world, tmp_path, monkeypatch):
    bindings = [word for line in using(prepared) for word in ("--bind", line)]
    recipes = [word for path in SMOKE for word in ("--gin", path)]
    assert main(["run", *recipes, *bindings, "--output", str(tmp_path), "--tracking-uri", "none"]) == 0
    (run_folder,) = tmp_path.glob("cn_onset_gvf-*")
    fixed = ["--manifest", str(world / "manifest.csv"), "--videos", str(world), "--workers", "1"]
    assert main(["prepare", *fixed, "--output", str(tmp_path / "encoded"), "--run", str(run_folder)]) == 0
    cache, (experiment, model) = PreparedFolder(tmp_path / "encoded"), load(run_folder)
    assert set(cache.kinds) == {"e_v", "latent_mean", "latent_std", "mel", "onsets"}

    def opened() -> PreparedCorpus:
        return PreparedCorpus(
            cache, model, onset_detector=experiment.described("onset_detector"), filters={},
            store=Store(tmp_path / "store"), keys={},
        )  # fmt: skip

    ready = opened()
    e_v = encode_frames(model, PreparedFolder(prepared).tensor("frames")[:2])
    torch.testing.assert_close(ready.features()[:2], e_v, atol=1e-3, rtol=1e-3)
    untrained = pipeline(using(tmp_path / "encoded"), tmp_path)
    with pytest.raises(PreparedFolderError, match="holds what another feature_encoder made"):
        untrained._corpus(untrained.experiment.model())  # not by the stage that asks for them first

    unread = {"feature_encoder", "autoencoder", "text_encoder"}  # until sounds are sampled
    with monkeypatch.context() as patched:
        patched.setattr(PreparedCorpus, "_check_encoder", lambda self, slot: None)
        patched.setattr(distributed, "device", lambda: torch.device("meta"))
        nothing = ["run.stages = []", "run.classifier = None"]
        placed = pipeline([*using(tmp_path / "encoded"), *nothing], tmp_path / "meta").train().model
    on_cpu = {slot for slot in placed.slots if any(not p.is_meta for p in placed.block(slot).parameters())}
    assert on_cpu == unread
    rows, drop = torch.tensor([0, 1, 1]), torch.tensor([False, True, False])
    e_text, mask = ready.texts(rows, drop)
    captions = [cache.clips[0].caption, "", cache.clips[1].caption]
    wanted, wanted_mask = encode_captions(model, captions)
    assert torch.equal(mask, wanted_mask[:, : mask.shape[1]])
    counted = mask[..., None]
    torch.testing.assert_close(e_text * counted, wanted[:, : mask.shape[1]] * counted, atol=2e-3, rtol=1e-3)
    with torch.no_grad():
        model.feature_encoder.video_project_head.bias += 1
    with pytest.raises(PreparedFolderError, match="holds what another feature_encoder made"):
        ready.features()
    with torch.no_grad():
        next(model.text_encoder.parameters()).add_(1)
    with pytest.raises(PreparedFolderError, match="holds what another text_encoder made"):
        opened().texts(rows, drop)
