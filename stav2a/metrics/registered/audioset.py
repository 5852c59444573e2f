"""Metrics by a classifier of AudioSet: a judge that none of the run's own clips have trained."""

from dataclasses import replace

import numpy as np

from stav2a.metrics import semantic
from stav2a.metrics.judges.passt import PaSST
from stav2a.metrics.judges.yamnet import LIKELY, YAMNet, YAMNetWindows
from stav2a.metrics.registered.judged import (
    ClassAccuracy,
    ClassifierMetric,
    FrechetDistance,
    InceptionScore,
    JudgedMetric,
    JudgeFactory,
    KernelAudioDistance,
    KLDivergence,
)
from stav2a.metrics.score import ClassifierOutputs, EvaluationSet, MetricError, Score
from stav2a.registry import register

YAMNET, PASST = "_yamnet", "_passt"  # ends of the scores' names


@register("metric", "fd_yamnet")
class YAMNetFrechetDistance(FrechetDistance):
    """Fréchet distance between YAMNet's embeddings of generated and real sounds; not square-rooted.

    Args:
        judge: A classifier; None is `judge.yamnet`.
        resamples: Bootstrap draws of the clips.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Seed of both.

    Shapes:
        embeddings (N, 1024) on both sides -> a distance
    """

    default_judge = YAMNet
    suffix = YAMNET


@register("metric", "kad_yamnet")
class YAMNetKernelDistance(KernelAudioDistance):
    """Kernel audio distance of YAMNet's embeddings: unbiased squared MMD, times 100.

    Args:
        judge: A classifier; None is `judge.yamnet`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        embeddings (N, 1024) on both sides -> a distance, 0 in expectation for equal distributions
    """

    default_judge = YAMNet
    suffix = YAMNET


@register("metric", "class_agreement_yamnet")
class ClassAgreement(ClassifierMetric):
    """Share of the generated sounds whose likeliest class of AudioSet is that of the real sound.

    Args:
        judge: A classifier; None is `judge.yamnet`.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        logits (N, C) on both sides -> a mean over clips
    """

    default_judge = YAMNet
    higher_is_better = True
    compares = True
    suffix = YAMNET

    def __init__(
        self, *, judge: JudgeFactory | None = None, shuffles: int = 20, resamples: int = 2000, seed: int = 0
    ):
        definition, draws = "likeliest class = that of the real sound", {"resamples": resamples, "seed": seed}
        super().__init__(judge, "class_agreement", "Class agreement", definition, shuffles=shuffles, **draws)

    def score(self, samples: EvaluationSet) -> Score:
        outputs = self.outputs(samples)
        sides = outputs.generated_logits, outputs.reference_logits
        ours, theirs = (semantic.predicted_classes(side) for side in sides)
        return self.reporter.mean(
            samples.ids,
            (ours == theirs).astype(np.float64),
            self.definition,
            judge=outputs.described,
            pair=lambda i, j: float(ours[i] == theirs[j]),
        )


@register("metric", "probe_accuracy_yamnet")
class ProbeAccuracy(ClassifierMetric):
    """Share of the generated sounds that a linear probe of YAMNet's embeddings assigns to the true class.

    The probe is fitted on the real sounds of the training clips alone.

    Args:
        judge: A classifier, for its embeddings; None is `judge.yamnet`.
        captions: `all`; or `vague`: only clips whose caption doesn't name the class; or `named`: the others.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        embeddings (N, D), labels (N,) -> a mean over clips
    """

    default_judge = YAMNet
    higher_is_better = True
    suffix = YAMNET

    def __init__(
        self,
        *,
        judge: JudgeFactory | None = None,
        captions: str = "all",
        shuffles: int = 20,
        resamples: int = 2000,
        seed: int = 0,
    ):
        draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
        self.accuracy = ClassAccuracy(captions=captions, **draws)
        name, label = f"probe_accuracy{self.accuracy.suffix}", f"Probe accuracy{self.accuracy.on}"
        super().__init__(judge, name, label, "likeliest class of a linear probe = true class", **draws)
        self.counterpart, self.accuracy.reporter = self.accuracy.reporter.name, self.reporter

    def score(self, samples: EvaluationSet) -> Score:
        outputs, examples = self.outputs(samples), samples.examples
        if examples is None:
            raise MetricError("there are no training clips of known classes")
        known = np.stack([each["embedding"] for each in examples.features(self.judge)])
        probe = semantic.LinearProbe(known, examples.labels)
        probed = ClassifierOutputs(
            name="linear probe",
            definition=f"{probe.definition} of {len(known)} training clips, on {outputs.described}",
            generated_logits=probe(outputs.generated_embeddings),
            reference_logits=probe(outputs.reference_embeddings),
            generated_embeddings=outputs.generated_embeddings,
            reference_embeddings=outputs.reference_embeddings,
        )
        return self.accuracy(replace(samples, classifier=probed))


