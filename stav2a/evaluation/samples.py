"""The sounds of a trained model for the test clips, and the arrays that metrics need about them."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stav2a.data.clip import Clip
from stav2a.data.media import decode, read_video
from stav2a.data.mel import SAMPLE_RATE, log_mels
from stav2a.data.optical_flow import ClipFlow, load_flows, save_flows
from stav2a.metrics.batches import extract_all
from stav2a.metrics.score import (
    ArraySounds,
    ClassifierOutputs,
    EvaluationSet,
    FeatureExtractor,
    MetricError,
    VideoFeatures,
    Watcher,
    describe,
    feature_key,
)
from stav2a.recipe.describing import signature
from stav2a.slots import OpticalFlow
from stav2a.training.corpus import AT_ONCE, Corpus
from stav2a.utils.distributed import device
from stav2a.utils.parallel import parallel
from stav2a.utils.progress import progress
from stav2a.utils.store import Store

FEATURES = "features.npz"
PICTURES = "features.npy"
CLASSIFIED = 1024  # sounds that the dataset's own classifier takes together


@dataclass(frozen=True)
class Generated:
    """Sounds made for the test clips, and the clips' own.

    Args:
        clips: The clips, in the rows' order.
        audio: Generated sounds (N, S).
        references: The clips' sounds (N, S).
        sample_rate: Sampling rate of both, in Hz.
    """

    clips: Sequence[Clip]
    audio: np.ndarray
    references: np.ndarray
    sample_rate: int


def in_a_file(folder: Path, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Parts of an array as one, in a file without a name, which is removed with the array.

    The sounds of the paper's 15,446 test clips are 10 GB: memory that the system can take back.

    Shapes:
        float32 (B_i, S) -> (N, S)

    Example:
        >>> in_a_file(Path("."), iter(np.ones((3, 2, 4), np.float32))).shape
        (6, 4)
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, np.float32).data)
        file.flush()
        whole = np.memmap(file, np.float32, mode="c")  # as writable as any array
    return np.asarray(whole).reshape(-1, part.shape[1])


@dataclass(frozen=True)
class RealSounds:
    """Real sounds of a corpus' clips, whose features are extracted once; a `score.LabelledSounds`.

    Args:
        corpus: The clips.
        rows: Rows of the clips, all of which have a class where `labels` is read.
        store: Store of the features.
        key: Key of the clips in the store.
    """

    corpus: Corpus
    rows: Sequence[int]
    store: Store
    key: str
    _known: dict[object, list[np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of_training(cls, corpus: Corpus, store: Store, key: str) -> "RealSounds":
        """Those of the training clips that have a class."""
        rows = [i for i, clip in enumerate(corpus.clips) if clip.split == "train" and clip.label]
        return cls(corpus, rows, store, key)

    @property
    def labels(self) -> np.ndarray:
        """Their classes (N,), counted as the corpus' classes."""
        return self.corpus.labels[list(self.rows)].numpy()

    def parts(self) -> Iterator[np.ndarray]:
        """The sounds (B_i, S), a part at a time."""
        starts = range(0, len(self.rows), AT_ONCE)
        return (self.corpus.audio(list(self.rows[start : start + AT_ONCE])) for start in starts)

    def features(self, extractor: FeatureExtractor) -> list[np.ndarray]:
        """Features of each sound, N arrays, extracted once.

        Those of an extractor with a `definition`, such as a judge, are kept in the store; those of others,
        whose code may change, in memory.

        Raises:
            MetricError: An extractor with a definition gives objects, which are not written.
        """
        if not getattr(extractor, "definition", None):
            key = feature_key(extractor)
            if key not in self._known:
                self._known[key] = self._extracted(extractor)
            return self._known[key]

        def make(folder: Path) -> None:
            found = self._extracted(extractor)
            if any(each.dtype.hasobject for each in found):
                raise MetricError(f"{describe(extractor)} gives arrays of objects, expected numbers.")
            np.savez(folder / FEATURES, *found)

        ids = [self.corpus.clips[row].id for row in self.rows]
        definition = [describe(extractor), getattr(extractor, "version", None)]
        folder = self.store.obtain("judged", signature([self.key, definition, "sound", ids]), make)
        with np.load(folder / FEATURES, allow_pickle=False) as file:
            return list(file.values())

    def _extracted(self, extractor: FeatureExtractor) -> list[np.ndarray]:
        sounds = ((sound, self.corpus.sample_rate) for part in self.parts() for sound in part)
        return extract_all(extractor, sounds)


