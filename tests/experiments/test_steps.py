"""The steps of a run, on clips of a user's own."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stav2a import recipe
from stav2a.data.clip import Clip
from stav2a.data.optical_flow import ClipFlow
from stav2a.data.struck_objects import StruckObjects
from stav2a.evaluation.samples import Generated, evaluation_set, in_a_file
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.steps import RunSteps
from stav2a.metrics.registered.judged import ClassAccuracy
from stav2a.metrics.score import ClassifierOutputs
from stav2a.sampling import FastSampler, ddim, waveforms
from stav2a.utils.errors import UsageError
from stav2a.utils.store import Store
from tests import tiny


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("every", "told", "measured"),
    [
        (1, "8 of 8 clips have no label: no classifier is trained, and what needs it is left out: fd", False),
        (4, "2 of 8 clips have no label: the classifier learns from the others, and class accuracy", True),
    ],
)
def test_clips_without_a_label_train_a_model_all_the_same(every, told, measured, tmp_path: Path):
    """All training was done before `IndexError: Target -1 is out of bounds`; later it was refused."""
    clips = StruckObjects(train_clips=4, validation_clips=2, test_clips=2).clips(tmp_path / "world")
    with open(tmp_path / "mine.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "caption", "split", "file", "label"])
        for i, clip in enumerate(clips):
            label = "" if i % every == every - 1 else ("bell", "drum")[i % 2]
            table.writerow([clip.id, clip.caption, clip.split, clip.video, label])
    bindings = [
        "run.dataset = @dataset.manifest",
        f"dataset.manifest.file = '{tmp_path / 'mine.csv'}'",
        "run.stages = [@stage.autoencoder]",
        "run.metrics = [@metric.fd, @metric.class_accuracy, @metric.aa_align]",
        "stage.autoencoder.data_filter = @data_filter.none",
    ]
    loaded = recipe.load(["recipes/cn.gin", "recipes/scale/smoke.gin"], bindings, root=Experiment)
    said: list[str] = []
    steps = RunSteps(loaded.build(), Store(tmp_path / "runs"), lambda *loss: None, said.append)
    outcome = steps.run()
    assert any(told in line for line in said) and (outcome.trained.classifier is not None) == measured
    scores = {score.name: score for score in outcome.scores}
    assert ("fd" in scores) == measured and "aa_align" in scores
    if measured:
        assert scores["fd"].unavailable is None
        assert scores["class_accuracy"].unavailable == "the clips' true classes are not known"


def test_sampling_goes_on_with_the_batch_that_it_was_stopped_in(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(waveforms, "BATCH", 3)
    counts = {"train_clips": 2, "validation_clips": 2, "test_clips": 8}
    bindings = [f"dataset.struck_objects.{name} = {count}" for name, count in counts.items()]
    bindings += [
        "run.stages = []",
        "run.classifier = None",
        "run.metrics = []",
        "run.num_inference_steps = 2",
    ]
    loaded = recipe.load(["recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin"], bindings, root=Experiment)

    def steps(output: str) -> RunSteps:
        experiment = replace(loaded.build(), num_waveforms_per_clip=2)
        return RunSteps(experiment, Store(tmp_path / output), lambda *loss: None, lambda line: None)

    def sounds(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.flac")}

    unbroken = steps("unbroken")
    trained = unbroken.train()
    wanted = sounds(unbroken.sample(trained))
    assert len(wanted) == 2 * len(trained.corpus.test_rows) == 16
    once = sounds(replace(unbroken, experiment=loaded.build()).sample(trained))
    assert set(wanted) == {*once, *(f"2/{name}" for name in once)} and len(set(wanted.values())) == 16
    for name in sorted(once)[:6]:  # those in batches of the same clips
        assert once[name] == wanted[name]
    assert 0 < (unbroken.seconds_per_sound() or 0) < 60

    decoded: list[int] = []

    def to_audio(model, z, real=waveforms.to_audio):
        decoded.append(len(z))
        if len(decoded) == 2:
            raise KeyboardInterrupt
        return real(model, z)

    monkeypatch.setattr(waveforms, "to_audio", to_audio)
    stopped = steps("stopped")
    with pytest.raises(KeyboardInterrupt):
        stopped.sample(trained)
    (kept,) = tmp_path.rglob("*.npz")
    shutil.copytree(tmp_path / "stopped", tmp_path / "damaged")
    found = stopped.sample(trained)
    assert sum(decoded[2:]) == len(wanted) - 3
    assert sounds(found) == wanted
    assert not caplog.messages

    kept = tmp_path / "damaged" / kept.relative_to(tmp_path / "stopped")
    for content in (b"", kept.read_bytes()[:99], flipped(kept)):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
        found = steps("damaged").sample(trained)
        assert sounds(found) == wanted
        assert [f"{kept} is damaged (" in message for message in caplog.messages] == [True]
        caplog.clear()
        shutil.rmtree(found)
    assert not list(tmp_path.rglob("*.npz"))


def flipped(path: Path) -> bytes:
    """Content of a file with one bit of its middle turned."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def test_sounds_to_measure_are_kept_in_files_without_a_name(tmp_path: Path):
    """Those of the paper's test clips would be 40 GB of memory."""
    sounds = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    found = in_a_file(tmp_path, (sounds[start : start + 2] for start in (0, 2, 4)))
    np.testing.assert_array_equal(found, sounds)
    owner: Any = found
    while owner.base is not None and not isinstance(owner, np.memmap):
        owner = owner.base
    assert isinstance(owner, np.memmap) and not list(tmp_path.iterdir())
    found[0] = 0  # as any array