@register("metric", "probe_accuracy_vague_yamnet")
def probe_accuracy_vague(
    *, judge: JudgeFactory | None = None, shuffles: int = 20, resamples: int = 2000, seed: int = 0
) -> ProbeAccuracy:
    """Accuracy of the linear probe on the clips whose caption doesn't name the class.

    Args:
        judge: A classifier, for its embeddings; None is `judge.yamnet`.
        shuffles: Other clips that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """
    return ProbeAccuracy(judge=judge, captions="vague", shuffles=shuffles, resamples=resamples, seed=seed)


class WindowShare(JudgedMetric):
    """Base of the shares of a sound's windows that hold something unwanted.

    Attributes:
        kind: Field of the judge's records.
    """

    default_judge = YAMNetWindows
    suffix = YAMNET
    kind: str

    def __init__(
        self,
        *,
        judge: JudgeFactory | None = None,
        threshold: float = LIKELY,
        resamples: int = 2000,
        seed: int = 0,
    ):
        definition = f"share of the generated sound's windows with {self.kind} likelier than {threshold:g}"
        name, label = f"{self.kind}_share", f"{self.kind.capitalize()} share"
        super().__init__(judge, name, label, definition, resamples=resamples, seed=seed)
        self.threshold = threshold

    def score(self, samples: EvaluationSet) -> Score:
        features = self.features(samples)
        first = features.generated[0]
        if self.kind not in (first.dtype.names or ()):
            given = f"{first.dtype} of shape {first.shape}"
            raise MetricError(f"{self.judge.name} gives {given}, expected records with a field {self.kind}")
        ours, theirs = (
            np.array([float((each[self.kind] > self.threshold).mean()) for each in side]) for side in features
        )
        excess = float(np.maximum(ours - theirs, 0).mean())
        return self.reporter.mean(
            samples.ids,
            ours,
            self.definition,
            judge=self.judge.definition,
            extras={"real sounds": float(theirs.mean()), "above the clip's real sound": excess},
        )


@register("metric", "speech_share_yamnet")
class SpeechShare(WindowShare):
    """Share of the generated sounds' windows in which YAMNet finds speech.

    Args:
        judge: A model that gives each window's speech; None is `judge.yamnet_windows`.
        threshold: Probability above which a window counts.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        N times records (W_i,) with a field speech -> a mean over clips
    """

    kind = "speech"


@register("metric", "music_share_yamnet")
class MusicShare(WindowShare):
    """Share of the generated sounds' windows in which YAMNet finds music.

    Args:
        judge: A model that gives each window's music; None is `judge.yamnet_windows`.
        threshold: Probability above which a window counts.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        N times records (W_i,) with a field music -> a mean over clips
    """

    kind = "music"


@register("metric", "fd_passt")
class PaSSTFrechetDistance(FrechetDistance):
    """Fréchet distance between PaSST's embeddings of generated and real sounds; not square-rooted.

    Args:
        judge: A classifier; None is `judge.passt`.
        resamples: Bootstrap draws of the clips.
        draws: Pairs of parts of the real sounds, for the bias floor that a perfect generator would reach.
        seed: Seed of both.

    Shapes:
        embeddings (N, 768) on both sides -> a distance
    """

    default_judge = PaSST
    suffix = PASST


@register("metric", "kl_passt")
class PaSSTDivergence(KLDivergence):
    """KL(real || generated) between PaSST's class distributions of each pair of sounds, in nats.

    Args:
        judge: A classifier; None is `judge.passt`.
        eps: Number added to the generated probabilities; 0 is exact.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        logits (N, C) on both sides -> a mean over clips
    """

    default_judge = PaSST
    suffix = PASST


@register("metric", "is_passt")
class PaSSTInceptionScore(InceptionScore):
    """Inception score of the generated sounds by PaSST: certain of each, varied over all.

    Args:
        judge: A classifier; None is `judge.passt`.
        splits: Parts of the shuffled clips, over which the score is averaged.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws; the shuffle has its own, 2020.

    Shapes:
        logits (N, C) -> a number within 1 and C
    """

    default_judge = PaSST
    suffix = PASST
