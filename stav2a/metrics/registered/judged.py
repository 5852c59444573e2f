"""Metrics by a judge: a classifier of sounds, or a model of sounds and texts in one space."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stav2a.metrics import distribution, semantic
from stav2a.metrics.judges.clap import Clap, Clap630k, ClapMusicSpeech
from stav2a.metrics.judges.cnn14 import Cnn14
from stav2a.metrics.judges.ms_clap import MSClap
from stav2a.metrics.judges.vggish import VGGish
from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import (
    RELEASED,
    ClassifierOutputs,
    EvaluationSet,
    FeatureExtractor,
    MetricError,
    PairedFeatures,
    Score,
)
from stav2a.registry import expect, name_of, register
from stav2a.utils.errors import StaV2AError

JudgeFactory = Callable[[], Any]

RELEASED_EPS = 1e-6
FRECHET = "Fréchet distance (covariance ddof 1, not square-rooted, no eps)"
PROMPTS = ("the sound is clear and clean.", "the sound is noisy and with artifacts.")
RELEASED_SEGMENT_S = 10.0


class JudgedMetric(ABC):
    """Base of the metrics that need a judge.

    Args:
        judge: The judge's factory; None is the class's `default_judge`.
        name: Name of the score.
        label: Label of the score.
        definition: Definition of the score; the judge aside.
        draws: Arguments of the reporter: resamples, shuffles and seed.
    """

    default_judge: JudgeFactory
    higher_is_better = False
    suffix = ""  # of the score's name, where it stands beside the one of another judge

    def __init__(
        self, judge: JudgeFactory | None, name: str, label: str, definition: str, **draws: int
    ) -> None:
        self.judge = expect("judge", judge or self.default_judge)()
        self.prefers_own = judge is None and not self.suffix
        self.definition = definition
        self.counterpart = name if self.suffix else ""
        if self.suffix:
            name, label = f"{name}{self.suffix}", f"{label} ({self.judge.name})"
        better = self.higher_is_better
        self.reporter = MetricReporter(name=name, label=label, higher_is_better=better, **draws)

    def required_judge(self, *, has_classifier: bool) -> Any | None:
        """The judge, which a metric needs also where the evaluation set has a classifier."""
        return self.judge

    @property
    def extractors(self) -> tuple[FeatureExtractor, ...]:
        """The judge, unless it lacks its weights."""
        return () if self.judge.fault else (self.judge,)

    def __call__(self, samples: EvaluationSet) -> Score:
        try:
            score = self.score(samples)
        except MetricError as error:
            score = self.reporter.absent(str(error), self.definition)
        return replace(score, counterpart=self.counterpart)

    @abstractmethod
    def score(self, samples: EvaluationSet) -> Score:
        """Score of the samples.

        Raises:
            MetricError: It can't be measured: the reason.
        """

    def features(self, samples: EvaluationSet) -> PairedFeatures:
        """The judge's features of both sides.

        Raises:
            MetricError: The judge lacks its weights.
        """
        if self.judge.fault:
            raise MetricError(self.judge.fault)
        return samples.sounds.features(self.judge)


class ClassifierMetric(JudgedMetric):
    """Base of the metrics of a classifier's outputs: of the set's own classifier, if no other is given."""

    default_judge: JudgeFactory = Cnn14

    def required_judge(self, *, has_classifier: bool) -> Any | None:
        return None if self.prefers_own and has_classifier else self.judge

    @property
    def needs_classifier(self) -> bool:
        """True where only the set's own classifier can be the judge."""
        return self.prefers_own and self.judge.fault is not None

    def outputs(self, samples: EvaluationSet) -> ClassifierOutputs:
        """The classifier's outputs for both sides."""
        if self.prefers_own and samples.classifier is not None:
            return samples.classifier
        features = self.features(samples)
        first = features.generated[0]
        if not {"embedding", "logits"} <= set(first.dtype.names or ()):
            given = f"{first.dtype} of shape {first.shape}"
            raise MetricError(f"{self.judge.name} gives {given}, expected a record of embedding and logits")
        ours, theirs = (np.stack(side) for side in features)
        return ClassifierOutputs(
            name=self.judge.name,
            definition=self.judge.definition,
            generated_logits=ours["logits"],
            reference_logits=theirs["logits"],
            generated_embeddings=ours["embedding"],
            reference_embeddings=theirs["embedding"],
        )


