"""Processes that train and sample side by side for one run."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stav2a import recipe
from stav2a.experiments.experiment import Experiment, Keys
from stav2a.experiments.steps import Helpers, RunSteps
from stav2a.sampling import waveforms
from stav2a.training import train
from stav2a.utils.contents import Contents
from stav2a.utils.store import Store

COUNTS = {"train_clips": 8, "validation_clips": 4, "test_clips": 6}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    bindings = [f"dataset.struck_objects.{name} = {count}" for name, count in COUNTS.items()]
    bindings += ["run.metrics = [@metric.av_align]", "data_filter.av_align.threshold = 0.0"]
    names = ["recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin"]
    return recipe.load(names, bindings, root=Experiment).build()


def steps(experiment: Experiment, root: Path, lines: list[str], jobs: int) -> RunSteps:
    return RunSteps(experiment, Store(root), lambda *loss: None, lines.append, jobs)


@pytest.fixture(scope="module")
def alone(experiment, tmp_path_factory) -> Path:
    """Store of a run by one process."""
    root = tmp_path_factory.mktemp("alone")
    steps(experiment, root, [], jobs=1).run()
    return root


def bits(root: Path) -> dict[str, bytes]:
    """Weights and sounds of a store."""
    files = [*root.glob("stage-*/*.safetensors"), *root.glob("*/*.flac"), *root.glob("classifier-*/*.saf*")]
    assert len(files) == 7 + COUNTS["test_clips"] + 1
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture
def small_batches(monkeypatch) -> None:
    monkeypatch.setattr(waveforms, "BATCH", 3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_come_to_the_bits_of_one(experiment, alone, tmp_path, monkeypatch, caplog):
    key = next(p.key for p in Keys(experiment, Contents()).planned if p.name == "contrastive")

    def patient(tasks: Any, store: Store, *rest: Any, real: Any = train.in_turn) -> Iterator[Any]:
        """Leave the contrastive stage to the other process, however fast this one is."""
        for number, task in enumerate(real(tasks, store, *rest)):
            yield task
            while number == 0 and not store.has("stage", key, "contrastive"):
                time.sleep(0.05)

    monkeypatch.setattr(train, "in_turn", patient)
    lines: list[str] = []
    steps(experiment, tmp_path, lines, jobs=2).run()
    assert "2 processes train and sample side by side" in lines
    assert "stage 2/7  autoencoder: training" in lines and "stage 1/7  contrastive: from the store" in lines
    assert bits(tmp_path) == bits(alone)
    assert not caplog.messages


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_that_dies_costs_time_only(experiment, alone, tmp_path, monkeypatch, caplog):
    def begin(helpers: Helpers, real: Any = Helpers.begin) -> None:
        real(helpers)
        for process in helpers.processes:
            process.process.kill()

    monkeypatch.setattr(Helpers, "begin", begin)
    steps(experiment, tmp_path, [], jobs=2).run()
    assert bits(tmp_path) == bits(alone)
