"""Metrics by Audiobox Aesthetics: ratings of a generated sound by itself."""

from typing import ClassVar

import numpy as np

from stav2a.metrics.judges.audiobox_aesthetics import AudioboxAesthetics
from stav2a.metrics.registered.judged import JudgedMetric, JudgeFactory
from stav2a.metrics.score import EvaluationSet, Score
from stav2a.registry import register


class AestheticRating(JudgedMetric):
    """Base of the four ratings.

    Args:
        judge: Judge of the ratings; None is `judge.audiobox_aesthetics`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        N ratings -> a mean over clips
    """

    default_judge = AudioboxAesthetics
    higher_is_better = True
    axis: ClassVar[str]  # field of the judge's record
    rated: ClassVar[str]  # name of the rating

    def __init__(self, *, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0) -> None:
        definition = f"rating of the generated sound's {self.rated}, 1 to 10"
        name, label = self.rated.replace(" ", "_"), f"{self.rated.capitalize()} ({self.axis})"
        super().__init__(judge, name, label, definition, resamples=resamples, seed=seed)

    def score(self, samples: EvaluationSet) -> Score:
        ours, theirs = (
            np.array([float(each[self.axis]) for each in side]) for side in self.features(samples)
        )
        return self.reporter.mean(
            samples.ids,
            ours,
            self.definition,
            judge=self.judge.definition,
            extras={"real sound": float(theirs.mean())},
        )


@register("metric", "production_quality")
class ProductionQuality(AestheticRating):
    """Production quality (PQ): clarity, fidelity, dynamics, frequencies and space of a sound.

    Args:
        judge: Judge of the ratings; None is `judge.audiobox_aesthetics`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.
    """

    axis, rated = "PQ", "production quality"


@register("metric", "production_complexity")
class ProductionComplexity(AestheticRating):
    """Production complexity (PC): number of the components of a sound. More is not always better.

    Args:
        judge: Judge of the ratings; None is `judge.audiobox_aesthetics`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.
    """

    axis, rated = "PC", "production complexity"


@register("metric", "content_enjoyment")
class ContentEnjoyment(AestheticRating):
    """Content enjoyment (CE): emotional effect, skill and expression of a sound.

    Args:
        judge: Judge of the ratings; None is `judge.audiobox_aesthetics`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.
    """

    axis, rated = "CE", "content enjoyment"


@register("metric", "content_usefulness")
class ContentUsefulness(AestheticRating):
    """Content usefulness (CU): how likely a sound is to be used as material by those who make content.

    Args:
        judge: Judge of the ratings; None is `judge.audiobox_aesthetics`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.
    """

    axis, rated = "CU", "content usefulness"