def missing_judges(metrics: Iterable[Any], *, has_classifier: bool) -> list[StaV2AError]:
    """Judges that metrics need and that lack their weights, each with the names of these metrics.

    Args:
        metrics: Built metrics, of any kind.
        has_classifier: True where the evaluation set has a classifier of its own.
    """
    waiting: dict[tuple[str, str], list[str]] = {}
    for metric in metrics:
        if isinstance(metric, JudgedMetric):
            judge = metric.required_judge(has_classifier=has_classifier)
            if judge is not None and judge.fault:
                fault = getattr(judge, "missing", None) or (judge.fault, "")
                waiting.setdefault(fault, []).append(metric.reporter.name)
    return [
        StaV2AError(f"{', '.join(names)}: {message}.", advice=advice and f"{advice[0].upper()}{advice[1:]}.")
        for (message, advice), names in waiting.items()
    ]


@register("metric", "kl")
class KLDivergence(ClassifierMetric):
    """KL(real || generated) between the class distributions of each pair of sounds, in nats.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        eps: Number added to the generated probabilities; 0 is exact, 1e-6 as released.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        logits (N, C) on both sides -> a mean over clips
    """

    compares = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, eps: float = 0.0, resamples: int = 2000, seed: int = 0
    ):
        forms = {0.0: ("kl", "KL"), RELEASED_EPS: (f"kl{RELEASED}", "KL (released)")}
        name, label = forms.get(eps, (f"kl_eps_{eps:g}", f"KL (eps {eps:g})"))
        definition = f"KL(real || generated) of softmax distributions, nats, eps {eps:g}"
        super().__init__(judge, name, label, definition, resamples=resamples, seed=seed)
        self.eps = eps

    def score(self, samples: EvaluationSet) -> Score:
        outputs = self.outputs(samples)
        values = distribution.kl_divergences(outputs.generated_logits, outputs.reference_logits, eps=self.eps)
        return self.reporter.mean(samples.ids, values, self.definition, judge=outputs.described)


@register("metric", "kl_released")
def kl_released(*, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0) -> KLDivergence:
    """KL divergence as the paper's authors compute it: 1e-6 is added to the generated probabilities.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.
    """
    return KLDivergence(judge=judge, eps=RELEASED_EPS, resamples=resamples, seed=seed)


@register("metric", "is")
class InceptionScore(ClassifierMetric):
    """Inception score of the generated sounds: certain of each, varied over all.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        splits: Parts of the shuffled clips, over which the score is averaged.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws; the shuffle has its own, 2020.

    Shapes:
        logits (N, C) -> a number within 1 and C
    """

    higher_is_better = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, splits: int = 10, resamples: int = 300, seed: int = 0
    ):
        definition = f"inception score, mean of {splits} splits of RandomState(2020)'s permutation"
        super().__init__(judge, "is", "IS", definition, resamples=resamples, seed=seed)
        self.splits = splits

    def score(self, samples: EvaluationSet) -> Score:
        outputs = self.outputs(samples)
        scored = partial(distribution.inception_score, splits=self.splits)
        ours, theirs = outputs.generated_logits, outputs.reference_logits
        return self.reporter.statistic(
            lambda clips: scored(ours[clips]).mean,
            len(samples),
            self.definition,
            judge=outputs.described,
            extras={"deviation over splits": scored(ours).std, "real sounds": scored(theirs).mean},
        )


