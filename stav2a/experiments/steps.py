"""One run of a recipe: prepare the clips, train, sample, measure."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch

from stav2a import registry
from stav2a.data.clip import Clip, file_stem
from stav2a.data.media import read_audio, write_flac
from stav2a.data.optical_flow import ClipFlow, Farneback
from stav2a.data.prepared.reader import PreparedClips
from stav2a.evaluation.samples import (
    ClipVideos,
    Generated,
    RealSounds,
    classified,
    classifier_outputs,
    evaluation_set,
    in_a_file,
    mean_flows,
)
from stav2a.evaluation.scores import evaluate, mean_of_samplings
from stav2a.experiments.experiment import Experiment, Keys
from stav2a.metrics.registered.judged import missing_judges
from stav2a.metrics.score import Score
from stav2a.models.stav2a import STAV2A
from stav2a.recipe import describing
from stav2a.registry import name_of
from stav2a.sampling import waveforms
from stav2a.slots import Classifier, OpticalFlow
from stav2a.training.corpus import Corpus, DecodedCorpus, PreparedCorpus, class_names
from stav2a.training.objective import History, Log, TrainingContext
from stav2a.training.train import train_once, train_stages
from stav2a.utils import distributed
from stav2a.utils.errors import StaV2AError, printable
from stav2a.utils.files import atomic, write_json
from stav2a.utils.parallel import SideProcess, keep_freed_memory, threads_of, use_threads
from stav2a.utils.progress import beside
from stav2a.utils.store import POLL_EVERY_S, Store, StoreTask

UNREADABLE = (BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError)  # of a zip
SOUND_FACTS = "facts.json"  # beside the sounds
HELPERS_POLL_EVERY_S = 1.0  # longer than the main process takes to go on, which shows progress and tracks
SAMPLING_COST = 0.1  # time of one step of sampling one clip, against a training step of text to audio

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutcome:
    """The trained model and classifier, if the recipe has one, the clips, and the losses of every stage."""

    model: STAV2A
    corpus: Corpus
    histories: Mapping[str, History]
    classifier: Classifier | None


@dataclass(frozen=True)
class RunOutcome:
    """The result of a run: the folder of its sounds, the first of each clip, and one score a metric."""

    trained: TrainingOutcome
    sounds: Path
    made: Generated
    scores: Sequence[Score]


@dataclass(frozen=True)
class RunSteps:
    """The steps of one run, each taken from the store, shared by all runs, where it is there.

    Args:
        log: Callback for losses.
        print_line: Callback for lines of progress.
        jobs: Processes of this machine that train and sample side by side, this one included; see `in_turn`.
            The results do not depend on it.
    """

    experiment: Experiment
    store: Store
    log: Log
    print_line: Callable[[str], None]
    jobs: int = 1

    def run(self) -> RunOutcome:
        """Carry out all steps, in the main process."""
        metrics = [metric() for metric in self.experiment.metrics]  # first, as they refuse wrong settings
        for missing in missing_judges(metrics, has_classifier=self.experiment.classifier is not None):
            self.print_line(f"will not be measured: {missing}")
        flow = next((each.flow for each in metrics if hasattr(each, "flow")), Farneback())
        with Helpers.ended_at_last(self, flow) as helpers:
            trained = self.train(flow, helpers)
            sounds = self.sample(trained, helpers)
        rate = trained.corpus.sample_rate
        clips = [trained.corpus.clips[row] for row in trained.corpus.test_rows]

        def sampled(number: int) -> Iterator[np.ndarray]:
            return (read_audio(sounds / sound_name(clip, number), rate)[None] for clip in clips)

        samplings = map(sampled, range(self.experiment.num_waveforms_per_clip))
        made, scores = self.measure(trained, samplings, flow)
        return RunOutcome(trained, sounds, made, scores)

    def measure(
        self, trained: TrainingOutcome, samplings: Iterable[Iterable[np.ndarray]], flow: OpticalFlow
    ) -> tuple[Generated, list[Score]]:
        """Score sounds of the test clips, whatever made them, by the recipe's metrics.

        Args:
            trained: The clips, and the classifier if there is one.
            samplings: One or more sounds of every clip: for each sampling its sounds in the clips' order, at
                the corpus' rate and of its duration, in parts (B_i, S).
            flow: Optical flow of the clips' videos.

        Returns:
            The sounds of the first sampling, and a score a metric, its mean over the samplings.

        Raises:
            ChangedError: A clip's file is not the one that the corpus was made of.
            MetricError: A metric gives something else than a score.
        """
        possible, _ = self.experiment.with_labels_of(trained.corpus.clips)
        metrics = [metric() for metric in possible.metrics]
        corpus, rows = trained.corpus, trained.corpus.test_rows
        clips, rate = [corpus.clips[row] for row in rows], corpus.sample_rate
        real = RealSounds(corpus, rows, self.store, self.keys.by_kind["clips"])
        references = in_a_file(self.store.root, real.parts())
        self.store.contents.check_unchanged(clip.video for clip in clips)
        self.print_line("measuring")
        flows = mean_flows(clips, flow, store=self.store, key=self.keys.by_kind["flows"])
        examples = RealSounds.of_training(corpus, self.store, self.keys.by_kind["clips"])
        videos = ClipVideos(clips, self.store, self.keys.by_kind["clips"], references.shape[1] / rate)

        real_outputs = None
        if trained.classifier:
            real_outputs = classifier_outputs(trained.classifier, references, rate)

        def scored(audio: Iterable[np.ndarray]) -> tuple[Generated, list[Score]]:
            made = Generated(clips, in_a_file(self.store.root, audio), references, rate)
            outputs = None
            if real_outputs:
                name = f"{name_of(self.experiment.dataset)} classifier"
                outputs = classified(trained.classifier, made, real_outputs, name=name)
            samples = evaluation_set(
                made, flows, outputs, class_names(corpus.clips), flow.definition, examples, videos, real
            )
            return made, evaluate(samples, metrics)

        made, scores = scored(next(samplings := iter(samplings)))
        return made, mean_of_samplings([scores, *(scored(audio)[1] for audio in samplings)])

    def train(
        self,
        flow: OpticalFlow | None = None,
        helpers: "Helpers | None" = None,
        poll_every_s: float = POLL_EVERY_S,
    ) -> TrainingOutcome:
        """Carry out the steps of all processes: the clips, the stages, the classifier.

        Args:
            flow: Optical flow of the test clips; None leaves it for later.
            helpers: Processes that begin to train as well when the clips are there.
            poll_every_s: Time between two looks at the store while another process makes what is needed.

        A classifier is left out where too few clips have a label.

        Raises:
            UsageError: A split, or what a filter keeps of it, has no clip.
        """
        keep_freed_memory()
        model = self.experiment.model()
        self.store.contents.check_unchanged()  # weights that were read just now
        self.print_line("data")
        corpus = self._corpus(model)
        for slot in set(model.slots) - {*corpus.unused_encoders, "vocoder"}:  # nothing reads the others yet
            model.block(slot).to(distributed.device())
        for key, decisions in corpus.decisions.items():
            kept = sum(decision.keep for decision in decisions)
            name = describing.describe(self.keys.filters[key])["component"]
            self.print_line(f"  {name} keeps {kept} of {len(decisions)} clips")
        for clip, reason in corpus.failed.items():
            self.print_line(printable(f"  left out: {clip}: {reason}"))
        possible, lines = self.experiment.with_labels_of(corpus.clips)
        possible.check_clips(corpus.clips, corpus.decisions, self.store.contents)  # of late stages too
        for line in lines:
            self.print_line(f"  {line}")
        if helpers:
            helpers.begin()
        classifier: list[Classifier] = []
        others = []
        if possible.classifier:
            key = self.keys.by_kind["classifier"]
            do = lambda: classifier.append(self._classifier(model, corpus))  # noqa: E731
            others.append(StoreTask("classifier", key, "", frozenset(), do))
        if flow is not None and distributed.count() == 1:  # of several processes the main one makes it later
            clips = [corpus.clips[row] for row in corpus.test_rows]
            do_flows = partial(self._flows, clips, flow)
            others.append(StoreTask("flows", self.keys.by_kind["flows"], "", frozenset(), do_flows))
        histories = train_stages(
            self.keys.planned,
            model,
            corpus,
            store=self.store,
            seed=self.experiment.seed,
            objective=self.experiment.objective(),
            trainer=self.experiment.trainer(),
            log=self.log,
            print_line=self.print_line,
            later=len(self._places(corpus)) * self.experiment.num_inference_steps * SAMPLING_COST,
            others=others,
            poll_every_s=poll_every_s,
        )
        for slot in model.encoders:  # now, while all processes are here: sampling needs them, if no stage did
            corpus.features(slot)
        return TrainingOutcome(model, corpus, histories, classifier[0] if classifier else None)

    def _flows(self, clips: Sequence[Clip], flow: OpticalFlow) -> list[ClipFlow]:
        workers = None if self.jobs == 1 else 1  # the other processes are at work
        return mean_flows(clips, flow, store=self.store, key=self.keys.by_kind["flows"], workers=workers)

    def seconds_per_sound(self) -> float | None:
        """Seconds that sampling, decoder and vocoder took for a sound, on average over the batches.

        None where an older version made the sounds, which did not keep it.
        """
        facts = self.store.path("sounds", self.keys.by_kind["sounds"]) / SOUND_FACTS
        if not facts.is_file():
            return None
        return json.loads(facts.read_text(encoding="utf-8"))["seconds_per_sound"]

    def stage_seconds(self) -> dict[str, float]:
        """Seconds that each stage took when it was trained, by this run or another one."""
        found = {}
        for each in self.keys.planned:
            facts = self.store.path("stage", each.key, each.name) / "facts.json"
            found[each.name] = json.loads(facts.read_text(encoding="utf-8"))["seconds"]
        return found

    @cached_property
    def keys(self) -> Keys:
        """Keys of the run's parts in the store."""
        return Keys(self.experiment, self.store.contents)

    def _corpus(self, model: STAV2A) -> Corpus:
        keys, dataset = self.keys, self.keys.dataset
        if isinstance(dataset, PreparedClips):
            prepared = PreparedCorpus(
                dataset.prepared,
                model,
                onset_detector=self.experiment.described("onset_detector"),
                audio_peak=self.experiment.audio_peak,
                filters=keys.filters,
                store=self.store,
                keys=keys.by_kind,
            )
            prepared.check_encoders()
            return prepared
        with distributed.main_first(), self.store.exclusive("dataset", keys.by_kind["dataset"]):
            clips = dataset.clips(self.store.root / f"dataset-{keys.by_kind['dataset'][:16]}")
        return DecodedCorpus(
            clips,
            model,
            detector=self.experiment.onset_detector(),
            filters={key: factory() for key, factory in keys.filters.items()},
            audio_peak=self.experiment.audio_peak,
            store=self.store,
            keys=keys.by_kind,
        )

    def _classifier(self, model: STAV2A, corpus: Corpus) -> Any:
        assert self.experiment.classifier is not None
        torch.manual_seed(0)  # the classifier is the same for every seed of the variants
        classifier = self.experiment.classifier(classes=len(class_names(corpus.clips)))
        classifier.to(distributed.device())

        def train(folder: Path) -> History:
            self.print_line("classifier of FD, KL, IS and class accuracy: training")
            trainer, objective = self.experiment.trainer(), self.experiment.objective()
            work = TrainingContext(model, corpus, folder, 0, objective, frozenset(), self.log, trainer)
            return classifier.fit(work)

        weights, _, _ = train_once(
            train,
            classifier.state_dict,
            store=self.store,
            kind="classifier",
            key=self.keys.by_kind["classifier"],
            facts={"steps": classifier.steps},
        )
        classifier.load_state_dict(weights)
        return classifier

    def sample(self, trained: TrainingOutcome, helpers: "Helpers | None" = None) -> Path:
        """Make the sounds of the test clips, in all processes: a folder of a flac each, by `sound_name`.

        A batch is kept when it is made, so that a killed run continues with the next.
        """
        corpus, key = trained.corpus, self.keys.by_kind["sounds"]
        places = self._places(corpus)
        batches = waveforms.batches_of(len(places))

        def make() -> Callable[[Path], None]:
            self.print_line("sampling the test clips")
            own = batches[distributed.rank() :: distributed.count()]
            if helpers:
                with helpers.sharing([batch for batch in own if self._kept(batch) is None]) as part:
                    self.make_batches(trained, part)
            self.make_batches(trained, [batch for batch in own if self._kept(batch) is None])
            distributed.wait()

            def fill(folder: Path) -> None:
                seconds = 0.0
                for batch in batches:
                    made = self._kept(batch)
                    assert made is not None  # just written, or checked above
                    seconds += made.seconds
                    for place, audio in zip(batch, made.audio, strict=True):
                        row, sampling = places[place]
                        file = folder / sound_name(corpus.clips[row], sampling)
                        file.parent.mkdir(exist_ok=True)
                        write_flac(file, audio, corpus.sample_rate)
                write_json(folder / SOUND_FACTS, {"seconds_per_sound": seconds / len(places)})

            return fill

        return self.store.obtain_together("sounds", key, make)

    def _places(self, corpus: Corpus) -> list[tuple[int, int]]:
        """Row and sampling of each sound, by its place in the noise's seed: one sampling after another."""
        samplings = range(self.experiment.num_waveforms_per_clip)
        return [(row, sampling) for sampling in samplings for row in corpus.test_rows]

    def make_batches(self, trained: TrainingOutcome, batches: Sequence[range]) -> None:
        """Sample batches of sounds, by their places, and keep each until all are there."""
        corpus, experiment = trained.corpus, self.experiment
        rows = [row for row, _ in self._places(corpus)]
        trained.model.to(distributed.device())
        made = waveforms.generate(
            trained.model,
            [corpus.features(slot) for slot in trained.model.encoders],
            rows,
            [corpus.clips[row].caption for row in rows],
            sampler=experiment.sampler(),
            scheduler=experiment.noise_scheduler(),
            num_inference_steps=experiment.num_inference_steps,
            guidance_scale=experiment.guidance_scale,
            guider=experiment.guider(),
            seed=experiment.seed,
            batches=batches,
            shown=distributed.is_main() and bool(batches),
        )
        began = time.monotonic()
        for batch, audio in zip(batches, made, strict=True):
            with atomic(self._batch_file(batch)) as temporary, temporary.open("wb") as file:
                # a zip, which has a checksum
                np.savez(file, audio=audio, seconds=time.monotonic() - began)
            began = time.monotonic()

    def _batch_file(self, batch: range) -> Path:
        return self.store.partial("sounds", self.keys.by_kind["sounds"]) / f"{batch.start:06}.npz"

    def _kept(self, batch: range) -> "SampledBatch | None":
        return _kept_batch(self._batch_file(batch))