@dataclass(frozen=True)
class ClipVideos:
    """The clips' films, as `metrics.score.Videos`.

    Args:
        clips: The clips.
        store: Store of the features.
        key: Key of the clips in the store.
        duration_s: Duration of the sounds.
    """

    clips: Sequence[Clip]
    store: Store
    key: str
    duration_s: float

    def __len__(self) -> int:
        return len(self.clips)

    def features(self, watcher: Watcher) -> VideoFeatures:
        """Features of each picture, from the store if an earlier run left them there."""
        try:
            watcher.frame_times_s(self.duration_s)
        except MetricError as error:
            return VideoFeatures({}, dict.fromkeys(range(len(self)), str(error)))

        chosen = partial(watcher.film_times_s, duration_s=self.duration_s)

        def make(folder: Path) -> None:
            with progress(len(self), "pictures of the test clips", "clip") as bar:
                films = (
                    read_video(clip.video, times_s=chosen, fit=watcher.fit)
                    for clip in bar.counted(self.clips)
                )
                np.save(folder / PICTURES, np.stack([watcher.watched(each) for each in films]))
            self.store.contents.check_unchanged(clip.video for clip in self.clips)

        key = signature([self.key, watcher.definition, "picture", [clip.id for clip in self.clips]])
        found = np.load(self.store.obtain("judged", key, make) / PICTURES, allow_pickle=False)
        return VideoFeatures(dict(enumerate(found)), {})


def mean_flows(
    clips: Sequence[Clip], flow: OpticalFlow, *, store: Store, key: str, workers: int | None = None
) -> list[ClipFlow]:
    """Mean flow of every frame of the test clips, at their own size and rate, from the store or made now.

    Args:
        clips: The clips.
        flow: Optical flow.
        store: Store of the result.
        key: Its key.
        workers: Worker processes; by default one a core.
    """

    def make(folder: Path) -> None:
        work = partial(_flow_of, flow)
        found = parallel(work, clips, workers=workers, description="optical flow of the test clips")
        save_flows(folder, list(found))
        store.contents.check_unchanged(clip.video for clip in clips)

    found = load_flows(store.obtain("flows", key, make))
    if len(found) != len(clips):
        store.set_aside("flows", key, f"it holds {len(found)} clips of {len(clips)}")
        found = load_flows(store.obtain("flows", key, make))
    return found


def _flow_of(flow: OpticalFlow, clip: Clip) -> ClipFlow:
    return ClipFlow.of(decode(clip.video), flow)


@torch.no_grad()
def classifier_outputs(classifier: Any, audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embeddings of sounds by the dataset's own classifier.

    Shapes:
        audio (N, S) -> (N, C), (N, D)
    """
    classifier.eval()
    parts = np.array_split(audio, range(CLASSIFIED, len(audio), CLASSIFIED))
    found = [classifier(log_mels(part, sample_rate).to(device())) for part in parts]
    logits, embeddings = (torch.cat(each).cpu().numpy() for each in zip(*found, strict=True))
    return logits, embeddings


def classified(
    classifier: Any, made: Generated, references: tuple[np.ndarray, np.ndarray], *, name: str
) -> ClassifierOutputs:
    """Outputs of the dataset's own classifier for the generated sounds, beside those of the real ones."""
    logits, embeddings = classifier_outputs(classifier, made.audio, made.sample_rate)
    resampled = f", of sound resampled from {made.sample_rate} to {SAMPLE_RATE} Hz"
    return ClassifierOutputs(
        name=name,
        definition="" if made.sample_rate == SAMPLE_RATE else name + resampled,
        generated_logits=logits,
        reference_logits=references[0],
        generated_embeddings=embeddings,
        reference_embeddings=references[1],
    )


def evaluation_set(
    made: Generated,
    flows: Sequence[ClipFlow],
    classifier: ClassifierOutputs | None,
    classes: Sequence[str],
    flow: str = "Farneback",
    examples: RealSounds | None = None,
    videos: ClipVideos | None = None,
    references: RealSounds | None = None,
) -> EvaluationSet:
    """The arrays about the test clips that metrics may need.

    Args:
        made: The sounds.
        flows: Flows of the clips' videos.
        classifier: Outputs of the dataset's own classifier.
        classes: Names of the classes.
        flow: Name of the optical flow.
        examples: Real sounds of the training clips.
        videos: The clips' films.
        references: The clips' sounds, for features that are extracted once for all samplings.
    """
    clips = made.clips
    known = all(clip.onsets_s is not None for clip in clips)
    labels = [clip.label for clip in clips if clip.label]
    labelled = len(labels) == len(clips)
    return EvaluationSet(
        ids=[clip.id for clip in clips],
        sounds=ArraySounds(
            generated=list(made.audio),
            references=list(made.references),
            sample_rate=made.sample_rate,
            reference_features=references.features if references else None,
        ),
        flows=[each.motion for each in flows],
        frame_rate_hz=[each.frame_rate_hz for each in flows],
        frame_times_s=[each.times_s for each in flows],
        flow_definition=f"{flow} at the native size and rate",
        true_onsets_s=[np.array(clip.onsets_s) for clip in clips] if known else None,
        labels=np.array([classes.index(label) for label in labels]) if labelled else None,
        vague=np.array([bool(clip.vague) for clip in clips]),
        captions=[clip.caption for clip in clips],
        videos=videos,
        classifier=classifier,
        examples=examples if examples and examples.rows else None,
    )
