"""Input and output of metrics: an evaluation set and a score."""

import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import NamedTuple, Protocol

import numpy as np

from stav2a.metrics.batches import extract_all
from stav2a.utils.errors import StaV2AError


class MetricError(StaV2AError):
    """An input that a metric can't measure: what came, what was expected, what to do."""


# audio (S,) and its rate in Hz -> its features: onsets, embeddings. Equal sounds give equal arrays.
FeatureExtractor = Callable[[np.ndarray, int], np.ndarray]


class PairedFeatures(NamedTuple):
    """Features of each clip's two sounds, in the order of the clips."""

    generated: list[np.ndarray]
    references: list[np.ndarray]


class Sounds(Protocol):
    """Generated sounds beside the real ones, clip by clip, both as long as the shorter of them."""

    @property
    def definition(self) -> str:
        """Description of the sounds, for the definition of a score."""

    def __len__(self) -> int: ...

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        """Features of all sounds; computed once, however many metrics ask for them."""

    def duration_s(self, clip: int) -> float:
        """Common duration of a clip's two sounds, in seconds."""


class Watcher(Protocol):
    """Extractor of features of a picture; equal definitions give equal features."""

    @property
    def definition(self) -> str: ...

    def frame_times_s(self, duration_s: float) -> np.ndarray:
        """Times (L,) of the frames that it takes of a clip."""

    def film_times_s(self, film_s: np.ndarray, duration_s: float) -> np.ndarray:
        """Times (L,) of those that it takes of a clip whose film has frames at these times (N,)."""

    def fit(self, frame: np.ndarray) -> np.ndarray:
        """One frame (H, W, 3) as it takes it."""

    def watched(self, frames: np.ndarray) -> np.ndarray:
        """Features of the fitted frames (L, ...)."""


class VideoFeatures(NamedTuple):
    """Features of the pictures by clip, and the reason by clip where there are none."""

    features: Mapping[int, np.ndarray]
    faults: Mapping[int, str]


class Videos(Protocol):
    """The clips' films, each as long as the clip's sounds."""

    def __len__(self) -> int: ...

    def features(self, watcher: Watcher) -> VideoFeatures:
        """Features of all pictures; computed once, however many metrics ask for them."""


class LabelledSounds(Protocol):
    """Real sounds of known classes beside an evaluation set: those that the model was trained on."""

    @property
    def labels(self) -> np.ndarray:
        """Their classes (N,), counted as those of the set."""

    def features(self, extractor: FeatureExtractor) -> list[np.ndarray]:
        """Features of each sound, in the labels' order."""


@dataclass(frozen=True, kw_only=True)
class ArraySounds:
    """Sounds in memory.

    Args:
        generated: Generated sounds, (S_i,) each, in [-1, 1].
        references: The clips' real sounds, (S_i,) each.
        sample_rate: Sampling rate of both, in Hz.
        reference_features: Function that gives an extractor's features of the whole real sounds, where they
            are known. Used where each generated sound is at least as long as its real one.

    Raises:
        MetricError: Different numbers of sounds; a sound that is empty, not mono, or not finite.
    """

    generated: Sequence[np.ndarray]
    references: Sequence[np.ndarray]
    sample_rate: int
    reference_features: Callable[[FeatureExtractor], list[np.ndarray]] | None = None
    _known: dict[object, PairedFeatures] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.generated) != len(self.references):
            raise MetricError(
                f"{len(self.generated)} generated sounds but {len(self.references)} real ones. "
                "Give one of each a clip."
            )
        for side in ("generated", "references"):
            for place, sound in enumerate(getattr(self, side)):
                what = f"sound {place} of the {side}"
                if np.ndim(sound) != 1 or not np.size(sound):
                    shape = np.shape(sound)
                    raise MetricError(f"{what} is of shape {shape}. Give mono samples (S,), at least one.")
                if not np.isfinite(sound).all():
                    raise MetricError(f"{what} holds samples that are not finite.")

    @property
    def definition(self) -> str:
        return f"sound at {self.sample_rate} Hz"

    def __len__(self) -> int:
        return len(self.generated)

    def duration_s(self, clip: int) -> float:
        return min(len(self.generated[clip]), len(self.references[clip])) / self.sample_rate

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        key = feature_key(extractor)
        if key not in self._known:
            pairs = list(zip(self.generated, self.references, strict=True))
            whole = all(len(generated) >= len(real) for generated, real in pairs)
            known = self.reference_features(extractor) if self.reference_features and whole else None
            if known is None:
                sounds = (side for ours, real in pairs for side in (ours[: len(real)], real[: len(ours)]))
                found = self._extracted(extractor, sounds)
                self._known[key] = PairedFeatures(found[::2], found[1::2])
            else:
                found = self._extracted(extractor, (ours[: len(real)] for ours, real in pairs))
                self._known[key] = PairedFeatures(found, known)
        return self._known[key]

    def _extracted(self, extractor: FeatureExtractor, sounds: Iterable[np.ndarray]) -> list[np.ndarray]:
        return extract_all(extractor, ((sound, self.sample_rate) for sound in sounds))