class Helpers:
    """Processes of this machine that train what their run is not training, and sample a part of the clips.

    They read and write the store alone. One that fails costs time only: the run does what is left itself.

    Args:
        steps: The run.
        flow: Optical flow of the test clips.
    """

    def __init__(self, steps: RunSteps, flow: OpticalFlow) -> None:
        self.steps, self.flow = steps, flow
        self.processes: list[SideProcess] = []

    @classmethod
    @contextlib.contextmanager
    def ended_at_last(cls, steps: RunSteps, flow: OpticalFlow) -> "Iterator[Helpers]":
        """Helpers that end with the block, whatever they do."""
        helpers = cls(steps, flow)
        try:
            yield helpers
        finally:
            for process in helpers.processes:
                process.end()

    def begin(self) -> None:
        """Start them, unless the store has all that they could make."""
        steps, store = self.steps, self.steps.store
        if all(store.has(each.kind, each.key, each.name) for each in steps.keys.parts()):
            return
        work = partial(_help, steps.experiment, store.root, self.flow, steps.jobs)
        self.processes = [SideProcess(work) for _ in range(steps.jobs - 1)]
        if self.processes:
            steps.print_line(f"{steps.jobs} processes train and sample side by side")

    @contextlib.contextmanager
    def sharing(self, batches: Sequence[range]) -> Iterator[Sequence[range]]:
        """Give out some batches: the part of this process. After the block the others have made theirs."""
        count = len(self.processes) + 1
        asked = [
            process
            for number, process in enumerate(self.processes, start=1)
            if (part := batches[number::count]) and process.ask(part)
        ]
        yield batches[::count]
        for process in asked:
            if process.answer() is None:
                logger.warning("a process that helped has ended early: its part is made in this one.")


