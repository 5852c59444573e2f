"""One run from the recipe to the report: prepare, train, sample, measure, write down."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stav2a import cached, preparation, processes, results
from stav2a.assembly import STAV2A
from stav2a.data.cache.dataset import PreparedClips
from stav2a.data.clip import Clip
from stav2a.data.flow import Farneback
from stav2a.data.prepare import Prepared
from stav2a.evaluation import evaluate
from stav2a.experiment import Experiment
from stav2a.keys import Keys, filter_key
from stav2a.metrics.sets import Score
from stav2a.store import Store, load_tensors, save_tensors, write_json
from stav2a.training.plan import train_stages
from stav2a.training.work import Corpus, Work

Tell = Callable[[str], None]
Log = Callable[[str, float, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a run ends with.

    Args:
        model: Trained.
        made: The generated sounds beside the real ones.
        scores: One a metric.
        histories: Losses of every stage, by name.
    """

    model: STAV2A
    made: results.Generated
    scores: Sequence[Score]
    histories: Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """What training ends with.

    Args:
        model: Trained.
        data: The decoded clips.
        corpus: The same as tensors.
        histories: Losses of every stage, by name.
        classifier: The judge of sounds, if the recipe has one.
    """

    model: STAV2A
    data: Prepared
    corpus: Corpus
    histories: Mapping[str, Any]
    classifier: Any | None


@dataclass(frozen=True)
class Pipeline:
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

    def run(self) -> Outcome:
        """Carry out all of it, in the main process."""
        metrics = [metric() for metric in self.experiment.metrics]  # now: what is wrong shows before training
        trained = self.train()
        made = self._sample(trained)
        self.tell("measuring")
        scores = self._measure(made, trained, metrics)
        return Outcome(trained.model, made, scores, trained.histories)

    def train(self) -> Trained:
        """All in which every process takes part: the data, the stages, the classifier."""
        model = self.experiment.model().to(processes.device())
        data, tensors = self._prepare(model)
        corpus = preparation.corpus(data, tensors, model, filter_key, store=self.store, keys=self.keys.blocks)
        self._tell_data(data)
        histories = self._train(model, corpus)
        corpus.features()  # now, while all processes are here: sampling needs them, if no stage did
        return Trained(model, data, corpus, histories, self._classifier(model, corpus, data))

    @cached_property
    def keys(self) -> Keys:
        """Under which signatures all of it is stored."""
        return Keys(self.experiment)

    @cached_property
    def _clips(self) -> list[Clip]:
        folder = self.store.root / f"dataset-{self.keys.dataset[:16]}"
        with processes.main_first(), self.store.alone("dataset", self.keys.dataset):
            return list(self.keys.clips.clips(folder))

    def _prepare(self, model: STAV2A) -> tuple[Prepared, preparation.Tensors]:
        self.tell("data")
        if isinstance(self.keys.clips, PreparedClips):
            cache, detector = self.keys.clips.cache, self.experiment.described("onset_detector")
            return cached.data(cache, model, self.keys.filters), cached.tensors(cache, model, detector)
        data = preparation.prepared(
            self._clips,
            model,
            self.experiment.onset_detector(),
            self.keys.filters,
            store=self.store,
            key=self.keys.data,
        )
        return data, preparation.tensors(data, model)

    def _tell_data(self, data: Prepared) -> None:
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

    def _classifier(self, model: STAV2A, corpus: Corpus, data: Prepared) -> Any | None:
        if self.experiment.classifier is None:
            return None
        torch.manual_seed(0)  # the judge is the same for every seed of the variants
        classifier = self.experiment.classifier(classes=len(preparation.class_names(data.clips)))
        classifier.to(processes.device())
        key = self.keys.classifier

        def train() -> Callable[[Path], None]:
            self.tell("classifier of FD, KL, IS and class accuracy: training")
            folder, trainer = self.store.partial("classifier", key), self.experiment.trainer()
            began = time.monotonic()
            history = classifier.fit(Work(model, corpus, folder, 0, "", frozenset(), self.log, trainer))
            seconds = round(time.monotonic() - began, 1)

            def keep(made: Path) -> None:
                save_tensors(made / "model.safetensors", classifier.state_dict())
                write_json(made / "history.json", history)
                write_json(made / "facts.json", {"steps": classifier.steps, "seconds": seconds})

            return keep

        folder = self.store.obtain_together("classifier", key, train)
        classifier.load_state_dict(load_tensors(folder / "model.safetensors"))
        return classifier

    def _sample(self, trained: Trained) -> results.Generated:
        self.tell("sampling the test clips")
        data = trained.data
        rows = [i for i, clip in enumerate(data.clips) if clip.split == "test"]
        clips = [data.clips[i] for i in rows]
        audio = results.generate(
            trained.model,
            trained.corpus.features()[rows],
            [clip.caption for clip in clips],
            sampler=self.experiment.sampler(),
            scheduler=self.experiment.scheduler(prediction_type=self.experiment.prediction_type),
            num_inference_steps=self.experiment.num_inference_steps,
            guidance_scale=self.experiment.guidance_scale,
            seed=self.experiment.seed,
        )
        return results.Generated(clips, audio, data.audio[rows])

    def _measure(self, made: results.Generated, trained: Trained, metrics: Sequence[Any]) -> Sequence[Score]:
        classifier = trained.classifier
        flow = next((each.flow for each in metrics if hasattr(each, "flow")), Farneback())
        flows, rates = preparation.mean_flows(made.clips, flow, store=self.store, key=self.keys.flows)
        heard = results.classified(classifier, made, name=self._classifier_name) if classifier else None
        classes = preparation.class_names(trained.data.clips)
        samples = results.evaluation_set(made, flows, rates, heard, classes, flow.definition)
        return evaluate(samples, metrics)

    @property
    def _classifier_name(self) -> str:
        dataset = self.experiment.described("dataset")["component"].split(".")[1]
        return f"{dataset} classifier"