def test_features_to_sample_of_are_read_a_batch_at_a_time(monkeypatch):
    monkeypatch.setattr(waveforms, "BATCH", 2)
    model, asked = tiny.model(), []

    class Features:
        def __getitem__(self, rows: list[int]) -> torch.Tensor:
            asked.append(rows)
            return torch.zeros(len(rows), 8, 16)

    settings: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0, "seed": 0}
    settings |= {"sampler": FastSampler(), "scheduler": ddim("epsilon"), "batches": waveforms.batches_of(3)}
    assert len(list(waveforms.generate(model, [Features()], [9, 4, 7], ["a", "b", "c"], **settings))) == 2
    assert asked == [[9, 4], [7]]


def test_a_dataset_without_test_clips_is_refused_before_any_stage_is_trained(tmp_path: Path):
    counts = {"train_clips": 4, "validation_clips": 2, "test_clips": 0}
    bindings = [f"dataset.struck_objects.{name} = {count}" for name, count in counts.items()]
    loaded = recipe.load(["recipes/cn.gin", "recipes/scale/smoke.gin"], bindings, root=Experiment)
    said: list[str] = []
    steps = RunSteps(loaded.build(), Store(tmp_path / "runs"), lambda *loss: None, said.append)
    with pytest.raises(UsageError, match="none of 6 clips is of the split 'test', which a run is measured"):
        steps.train()
    assert not any(line.startswith("stage ") for line in said)


def test_classes_are_not_known_where_a_test_clip_has_no_label():
    sounds = np.zeros((2, 160), np.float32)
    clips = [Clip("a", Path("a.mp4"), "", "test", label="bell"), Clip("b", Path("b.mp4"), "", "test")]
    flows = [ClipFlow(np.zeros(2), 25.0, np.zeros(2))] * 2
    outputs = ClassifierOutputs(
        name="toy", generated_logits=np.eye(2), reference_logits=np.eye(2),
        generated_embeddings=np.eye(2), reference_embeddings=np.eye(2),
    )  # fmt: skip
    samples = evaluation_set(Generated(clips, sounds, sounds, 16_000), flows, outputs, ["bell", "dog"])
    assert ClassAccuracy()(samples).unavailable == "the clips' true classes are not known"
