"""Metrics of what sounds, as a classifier hears it. Its name stands beside every figure."""

import numpy as np

from stav2a.metrics import distribution, semantic
from stav2a.metrics.errors import MetricError
from stav2a.metrics.scoring import Sheet
from stav2a.metrics.sets import Classified, EvaluationSet, Score
from stav2a.registry import register

NO_CLASSIFIER = "no classifier was given for this evaluation"


@register("metric", "fd")
class FrechetDistance:
    """Fréchet distance between the embeddings of generated and real sounds; not square-rooted.

    Args:
        resamples: Bootstrap draws of the clips.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Of both.

    Shapes:
        embeddings (N, D) on both sides -> a distance
    """

    def __init__(self, *, resamples: int = 300, draws: int = 20, seed: int = 0):
        self.draws = draws
        self.sheet = Sheet(name="fd", label="FD", higher_is_better=False, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = "Fréchet distance (covariance ddof 1, not square-rooted, no eps)"
        sheet, classifier = _named(self.sheet, samples.classifier), samples.classifier
        if classifier is None:
            return sheet.absent(NO_CLASSIFIER, definition)
        ours, theirs = classifier.generated_embeddings, classifier.reference_embeddings
        definition = f"{definition} of embeddings of width {ours.shape[1]} by the {classifier.name}"
        try:
            return sheet.statistic(
                lambda clips: distribution.frechet_distance(ours[clips], theirs[clips]),
                len(samples),
                definition,
                details=self._floor(theirs, sheet.seed),
            )
        except MetricError as error:
            return sheet.absent(str(error), definition)

    def _floor(self, embeddings: np.ndarray, seed: int) -> dict[str, float]:
        if len(embeddings) < 8:
            return {}
        floor = distribution.frechet_floor(embeddings, len(embeddings), draws=self.draws, seed=seed)
        return {"bias floor (a perfect generator at this n)": floor}


@register("metric", "kl")
class KLDivergence:
    """KL(real || generated) between the class distributions of each pair of sounds, in nats.

    Args:
        eps: Added to the generated probabilities; 0 is exact, 1e-6 as released.
        resamples: Bootstrap draws of the clips.
        seed: Of the draws.

    Shapes:
        logits (N, C) on both sides -> a mean over clips
    """

    def __init__(self, *, eps: float = 0.0, resamples: int = 2000, seed: int = 0):
        self.eps = eps
        name = f"kl_eps_{eps:g}" if eps else "kl"
        self.sheet = Sheet(name=name, label="KL", higher_is_better=False, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"KL(real || generated) of softmax distributions, nats, eps {self.eps:g}"
        sheet, classifier = _named(self.sheet, samples.classifier), samples.classifier
        if classifier is None:
            return sheet.absent(NO_CLASSIFIER, definition)
        logits = classifier.generated_logits, classifier.reference_logits
        values = distribution.kl_divergences(*logits, eps=self.eps)
        return sheet.mean(samples.ids, values, f"{definition}, by the {classifier.name}")


@register("metric", "is")
class InceptionScore:
    """Inception score of the generated sounds: sure of each, varied over all.

    Args:
        splits: Parts of the shuffled clips, over which the score is averaged.
        resamples: Bootstrap draws of the clips.
        seed: Of the draws; the shuffle has its own, 2020.

    Shapes:
        logits (N, C) -> a number within 1 and C
    """

    def __init__(self, *, splits: int = 10, resamples: int = 300, seed: int = 0):
        self.splits = splits
        self.sheet = Sheet(name="is", label="IS", higher_is_better=True, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"inception score, mean of {self.splits} splits of RandomState(2020)'s permutation"
        sheet, classifier = _named(self.sheet, samples.classifier), samples.classifier
        if classifier is None:
            return sheet.absent(NO_CLASSIFIER, definition)
        definition = f"{definition}, by the {classifier.name}"
        ours, theirs = classifier.generated_logits, classifier.reference_logits
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
        sheet, classifier = _named(self.sheet, samples.classifier), samples.classifier
        if classifier is None:
            return sheet.absent(NO_CLASSIFIER, definition)
        definition = f"{definition}, by the {classifier.name}"
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


def _named(sheet: Sheet, classifier: Classified | None) -> Sheet:
    """No figure of a classifier's without its name."""
    return sheet if classifier is None else sheet.relabelled(f"{sheet.label} ({classifier.name})")
