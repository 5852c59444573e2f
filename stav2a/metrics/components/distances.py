"""Distances between the set of generated and the set of real sounds."""

from collections.abc import Sequence

import numpy as np

from stav2a.metrics import distribution
from stav2a.metrics.components import judging
from stav2a.metrics.components.judging import Classifying, JudgeFactory
from stav2a.metrics.errors import MetricError
from stav2a.metrics.kernel import KernelDistance
from stav2a.metrics.scoring import Sheet
from stav2a.metrics.sets import EvaluationSet, Score
from stav2a.registry import register

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
        self.ears = judging.ears(self.classifying.judge)
        self.sheet = Sheet(name="fd", label="FD", higher_is_better=False, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.sheet.absent(said, FRECHET)
        ours, theirs = said.generated_embeddings, said.reference_embeddings
        return _frechet(
            judging.named(self.sheet, said.name),
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
        self.judge = judging.build(judge, "vggish")
        self.ears = judging.ears(self.judge)
        self.sheet = Sheet(name="fad", label="FAD", higher_is_better=False, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        if self.judge.fault:
            return self.sheet.absent(self.judge.fault, FRECHET)
        definition = f"{FRECHET} of the windows of all clips by {self.judge.definition}"
        return _frechet(self.sheet, definition, *samples.sounds.hear(self.judge), self.draws)


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
        self.ears = judging.ears(self.classifying.judge)
        self.sheet = Sheet(name="kad", label="KAD", higher_is_better=False, resamples=resamples, seed=seed)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = (
            "100 times the unbiased squared MMD, Gaussian kernel as wide as the real sounds' median distance"
        )
        said = self.classifying.of(samples)
        if isinstance(said, str):
            return self.sheet.absent(said, definition)
        sheet = judging.named(self.sheet, said.name)
        definition = f"{definition}, of embeddings by the {said.described}"
        try:
            distance = KernelDistance(said.generated_embeddings, said.reference_embeddings)
        except MetricError as error:
            return sheet.absent(str(error), definition)
        return sheet.statistic(distance, len(samples), definition)


def _frechet(
    sheet: Sheet, definition: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], draws: int
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
