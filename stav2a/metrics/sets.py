"""What a metric is given, and what it gives back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stav2a.metrics.errors import MetricError
from stav2a.metrics.sounds import Sounds

COUNTED = "; n = "  # in a definition: what is measured stands before it, on how much and how surely after it


@dataclass(frozen=True, kw_only=True)
class Classified:
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
        classifier: See `Classified`.

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
    classifier: Classified | None = None

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
