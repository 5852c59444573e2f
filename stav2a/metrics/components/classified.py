"""Metrics of what sounds, as a classifier hears it. Its name stands beside every figure."""

import numpy as np

from stav2a.metrics import distribution, semantic
from stav2a.metrics.components import judging
from stav2a.metrics.components.judging import Classifying, JudgeFactory
from stav2a.metrics.errors import MetricError
from stav2a.metrics.scoring import Sheet
from stav2a.metrics.sets import EvaluationSet, Score
from stav2a.registry import register

RELEASED_EPS = 1e-6
NO_CLASSIFIER = "no classifier was given for this evaluation"


@register("metric", "kl")
class KLDivergence:
    """KL(real || generated) between the class distributions of each pair of sounds, in nats.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        eps: Added to the generated probabilities; 0 is exact, 1e-6 as released.
        resamples: Bootstrap draws of the clips.
        seed: Of the draws.

    Shapes:
        logits (N, C) on both sides -> a mean over clips
    """

    compares = True

    def __init__(
        self,
        *,
        judge: JudgeFactory | None = None,
        eps: float = 0.0,
        resamples: int = 2000,
        seed: int = 0,
    ):
        self.eps = eps
        self.classifying = Classifying(judge)
        self.ears = judging.ears(self.classifying.judge)
        name = f"kl_eps_{eps:g}" if eps else "kl"
        self.sheet = Sheet(name=name, label="KL", higher_is_better=False, resamples=resamples, seed=seed)

    @classmethod
    def released(cls) -> "KLDivergence":
        """As the paper's authors published it."""
        return cls(eps=RELEASED_EPS)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"KL(real || generated) of softmax distributions, nats, eps {self.eps:g}"
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.sheet.absent(said, definition)
        values = distribution.kl_divergences(said.generated_logits, said.reference_logits, eps=self.eps)
        sheet = judging.named(self.sheet, said.name)
        return sheet.mean(samples.ids, values, f"{definition}, by the {said.described}")


@register("metric", "is")
class InceptionScore:
    """Inception score of the generated sounds: sure of each, varied over all.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        splits: Parts of the shuffled clips, over which the score is averaged.
        resamples: Bootstrap draws of the clips.
        seed: Of the draws; the shuffle has its own, 2020.

    Shapes:
        logits (N, C) -> a number within 1 and C
    """

    def __init__(
        self,
        *,
        judge: JudgeFactory | None = None,
        splits: int = 10,
        resamples: int = 300,
        seed: int = 0,
    ):
        self.splits = splits
        self.classifying = Classifying(judge)
        self.ears = judging.ears(self.classifying.judge)
        self.sheet = Sheet(name="is", label="IS", higher_is_better=True, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"inception score, mean of {self.splits} splits of RandomState(2020)'s permutation"
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.sheet.absent(said, definition)
        sheet, definition = judging.named(self.sheet, said.name), f"{definition}, by the {said.described}"
        ours, theirs = said.generated_logits, said.reference_logits
        try:
            deviation = distribution.inception_score(ours, splits=self.splits).std
            real = distribution.inception_score(theirs, splits=self.splits).mean
            return sheet.statistic(
                lambda clips: distribution.inception_score(ours[clips], splits=self.splits).mean,
                len(samples),
                definition,
                details={"deviation over splits": deviation, "real sounds": real},
            )
        except MetricError as error:
            return sheet.absent(str(error), definition)


@register("metric", "class_accuracy")
class ClassAccuracy:
    """How often a classifier hears the true class in the generated sound.

    Args:
        captions: `all`, or `vague`: only clips whose caption doesn't tell the class, so that it has to
            come from the picture.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Of shuffles and draws.

    Shapes:
        logits (N, C), labels (N,) -> a mean over clips
    """

    def __init__(self, *, captions: str = "all", shuffles: int = 20, resamples: int = 2000, seed: int = 0):
        if captions not in ("all", "vague"):
            raise MetricError(f"captions was {captions!r}. Write one of: all, vague.")
        self.vague = captions == "vague"
        self.sheet = Sheet(
            name="class_accuracy_vague" if self.vague else "class_accuracy",
            label="Class accuracy on vague captions" if self.vague else "Class accuracy",
            higher_is_better=True,
            resamples=resamples,
            shuffles=shuffles,
            seed=seed,
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = (
            f"likeliest class = true class, {'clips with vague captions' if self.vague else 'all clips'}"
        )
        classifier = samples.classifier
        if classifier is None:
            return self.sheet.absent(NO_CLASSIFIER, definition)
        sheet = judging.named(self.sheet, classifier.name)
        definition = f"{definition}, by the {classifier.described}"
        if samples.labels is None:
            return sheet.absent("the clips' true classes are not known", definition)
        if self.vague and samples.vague is None:
            return sheet.absent("it is not known which captions are vague", definition)
        asked = np.asarray(samples.vague, dtype=bool) if self.vague else np.ones(len(samples), dtype=bool)
        if not asked.any():
            return sheet.absent("no clip has a vague caption", definition)
        clips = np.flatnonzero(asked).tolist()
        labels = np.asarray(samples.labels)[clips]
        ours, theirs = classifier.generated_logits[clips], classifier.reference_logits[clips]
        predicted = semantic.predicted_classes(ours)
        return sheet.mean(
            [samples.ids[i] for i in clips],
            semantic.class_hits(ours, labels),
            definition,
            details={"real sounds": float(semantic.class_hits(theirs, labels).mean())},
            pair=lambda i, j: float(predicted[i] == labels[j]),
        )
