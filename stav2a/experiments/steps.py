"""One run from the recipe to the report: prepare, train, sample, measure, write down."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stav2a.data.clip import Clip
from stav2a.data.decoded import DecodedClips
from stav2a.data.optical_flow import Farneback
from stav2a.data.prepared.reader import PreparedClips
from stav2a.evaluation.flows import mean_flows
from stav2a.evaluation.samples import Generated, classified, evaluation_set
from stav2a.evaluation.scores import evaluate
from stav2a.experiments.experiment import Experiment, Keys, filter_key
from stav2a.metrics.score import Score
from stav2a.models.stav2a import STAV2A
from stav2a.sampling import waveforms
from stav2a.training.corpus import (
    Corpus,
    Tensors,
    TrainingContext,
    class_names,
    decoded_clips,
    decoded_tensors,
    make_corpus,
    prepared_clips,
    prepared_tensors,
)
from stav2a.training.train import train_stages
from stav2a.utils import distributed
from stav2a.utils.files import write_json
from stav2a.utils.store import Store, load_tensors, save_tensors

Tell = Callable[[str], None]
Log = Callable[[str, float, int], None]


@dataclass(frozen=True)
class RunOutcome:
    """What a run ends with.

    Args:
        model: TrainingOutcome.
        made: The generated sounds beside the real ones.
        scores: One a metric.
        histories: Losses of every stage, by name.
    """

    model: STAV2A
    made: Generated
    scores: Sequence[Score]
    histories: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingOutcome:
    """What training ends with.

    Args:
        model: TrainingOutcome.
        data: The decoded clips.
        corpus: The same as tensors.
        histories: Losses of every stage, by name.
        classifier: The judge of sounds, if the recipe has one.
    """

    model: STAV2A
    data: DecodedClips
    corpus: Corpus
    histories: Mapping[str, Any]
    classifier: Any | None


@dataclass(frozen=True)
class RunSteps:
    """The steps of one run, each taken from the store where it is there.

    Args:
        experiment: What the recipe says.
        store: Finished parts, shared by all runs.
        log: Takes losses: a name, a value, a step.
        tell: Takes a line for people.
    """

    experiment: Experiment
    store: Store
    log: Log
    tell: Tell

    def run(self) -> RunOutcome:
        """Carry out all of it, in the main process."""
        metrics = [metric() for metric in self.experiment.metrics]  # now: what is wrong shows before training
        trained = self.train()
        made = self._sample(trained)
        self.tell("measuring")
        scores = self._measure(made, trained, metrics)
        return RunOutcome(trained.model, made, scores, trained.histories)

    def train(self) -> TrainingOutcome:
        """All in which every process takes part: the data, the stages, the classifier."""
        model = self.experiment.model().to(distributed.device())
        data, tensors = self._prepare(model)
        corpus = make_corpus(data, tensors, model, filter_key, store=self.store, keys=self.keys.blocks)
        self._tell_data(data)
        histories = self._train(model, corpus)
        corpus.features()  # now, while all processes are here: sampling needs them, if no stage did
        return TrainingOutcome(model, data, corpus, histories, self._classifier(model, corpus, data))

    @cached_property
    def keys(self) -> Keys:
        """Under which signatures all of it is stored."""
        return Keys(self.experiment)

    @cached_property
    def _clips(self) -> list[Clip]:
        folder = self.store.root / f"dataset-{self.keys.dataset[:16]}"
        with distributed.main_first(), self.store.exclusive("dataset", self.keys.dataset):
            return list(self.keys.clips.clips(folder))

    def _prepare(self, model: STAV2A) -> tuple[DecodedClips, Tensors]:
        self.tell("data")
        if isinstance(self.keys.clips, PreparedClips):
            cache, detector = self.keys.clips.cache, self.experiment.described("onset_detector")
            return prepared_clips(cache, model, self.keys.filters), prepared_tensors(cache, model, detector)
        data = decoded_clips(
            self._clips,
            model,
            self.experiment.onset_detector(),
            self.keys.filters,
            store=self.store,
            key=self.keys.data,
        )
        return data, decoded_tensors(data, model)

    def _tell_data(self, data: DecodedClips) -> None:
        for name, decisions in data.decisions.items():
            kept = sum(decision.keep for decision in decisions)
            self.tell(f"  {type(self.keys.filters[name]).__name__} keeps {kept} of {len(decisions)} clips")
        for clip, reason in data.failed.items():
            self.tell(f"  left out: {clip}: {reason}")

    def _train(self, model: STAV2A, corpus: Corpus) -> dict[str, Any]:
        return train_stages(
            self.keys.planned,
            model,
            corpus,
            store=self.store,
            seed=self.experiment.seed,
            prediction_type=self.experiment.prediction_type,
            trainer=self.experiment.trainer(),
            log=self.log,
            tell=self.tell,
        )

    def _classifier(self, model: STAV2A, corpus: Corpus, data: DecodedClips) -> Any | None:
        if self.experiment.classifier is None:
            return None
        torch.manual_seed(0)  # the judge is the same for every seed of the variants
        classifier = self.experiment.classifier(classes=len(class_names(data.clips)))
        classifier.to(distributed.device())
        key = self.keys.classifier

        def train() -> Callable[[Path], None]:
            self.tell("classifier of FD, KL, IS and class accuracy: training")
            folder, trainer = self.store.partial("classifier", key), self.experiment.trainer()
            began = time.monotonic()
            history = classifier.fit(
                TrainingContext(model, corpus, folder, 0, "", frozenset(), self.log, trainer)
            )
            seconds = round(time.monotonic() - began, 1)

            def keep(made: Path) -> None:
                save_tensors(made / "model.safetensors", classifier.state_dict())
                write_json(made / "history.json", history)
                write_json(made / "facts.json", {"steps": classifier.steps, "seconds": seconds})

            return keep

        folder = self.store.obtain_together("classifier", key, train)
        classifier.load_state_dict(load_tensors(folder / "model.safetensors"))
        return classifier

    def _sample(self, trained: TrainingOutcome) -> Generated:
        self.tell("sampling the test clips")
        data = trained.data
        rows = [i for i, clip in enumerate(data.clips) if clip.split == "test"]
        clips = [data.clips[i] for i in rows]
        audio = waveforms.generate(
            trained.model,
            trained.corpus.features()[rows],
            [clip.caption for clip in clips],
            sampler=self.experiment.sampler(),
            scheduler=self.experiment.scheduler(prediction_type=self.experiment.prediction_type),
            num_inference_steps=self.experiment.num_inference_steps,
            guidance_scale=self.experiment.guidance_scale,
            seed=self.experiment.seed,
        )
        return Generated(clips, audio, data.audio[rows])

    def _measure(self, made: Generated, trained: TrainingOutcome, metrics: Sequence[Any]) -> Sequence[Score]:
        classifier = trained.classifier
        flow = next((each.flow for each in metrics if hasattr(each, "flow")), Farneback())
        flows, rates = mean_flows(made.clips, flow, store=self.store, key=self.keys.flows)
        heard = classified(classifier, made, name=self._classifier_name) if classifier else None
        classes = class_names(trained.data.clips)
        samples = evaluation_set(made, flows, rates, heard, classes, flow.definition)
        return evaluate(samples, metrics)

    @property
    def _classifier_name(self) -> str:
        dataset = self.experiment.described("dataset")["component"].split(".")[1]
        return f"{dataset} classifier"
