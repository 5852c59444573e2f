"""What a metric is given, and what it gives back."""

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import NamedTuple, Protocol

import numpy as np

from stav2a.utils.errors import StaV2AError


class MetricError(StaV2AError):
    """A metric was given something it can't measure: what came, what was expected, what to do."""


# audio (S,) and its rate in Hz -> its features: onsets, embeddings. Equal sounds give equal arrays.
FeatureExtractor = Callable[[np.ndarray, int], np.ndarray]


class PairedFeatures(NamedTuple):
    """What an extractor made of each clip's two sounds, in the order of the clips."""

    generated: list[np.ndarray]
    references: list[np.ndarray]


class Sounds(Protocol):
    """Generated sounds beside the real ones, clip by clip, both as long as the shorter of them."""

    @property
    def definition(self) -> str:
        """Which sounds: for the definition of a score."""

    def __len__(self) -> int: ...

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        """What an extractor makes of all of them; listened to once, however many metrics ask."""

    def duration_s(self, clip: int) -> float:
        """How long both sounds of a clip are taken, in seconds."""


@dataclass(frozen=True, kw_only=True)
class ArraySounds:
    """Sounds in memory.

    Args:
        generated: Generated sounds, (S_i,) each, in [-1, 1].
        references: The clips' real sounds, (S_i,) each.
        sample_rate: Of both, in Hz.

    Raises:
        MetricError: Different numbers of sounds; a sound that is empty, not mono, or not finite.
    """

    generated: Sequence[np.ndarray]
    references: Sequence[np.ndarray]
    sample_rate: int
    _heard: dict[object, PairedFeatures] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.generated) != len(self.references):
            raise MetricError(
                f"{len(self.generated)} generated sounds but {len(self.references)} real ones. "
                "Give one of each a clip."
            )
        for side in ("generated", "references"):
            for place, sound in enumerate(getattr(self, side)):
                _check_sound(sound, f"sound {place} of the {side}")

    @property
    def definition(self) -> str:
        return f"sound at {self.sample_rate} Hz"

    def __len__(self) -> int:
        return len(self.generated)

    def duration_s(self, clip: int) -> float:
        return min(len(self.generated[clip]), len(self.references[clip])) / self.sample_rate

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        key = _key(extractor)
        if key not in self._heard:
            self._heard[key] = self._listen(extractor)
        return self._heard[key]

    def _listen(self, extractor: FeatureExtractor) -> PairedFeatures:
        heard = PairedFeatures([], [])
        for ours, theirs in zip(self.generated, self.references, strict=True):
            samples = min(len(ours), len(theirs))
            heard.generated.append(np.asarray(extractor(ours[:samples], self.sample_rate)))
            heard.references.append(np.asarray(extractor(theirs[:samples], self.sample_rate)))
        return heard


def describe(extractor: FeatureExtractor) -> str:
    """An extractor in words, for definitions: its own `definition`, or its name and public settings."""
    if definition := getattr(extractor, "definition", None):
        return str(definition)
    if isinstance(extractor, FunctionType):
        return extractor.__name__
    settings = ", ".join(f"{k}={v!r}" for k, v in vars(extractor).items() if not k.startswith("_"))
    return f"{type(extractor).__name__}({settings})"


def _key(extractor: FeatureExtractor) -> object:
    """Equal for extractors of equal definition, or class and settings; else the extractor itself."""
    if definition := getattr(extractor, "definition", None):
        return definition
    try:
        return pickle.dumps(extractor)
    except (pickle.PicklingError, AttributeError, TypeError):
        return extractor


def _check_sound(sound: np.ndarray, what: str) -> None:
    if np.ndim(sound) != 1 or not np.size(sound):
        raise MetricError(f"{what} is of shape {np.shape(sound)}. Give mono samples (S,), at least one.")
    if not np.isfinite(sound).all():
        raise MetricError(f"{what} holds samples that are not finite.")


