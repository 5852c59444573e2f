"""Metrics that ask a model of sounds and texts in one space."""

from functools import partial

import numpy as np

from stav2a.metrics import semantic
from stav2a.metrics.registered import choosing
from stav2a.metrics.registered.choosing import JudgeFactory
from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import EvaluationSet, Score
from stav2a.registry import get, register

PROMPTS = ("the sound is clear and clean.", "the sound is noisy and with artifacts.")
SEGMENT_S, RELEASED_SEGMENT_S = 7.0, 10.0


@register("metric", "clap")
class ClapScore:
    """CLAP score: cosine of a generated sound with its caption.

    Args:
        judge: Embeds sounds and texts; None is `judge.clap`.
        shuffles: Other captions that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Of shuffles and draws.

    Shapes:
        embeddings (N, D) of sounds and captions -> a mean over clips
    """

    def __init__(
        self,
        *,
        judge: JudgeFactory | None = None,
        shuffles: int = 20,
        resamples: int = 2000,
        seed: int = 0,
    ):
        self.judge = choosing.build(judge, "clap")
        self.extractors = choosing.extractors(self.judge)
        usual = judge is None or self.judge.name == "CLAP"
        self.reporter = MetricReporter(
            name="clap" if usual else "clap_released",
            label="CLAP" if usual else f"CLAP ({self.judge.name})",
            higher_is_better=True,
            resamples=resamples,
            shuffles=shuffles,
            seed=seed,
        )

    @classmethod
    def released(cls) -> "ClapScore":
        """With the weights that the paper's authors used."""
        return cls(judge=get("judge", "clap_630k").factory)

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = "cosine of generated sound and caption"
        if self.judge.fault:
            return self.reporter.absent(self.judge.fault, definition)
        definition = f"{definition} by {self.judge.definition}"
        clips = [i for i, caption in enumerate(samples.captions or ()) if caption]
        if not clips:
            return self.reporter.absent("no clip has a caption", definition)
        heard = samples.sounds.features(self.judge)
        ours, theirs = (np.stack([side[i] for i in clips]) for side in heard)
        texts = self.judge.read([(samples.captions or ())[i] for i in clips])
        return self.reporter.mean(
            [samples.ids[i] for i in clips],
            semantic.cosines(ours, texts),
            definition,
            left_out={clip: "no caption" for i, clip in enumerate(samples.ids) if i not in set(clips)},
            details={"real sound": float(semantic.cosines(theirs, texts).mean())},
            pair=lambda i, j: float(semantic.cosines(ours[i : i + 1], texts[j : j + 1])[0]),
        )


@register("metric", "pam")
class PAM:
    """PAM [31]: how much likelier "clear and clean" is than "noisy and with artifacts".

    Args:
        judge: Embeds sounds and texts; None is `judge.ms_clap`.
        resamples: Bootstrap draws of the clips.
        seed: Of the draws.

    Shapes:
        N times (segments, D) -> a mean over clips
    """

    def __init__(self, *, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0):
        self.judge = choosing.build(judge, "ms_clap")
        self.extractors = choosing.extractors(self.judge)
        released = getattr(self.judge, "segment_s", SEGMENT_S) == RELEASED_SEGMENT_S
        self.reporter = MetricReporter(
            name="pam_released" if released else "pam",
            label="PAM (released)" if released else "PAM",
            higher_is_better=True,
            resamples=resamples,
            seed=seed,
        )

    @classmethod
    def released(cls) -> "PAM":
        """With segments as long as in the code of the paper's authors."""
        return cls(judge=partial(get("judge", "ms_clap").factory, segment_s=RELEASED_SEGMENT_S))

    def __call__(self, samples: EvaluationSet) -> Score:
        definition = f"softmax of two prompts, {PROMPTS[0]!r} against {PROMPTS[1]!r}"
        if self.judge.fault:
            return self.reporter.absent(self.judge.fault, definition)
        prompts = self.judge.read(PROMPTS)
        ours, theirs = (
            np.array([semantic.prompted(each, prompts, self.judge.scale) for each in side])
            for side in samples.sounds.features(self.judge)
        )
        return self.reporter.mean(
            samples.ids,
            ours,
            f"{definition}, mean over segments, by {self.judge.definition}",
            details={"real sound": float(theirs.mean())},
        )