@register("metric", "fd")
class FrechetDistance(ClassifierMetric):
    """Fréchet distance between the embeddings of generated and real sounds; not square-rooted.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        resamples: Bootstrap draws of the clips.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Seed of both.

    Shapes:
        embeddings (N, D) on both sides -> a distance
    """

    compares = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, resamples: int = 300, draws: int = 20, seed: int = 0
    ):
        super().__init__(judge, "fd", "FD", FRECHET, resamples=resamples, seed=seed)
        self.draws = draws

    def score(self, samples: EvaluationSet) -> Score:
        outputs = self.outputs(samples)
        ours, theirs = outputs.generated_embeddings, outputs.reference_embeddings
        definition = f"{FRECHET} of embeddings of width {ours.shape[1]}"
        sides = PairedFeatures(list(ours[:, None]), list(theirs[:, None]))
        return _frechet(self.reporter, definition, outputs.described, sides, self.draws)


@register("metric", "kad")
class KernelAudioDistance(ClassifierMetric):
    """Kernel audio distance: unbiased squared MMD, times 100. It needs no large n.

    Args:
        judge: A classifier; None is the set's own, and PANNs' Cnn14 where a set has none.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        embeddings (N, D) on both sides -> a distance, 0 in expectation for equal distributions
    """

    compares = True

    def __init__(self, *, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0):
        definition = (
            "100 times the unbiased squared MMD of embeddings, Gaussian kernel as wide as the real sounds' "
            "median distance"
        )
        super().__init__(judge, "kad", "KAD", definition, resamples=resamples, seed=seed)

    def score(self, samples: EvaluationSet) -> Score:
        outputs = self.outputs(samples)
        distance = distribution.KernelDistance(outputs.generated_embeddings, outputs.reference_embeddings)
        return self.reporter.statistic(distance, len(samples), self.definition, judge=outputs.described)


@register("metric", "fad")
class FrechetAudioDistance(JudgedMetric):
    """Fréchet audio distance: between VGGish's windows of all generated and of all real sounds.

    Args:
        judge: Model that gives each sound's windows; None is `judge.vggish`.
        resamples: Bootstrap draws of the clips, each with all its windows.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Seed of both.

    Shapes:
        N times (W_i, D) on both sides -> a distance
    """

    default_judge = VGGish
    compares = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, resamples: int = 300, draws: int = 20, seed: int = 0
    ):
        definition = f"{FRECHET} of the windows of all clips"
        super().__init__(judge, "fad", "FAD", definition, resamples=resamples, seed=seed)
        self.draws = draws

    def score(self, samples: EvaluationSet) -> Score:
        sides = self.features(samples)
        return _frechet(self.reporter, self.definition, self.judge.definition, sides, self.draws)


def _frechet(
    reporter: MetricReporter, definition: str, judge: str, sides: PairedFeatures, draws: int
) -> Score:
    """Distance between the rows (W_i, D) of all clips, and its bias floor."""

    n, floor = len(sides.references), None
    if n >= distribution.FEWEST_FOR_FLOOR:
        floor = distribution.frechet_floor(sides.references, n, draws=draws, seed=reporter.seed)
    distance = distribution.FrechetStatistic(*sides)
    return reporter.statistic(distance, n, definition, judge=judge, floor=floor)


CAPTIONS = {  # of the clips that class accuracy is measured on
    "all": "captions",
    "vague": "vague captions",
    "named": "captions that name the class",
}