COUNTED = "; n = "  # in a definition: what is measured stands before it, on how much and how surely after it


@dataclass(frozen=True, kw_only=True)
class ClassifierOutputs:
    """What one classifier says of the generated and of the real sounds.

    Args:
        name: Of the classifier, as in a table.
        generated_logits: Of the generated sounds.
        reference_logits: Of the real ones.
        generated_embeddings: Of the generated sounds.
        reference_embeddings: Of the real ones.
        definition: The classifier with its front end and weights; its name, if they need no telling.

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
        shapes = {
            name: np.shape(values)
            for name, values in vars(self).items()
            if name not in ("name", "definition")
        }
        if len({shape[:1] for shape in shapes.values()}) != 1 or any(
            len(shape) != 2 for shape in shapes.values()
        ):
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
    """Generated sounds beside the real ones, clip by clip, and what else is known of the clips.

    Args:
        ids: One name a clip, all different.
        sounds: Theirs, in the same order.
        flows: Mean flow magnitude a frame of each clip's video (L_i,), or None for a clip without.
        frame_rate_hz: Of each clip's video; needed with `flows`.
        flow_definition: How the flow was computed, for the definition of AV-Align.
        true_onsets_s: The exactly known onsets of each clip, in seconds.
        labels: The true classes (N,), as the classifier counts them.
        vague: Which captions (N,) don't tell the class.
        captions: What the sounds were generated from.
        classifier: See `ClassifierOutputs`.

    Raises:
        MetricError: Lists of different lengths, equal ids, flows without their frame rates.
    """

    ids: Sequence[str]
    sounds: Sounds
    flows: Sequence[np.ndarray | None] | None = None
    frame_rate_hz: Sequence[float] | None = None
    flow_definition: str = "as given"
    true_onsets_s: Sequence[np.ndarray] | None = None
    labels: np.ndarray | None = None
    vague: np.ndarray | None = None
    captions: Sequence[str] | None = None
    classifier: ClassifierOutputs | None = None

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
        for name in _PER_CLIP:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.ids):
                raise MetricError(f"{len(self.ids)} ids but {len(values)} {name}. Give one of each a clip.")

    def __len__(self) -> int:
        return len(self.ids)


_PER_CLIP = (
    "sounds", "flows", "frame_rate_hz", "true_onsets_s", "labels", "vague", "captions", "classifier",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure, and all that is needed to read it.

    Args:
        name: Short and stable, as in a metric store. Other ways of counting have another name.
        label: As in a table.
        definition: What was computed, exactly. Figures of different definitions must not be compared.
        higher_is_better: Its direction.
        value: The figure; NaN where there is none.
        n: How many clips it rests on.
        low: Lower end of its 95 % interval over clips.
        high: Upper end.
        chance: What it would be were the clips' references shuffled.
        corrected: (value - chance) / (1 - chance).
        corrected_low: Lower end of the corrected value's interval.
        corrected_high: Upper end.
        per_clip: Value by clip id, of the clips that have one.
        left_out: Reason by clip id, of the clips that have none.
        details: Further figures beside it.
        unavailable: Why there is no figure at all.
        replicates: Of a figure of the whole set, its value at each bootstrap draw of the clips, as it came
            out: figures of the same n and draws can be compared pair by pair. A mean has `per_clip` instead.
    """

    name: str
    label: str
    definition: str
    higher_is_better: bool
    value: float = math.nan
    n: int = 0
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    corrected: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    per_clip: Mapping[str, float] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)
    unavailable: str | None = None
    replicates: Sequence[float] | None = None

    @property
    def measure(self) -> str:
        """What is measured: the definition without the number of clips and the way of the interval.

        Example:
            >>> Score(name="a", label="A", definition="hits; n = 3; 95 %", higher_is_better=True).measure
            'hits'
        """
        return self.definition.partition(COUNTED)[0]
