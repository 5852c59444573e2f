"""Metrics of what sounds, as a classifier hears it. Its name stands beside every figure."""

from collections.abc import Sequence

import numpy as np

from stav2a.metrics import distribution, semantic
from stav2a.metrics.distribution import KernelDistance
from stav2a.metrics.registered import choosing
from stav2a.metrics.registered.choosing import Classifying, JudgeFactory
from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import EvaluationSet, MetricError, Score
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
        self.extractors = choosing.extractors(self.classifying.judge)
        name = f"kl_eps_{eps:g}" if eps else "kl"
        self.reporter = MetricReporter(
            name=name, label="KL", higher_is_better=False, resamples=resamples, seed=seed
        )

    @classmethod
    def released(cls) -> "KLDivergence":
        """As the paper's authors published it."""
        return cls(eps=RELEASED_EPS)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"KL(real || generated) of softmax distributions, nats, eps {self.eps:g}"
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.reporter.absent(said, definition)
        values = distribution.kl_divergences(said.generated_logits, said.reference_logits, eps=self.eps)
        sheet = choosing.named(self.reporter, said.name)
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
        self.extractors = choosing.extractors(self.classifying.judge)
        self.reporter = MetricReporter(
            name="is", label="IS", higher_is_better=True, resamples=resamples, seed=seed
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"inception score, mean of {self.splits} splits of RandomState(2020)'s permutation"
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.reporter.absent(said, definition)
        sheet, definition = choosing.named(self.reporter, said.name), f"{definition}, by the {said.described}"
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
        self.reporter = MetricReporter(
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
            return self.reporter.absent(NO_CLASSIFIER, definition)
        sheet = choosing.named(self.reporter, classifier.name)
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


FRECHET = "Fréchet distance (covariance ddof 1, not square-rooted, no eps)"
FEWEST_FOR_FLOOR = 8


@register("metric", "fd")
class FrechetDistance:
    """Fréchet distance between the embeddings of generated and real sounds; not square-rooted.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        resamples: Bootstrap draws of the clips.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Of both.

    Shapes:
        embeddings (N, D) on both sides -> a distance
    """

    compares = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, resamples: int = 300, draws: int = 20, seed: int = 0
    ):
        self.draws = draws
        self.classifying = Classifying(judge)
        self.extractors = choosing.extractors(self.classifying.judge)
        self.reporter = MetricReporter(
            name="fd", label="FD", higher_is_better=False, resamples=resamples, seed=seed
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.reporter.absent(said, FRECHET)
        ours, theirs = said.generated_embeddings, said.reference_embeddings
        return _frechet(
            choosing.named(self.reporter, said.name),
            f"{FRECHET} of embeddings of width {ours.shape[1]} by the {said.described}",
            list(ours[:, None]),
            list(theirs[:, None]),
            self.draws,
        )


@register("metric", "fad")
class FrechetAudioDistance:
    """Fréchet audio distance: between VGGish's windows of all generated and of all real sounds.

    Args:
        judge: Gives each sound's windows; None is `judge.vggish`.
        resamples: Bootstrap draws of the clips, each with all its windows.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Of both.

    Shapes:
        N times (W_i, D) on both sides -> a distance
    """

    compares = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, resamples: int = 300, draws: int = 20, seed: int = 0
    ):
        self.draws = draws
        self.judge = choosing.build(judge, "vggish")
        self.extractors = choosing.extractors(self.judge)
        self.reporter = MetricReporter(
            name="fad", label="FAD", higher_is_better=False, resamples=resamples, seed=seed
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        if self.judge.fault:
            return self.reporter.absent(self.judge.fault, FRECHET)
        definition = f"{FRECHET} of the windows of all clips by {self.judge.definition}"
        return _frechet(self.reporter, definition, *samples.sounds.features(self.judge), self.draws)


@register("metric", "kad")
class KernelAudioDistance:
    """Kernel audio distance: unbiased squared MMD, times 100. It needs no large n.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        resamples: Bootstrap draws of the clips.
        seed: Of the draws.

    Shapes:
        embeddings (N, D) on both sides -> a distance, 0 in expectation for equal distributions
    """

    compares = True

    def __init__(self, *, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0):
        self.classifying = Classifying(judge)
        self.extractors = choosing.extractors(self.classifying.judge)
        self.reporter = MetricReporter(
            name="kad", label="KAD", higher_is_better=False, resamples=resamples, seed=seed
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = (
            "100 times the unbiased squared MMD, Gaussian kernel as wide as the real sounds' median distance"
        )
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.reporter.absent(said, definition)
        sheet = choosing.named(self.reporter, said.name)
        definition = f"{definition}, of embeddings by the {said.described}"
        try:
            distance = KernelDistance(said.generated_embeddings, said.reference_embeddings)
        except MetricError as error:
            return sheet.absent(str(error), definition)
        return sheet.statistic(distance, len(samples), definition)


def _frechet(
    sheet: MetricReporter,
    definition: str,
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    draws: int,
) -> Score:
    """The distance between the rows of all clips, and its floor.

    Shapes:
        N times (W_i, D) on both sides
    """

    def distance(clips: np.ndarray) -> float:
        return distribution.frechet_distance(
            *(np.concatenate([side[i] for i in clips]) for side in (ours, theirs))
        )

    try:
        return sheet.statistic(distance, len(ours), definition, details=_floor(theirs, draws, sheet.seed))
    except MetricError as error:
        return sheet.absent(str(error), definition)


def _floor(theirs: Sequence[np.ndarray], draws: int, seed: int) -> dict[str, float]:
    if len(theirs) < FEWEST_FOR_FLOOR:
        return {}
    floor = distribution.frechet_floor(theirs, len(theirs), draws=draws, seed=seed)
    return {"bias floor (a perfect generator at this n)": floor}