@register("metric", "class_accuracy")
class ClassAccuracy:
    """Share of the generated sounds that the set's classifier assigns to the true class.

    Args:
        captions: `all`; or `vague`: only clips whose caption doesn't name the class, so that it has to
            come from the picture; or `named`: only the others.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        logits (N, C), labels (N,) -> a mean over clips
    """

    needs_classifier = True

    def __init__(self, *, captions: str = "all", shuffles: int = 20, resamples: int = 2000, seed: int = 0):
        if captions not in CAPTIONS:
            raise MetricError(f"captions was {captions!r}. Write one of: {', '.join(CAPTIONS)}.")
        self.captions = captions
        self.suffix, self.on = (
            ("", "") if captions == "all" else (f"_{captions}", f" on {CAPTIONS[captions]}")
        )
        self.reporter = MetricReporter(
            name=f"class_accuracy{self.suffix}",
            label=f"Class accuracy{self.on}",
            higher_is_better=True,
            resamples=resamples,
            shuffles=shuffles,
            seed=seed,
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        which = "all clips" if self.captions == "all" else f"clips with {CAPTIONS[self.captions]}"
        definition = f"likeliest class = true class, {which}"
        absent = partial(self.reporter.absent, definition=definition)
        classifier = samples.classifier
        if classifier is None:
            return absent("no classifier was given for this evaluation")
        if samples.labels is None:
            return absent("the clips' true classes are not known")
        clips = list(range(len(samples)))
        if self.captions != "all":
            if samples.vague is None:
                return absent("it is not known which captions are vague")
            clips = np.flatnonzero(np.asarray(samples.vague) == (self.captions == "vague")).tolist()
        if not clips:
            return absent(f"no clip has {CAPTIONS[self.captions]}")
        labels = np.asarray(samples.labels)[clips]
        ours, theirs = classifier.generated_logits[clips], classifier.reference_logits[clips]
        predicted = semantic.predicted_classes(ours)
        return self.reporter.mean(
            [samples.ids[i] for i in clips],
            semantic.class_hits(ours, labels),
            definition,
            judge=classifier.described,
            extras={"real sounds": float(semantic.class_hits(theirs, labels).mean())},
            pair=lambda i, j: float(predicted[i] == labels[j]),
        )


@register("metric", "class_accuracy_vague")
def class_accuracy_vague(*, shuffles: int = 20, resamples: int = 2000, seed: int = 0) -> ClassAccuracy:
    """Class accuracy of the clips whose caption doesn't name the class: it has to come from the picture.

    Args:
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    return ClassAccuracy(captions="vague", shuffles=shuffles, resamples=resamples, seed=seed)


@register("metric", "class_accuracy_named")
def class_accuracy_named(*, shuffles: int = 20, resamples: int = 2000, seed: int = 0) -> ClassAccuracy:
    """Class accuracy of the clips whose caption names the class: without a video it comes from the text.

    Args:
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    return ClassAccuracy(captions="named", shuffles=shuffles, resamples=resamples, seed=seed)


@register("metric", "clap")
class ClapScore(JudgedMetric):
    """CLAP score: cosine of a generated sound with its caption; of a sound in segments, the mean of theirs.

    Args:
        judge: Model that embeds sounds and texts; None is `judge.clap`.
        shuffles: Other captions that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        N times (D,) or (segments, D) of sounds, (N, D) of captions -> a mean over clips
    """

    default_judge = Clap
    higher_is_better = True

    def __init__(
        self, *, judge: JudgeFactory | None = None, shuffles: int = 20, resamples: int = 2000, seed: int = 0
    ):
        definition, draws = "cosine of generated sound and caption", {"resamples": resamples, "seed": seed}
        super().__init__(judge, "clap", "CLAP", definition, shuffles=shuffles, **draws)
        if isinstance(self.judge, Clap630k):
            self.reporter = replace(self.reporter, name=f"clap{RELEASED}", label="CLAP (released)")
        elif not isinstance(self.judge, Clap):
            name = f"clap_{name_of(type(self.judge)).removeprefix('clap_')}"
            label = f"CLAP ({self.judge.name.removeprefix('CLAP ')})"
            self.reporter = replace(self.reporter, name=name, label=label)

    def score(self, samples: EvaluationSet) -> Score:
        captions = {i: caption for i, caption in enumerate(samples.captions or ()) if caption}
        if not captions:
            raise MetricError(self.judge.fault or "no clip has a caption")
        sides = self.features(samples)
        ours, theirs = ([side[i] for i in captions] for side in sides)
        texts = self.judge.read(list(captions.values()))
        real = [_closeness(*pair) for pair in zip(theirs, texts, strict=True)]
        return self.reporter.mean(
            [samples.ids[i] for i in captions],
            np.array([_closeness(*pair) for pair in zip(ours, texts, strict=True)]),
            self.definition,
            judge=self.judge.definition,
            skipped={clip: "no caption" for i, clip in enumerate(samples.ids) if i not in captions},
            extras={"real sound": float(np.mean(real))},
            pair=lambda i, j: _closeness(ours[i], texts[j]),
        )


def _closeness(sound: np.ndarray, text: np.ndarray) -> float:
    """Cosine of an embedding (D,), or mean cosine of those of segments (W, D), with a text's (D,)."""
    segments = np.atleast_2d(sound)
    return float(semantic.cosines(segments, np.broadcast_to(text, segments.shape)).mean())


@register("metric", "clap_released")
def clap_released(
    *, judge: JudgeFactory = Clap630k, shuffles: int = 20, resamples: int = 2000, seed: int = 0
) -> ClapScore:
    """CLAP score by the weights that the paper's authors use.

    Args:
        judge: `judge.clap_630k`, with a path of its weights or without.
        shuffles: Other captions that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    return ClapScore(judge=judge, shuffles=shuffles, resamples=resamples, seed=seed)


@register("metric", "clap_music_speech")
def clap_music_speech(
    *, judge: JudgeFactory = ClapMusicSpeech, shuffles: int = 20, resamples: int = 2000, seed: int = 0
) -> ClapScore:
    """CLAP score by the weights of music, speech and AudioSet, as av-benchmark's.

    Args:
        judge: `judge.clap_music_speech`, with a path of its weights or without.
        shuffles: Other captions that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    return ClapScore(judge=judge, shuffles=shuffles, resamples=resamples, seed=seed)


@register("metric", "clap_ms_clap")
def clap_ms_clap(
    *, judge: JudgeFactory = MSClap, shuffles: int = 20, resamples: int = 2000, seed: int = 0
) -> ClapScore:
    """CLAP score by MS-CLAP 2023, av-benchmark's second one: the mean over segments of 7 s.

    Args:
        judge: `judge.ms_clap`, with a path of its weights or without.
        shuffles: Other captions that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    return ClapScore(judge=judge, shuffles=shuffles, resamples=resamples, seed=seed)


@register("metric", "pam")
class PAM(JudgedMetric):
    """PAM [31]: how much likelier "clear and clean" is than "noisy and with artifacts".

    Args:
        judge: Model that embeds sounds and texts; None is `judge.ms_clap`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        N times (segments, D) -> a mean over clips
    """

    default_judge = MSClap
    higher_is_better = True

    def __init__(self, *, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0):
        definition = f"softmax of two prompts, {PROMPTS[0]!r} against {PROMPTS[1]!r}, mean over segments"
        super().__init__(judge, "pam", "PAM", definition, resamples=resamples, seed=seed)
        if getattr(self.judge, "segment_s", None) == RELEASED_SEGMENT_S:
            self.reporter = replace(self.reporter, name=f"pam{RELEASED}", label="PAM (released)")

    def score(self, samples: EvaluationSet) -> Score:
        features, prompts = self.features(samples), self.judge.read(PROMPTS)
        ours, theirs = (
            np.array([semantic.prompted(each, prompts, self.judge.scale) for each in side])
            for side in features
        )
        return self.reporter.mean(
            samples.ids,
            ours,
            self.definition,
            judge=self.judge.definition,
            extras={"real sound": float(theirs.mean())},
        )


@register("metric", "pam_released")
def pam_released(*, weights: str | None = None, resamples: int = 2000, seed: int = 0) -> PAM:
    """PAM on segments as long as in the code of the paper's authors, 10 s.

    Args:
        weights: Path of the weights of `judge.ms_clap`; None looks in the folder of all weights.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.
    """
    judge = partial(MSClap, weights=weights, segment_s=RELEASED_SEGMENT_S)
    return PAM(judge=judge, resamples=resamples, seed=seed)