def _help(experiment: Experiment, root: Path, flow: OpticalFlow, jobs: int, pipe: Connection) -> None:
    """Work of a helper: train with the others, then make the batches that are asked for.

    An error of the recipe's ends it without a message, as the main process raises it too.
    """
    registry.load()
    use_threads(threads_of(jobs))
    steps = RunSteps(experiment, Store(root), lambda *loss: None, lambda line: None, jobs)
    with beside(), contextlib.suppress(EOFError, ConnectionError, StaV2AError):
        trained = steps.train(flow, poll_every_s=HELPERS_POLL_EVERY_S)
        while True:
            steps.make_batches(trained, pipe.recv())
            pipe.send(True)


class SampledBatch(NamedTuple):
    """Sounds of a batch (B, S), and the seconds that they took."""

    audio: np.ndarray
    seconds: float


def _kept_batch(path: Path) -> SampledBatch | None:
    """A batch that was finished before; None where there is none, with a warning if damaged."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return SampledBatch(file["audio"], float(file["seconds"]))
    except UNREADABLE as error:
        logger.warning("%s is damaged (%s): its sounds are made again.", path, error)
        return None


def sound_name(clip: Clip, sampling: int = 0) -> str:
    """Name of the file of a clip's generated sound; further samplings have folders `2`, `3` and so on."""
    name = f"{file_stem(clip.id)}.flac"
    return f"{sampling + 1}/{name}" if sampling else name