def describe(extractor: FeatureExtractor) -> str:
    """Description of an extractor for definitions: its own `definition`, or its name and public settings."""
    if definition := getattr(extractor, "definition", None):
        return str(definition)
    if isinstance(extractor, FunctionType):
        return extractor.__name__
    settings = ", ".join(f"{k}={v!r}" for k, v in vars(extractor).items() if not k.startswith("_"))
    return f"{type(extractor).__name__}({settings})"


def feature_key(extractor: FeatureExtractor) -> object:
    """Equal for extractors of equal definition, or class and settings; else the extractor itself."""
    if definition := getattr(extractor, "definition", None):
        return definition
    try:
        return pickle.dumps(extractor)
    except (pickle.PicklingError, AttributeError, TypeError):
        return extractor


@dataclass(frozen=True, kw_only=True)
class ClassifierOutputs:
    """Outputs of one classifier for the generated and for the real sounds.

    Args:
        name: Name of the classifier.
        generated_logits: Logits of the generated sounds.
        reference_logits: Logits of the real sounds.
        generated_embeddings: Embeddings of the generated sounds.
        reference_embeddings: Embeddings of the real sounds.
        definition: Name, front end and weights of the classifier; its name alone by default.

    Shapes:
        logits (N, C); embeddings (N, D); row i belongs to clip i on both sides
    """

    name: str
    generated_logits: np.ndarray
    reference_logits: np.ndarray
    generated_embeddings: np.ndarray
    reference_embeddings: np.ndarray
    definition: str = ""

    def __post_init__(self) -> None:
        arrays = {name: value for name, value in vars(self).items() if name not in ("name", "definition")}
        shapes = {name: np.shape(value) for name, value in arrays.items()}
        if len({shape[:1] for shape in shapes.values()}) != 1 or any(len(s) != 2 for s in shapes.values()):
            given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise MetricError(f"{self.name} gave {given}. Give one row a clip in each.")

    def __len__(self) -> int:
        return len(self.generated_logits)

    @property
    def described(self) -> str:
        """Its definition, or at least its name."""
        return self.definition or self.name


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Generated sounds beside the real ones, clip by clip, and other data of the clips.

    Args:
        ids: One name a clip, all different.
        sounds: The clips' sounds, in the same order.
        flows: Mean flow magnitude a frame of each clip's video (L_i,), or None for a clip without.
        frame_rate_hz: Frame rate of each clip's video; needed with `flows`.
        frame_times_s: Times of each video's frames (L_i,); by default i / frame_rate_hz.
        flow_definition: Definition of the flow, for that of AV-Align.
        true_onsets_s: The exactly known onsets of each clip, in seconds.
        labels: The true classes (N,), as the classifier counts them.
        examples: Real sounds of the same classes, none of them in the set.
        vague: Captions (N,) that don't name the class, as booleans.
        captions: Texts that the sounds were generated from.
        videos: The clips' films.
        classifier: See `ClassifierOutputs`.

    Raises:
        MetricError: Lists of different lengths, equal ids, flows without their frame rates.
    """

    ids: Sequence[str]
    sounds: Sounds
    flows: Sequence[np.ndarray | None] | None = None
    frame_rate_hz: Sequence[float] | None = None
    frame_times_s: Sequence[np.ndarray | None] | None = None
    flow_definition: str = "as given"
    true_onsets_s: Sequence[np.ndarray] | None = None
    labels: np.ndarray | None = None
    vague: np.ndarray | None = None
    captions: Sequence[str] | None = None
    videos: Videos | None = None
    classifier: ClassifierOutputs | None = None
    examples: LabelledSounds | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise MetricError("there is no clip to evaluate. Give at least one.")
        if len(set(self.ids)) != len(self.ids):
            twice = sorted(i for i in set(self.ids) if list(self.ids).count(i) > 1)
            raise MetricError(
                f"clip ids occur twice: {', '.join(twice[:5])}. Give each clip a name of its own."
            )
        if self.flows is not None and self.frame_rate_hz is None:
            raise MetricError("flows came without frame_rate_hz. Give each video's frame rate.")
        for name, values in vars(self).items():
            per_clip = values is not None and name not in ("ids", "flow_definition", "examples")
            if per_clip and len(values) != len(self.ids):
                raise MetricError(f"{len(self.ids)} ids but {len(values)} {name}. Give one of each a clip.")

    def __len__(self) -> int:
        return len(self.ids)


RELEASED = "_released"  # end of a score's name: the form of the paper's authors, where that is another one
FLOOR = "bias floor (a perfect generator at this n)"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure, and all that is needed to read it.

    Args:
        name: Short and stable name, as in a metric store. Other ways of counting have another name.
        label: Name in a table.
        definition: Exact definition of the figure; the judge aside.
        higher_is_better: Direction of the metric.
        judge: Classifier with its front end and weights, or onset detector; empty where there is none.
        counterpart: Name of the score that measures the same by another judge; empty where there is none.
        value: The figure; NaN where there is none.
        n: Number of clips that it rests on.
        samplings: Number of sounds of each clip that it is the mean over.
        low: Lower end of its 95 % bootstrap interval over clips.
        high: Upper end of the interval.
        draws: Number of bootstrap draws.
        seed: Seed of the draws and of the shuffles.
        centred: True if the draws were moved onto the value, as for statistics of the whole set; such an
            interval holds at this n only.
        chance: Level by chance: the figure with the clips' references shuffled.
        others: Number of other clips that each clip was compared with for the level by chance.
        corrected: (value - chance) / (1 - chance).
        corrected_low: Lower end of the corrected value's interval.
        corrected_high: Upper end of the corrected value's interval.
        floor: Bias floor of a distance: the figure of a perfect generator at this n.
        extras: Further figures beside it, by name.
        per_clip: Value by clip id, of the clips that have one, where the figure is their mean.
        skipped: Reason by clip id, of the clips that have no value.
        unavailable: Reason why there is no figure at all.
        replicates: Values of a statistic of the whole set at each bootstrap draw of the clips, not centred:
            figures of the same n, draws and seed can be compared pair by pair. A mean has `per_clip` instead.
    """

    name: str
    label: str
    definition: str
    higher_is_better: bool
    judge: str = ""
    counterpart: str = ""
    value: float = math.nan
    n: int = 0
    samplings: int = 1
    low: float | None = None
    high: float | None = None
    draws: int = 0
    seed: int = 0
    centred: bool = False
    chance: float | None = None
    others: int = 0
    corrected: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    floor: float | None = None
    extras: Mapping[str, float] = field(default_factory=dict)
    per_clip: Mapping[str, float] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    unavailable: str | None = None
    replicates: Sequence[float] | None = None

    @property
    def described(self) -> str:
        """The definition with the judge: figures of different descriptions must not be compared."""
        return f"{self.definition}, by {self.judge}" if self.judge else self.definition

    @property
    def beside(self) -> dict[str, float]:
        """Figures to show beside it, by name: the bias floor and the extras."""
        return {**({} if self.floor is None else {FLOOR: self.floor}), **self.extras}

    @property
    def arrow(self) -> str:
        """Arrow towards the better values."""
        return "↑" if self.higher_is_better else "↓"
