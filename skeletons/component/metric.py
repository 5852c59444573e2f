"""The metric `my_name`: how near the level of a generated sound is to the real one's."""

import numpy as np

from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import EvaluationSet, Score
from stav2a.registry import register


@register("metric", "my_name")
class MyName:
    """Difference of level between the generated and the real sound.

    Args:
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        generated (S_i,), real (S_i,) each -> a mean over clips, in dB

    Example:
        >>> round(level_db(np.full(100, 0.1), 16_000), 3)
        -20.0
    """

    def __init__(self, *, resamples: int = 2000, seed: int = 0) -> None:
        self.reporter = MetricReporter(
            name="my_name", label="Level error (dB)", higher_is_better=False, resamples=resamples, seed=seed
        )

    def __call__(self, samples: EvaluationSet) -> Score:
        ours, theirs = samples.sounds.features(level_db)  # computed once for all metrics that ask for it
        errors = np.abs(np.array(ours) - np.array(theirs))
        return self.reporter.mean(samples.ids, errors, "|level of generated - level of real sound|, dB")


def level_db(audio: np.ndarray, sample_rate: int) -> float:
    """Mean power of a sound (S,), in dB of full scale."""
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-10))
