"""Metrics of a sound and the picture of its clip, by a judge of both."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from stav2a.metrics import semantic
from stav2a.metrics.judges.cavp import CAVPJudge
from stav2a.metrics.judges.imagebind import ImageBind
from stav2a.metrics.judges.judge import AudioVisualJudge
from stav2a.metrics.judges.synchformer import Synchformer
from stav2a.metrics.registered.judged import JudgedMetric, JudgeFactory
from stav2a.metrics.score import EvaluationSet, MetricError, Score
from stav2a.registry import register


class AudioVisualFeatures(NamedTuple):
    """A judge's features of the clips that have a picture.

    Args:
        clips: Indices of these clips.
        generated: Features of the generated sounds.
        references: Features of the real sounds.
        pictures: Features of the pictures.
        skipped: Reason by id of the other clips.
    """

    clips: list[int]
    generated: list[np.ndarray]
    references: list[np.ndarray]
    pictures: list[np.ndarray]
    skipped: dict[str, str]


class AudioVisualMetric(JudgedMetric):
    """Base of the metrics of a sound and the picture of its clip: a mean over the clips.

    Args:
        judge: The judge's factory; None is the class's `default_judge`.
        name: Name of the score.
        label: Label of the score.
        definition: Definition of the score; the judge aside.
        draws: Arguments of the reporter: resamples, shuffles and seed.
    """

    @abstractmethod
    def compare(self, sound: np.ndarray, picture: np.ndarray) -> float:
        """Figure of one sound with one picture."""

    @property
    def watchers(self) -> tuple[AudioVisualJudge, ...]:
        """The judge, unless it lacks its weights."""
        return self.extractors  # type: ignore[return-value]

    def both(self, samples: EvaluationSet) -> AudioVisualFeatures:
        """The judge's features of the clips that have a picture.

        Raises:
            MetricError: The judge lacks its weights, or no clip has a picture.
        """
        sounds = self.features(samples)
        if samples.videos is None:
            raise MetricError("no clip has a video")
        seen, faults = samples.videos.features(self.judge)
        clips = sorted(seen)
        return AudioVisualFeatures(
            clips,
            [sounds.generated[i] for i in clips],
            [sounds.references[i] for i in clips],
            [seen[i] for i in clips],
            {samples.ids[i]: reason for i, reason in faults.items()},
        )

    def score(self, samples: EvaluationSet) -> Score:
        found = self.both(samples)

        def others(i: int, j: int) -> float:
            return self.compare(found.generated[i], found.pictures[j])

        real = [self.compare(*pair) for pair in zip(found.references, found.pictures, strict=True)]
        return self.reporter.mean(
            [samples.ids[i] for i in found.clips],
            np.array([self.compare(*pair) for pair in zip(found.generated, found.pictures, strict=True)]),
            self.definition,
            judge=self.judge.definition,
            skipped=found.skipped,
            extras={"real sound": float(np.mean(real))} if real else None,
            pair=others if self.reporter.shuffles else None,
        )


class AudioVisualCosine(AudioVisualMetric):
    """Base of the scores that are a cosine of sound and picture.

    Args:
        judge: The judge's factory; None is the class's `default_judge`.
        shuffles: Other videos that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.
    """

    higher_is_better = True
    score_name: ClassVar[str]
    label: ClassVar[str]

    def __init__(
        self, *, judge: JudgeFactory | None = None, shuffles: int = 20, resamples: int = 2000, seed: int = 0
    ):
        draws = {"shuffles": shuffles, "resamples": resamples, "seed": seed}
        definition = "cosine of generated sound and picture"
        super().__init__(judge, self.score_name, self.label, definition, **draws)


@register("metric", "imagebind")
class ImageBindScore(AudioVisualCosine):
    """ImageBind score: cosine of a generated sound with the picture, as av-benchmark's IB-Score.

    Args:
        judge: Model that embeds sounds and pictures; None is `judge.imagebind`.
        shuffles: Other videos that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        embeddings (N, D) of sounds and pictures -> a mean over clips
    """

    default_judge = ImageBind
    score_name, label = "imagebind", "ImageBind"

    def compare(self, sound: np.ndarray, picture: np.ndarray) -> float:
        return float(semantic.cosines(sound[None], picture[None])[0])


@register("metric", "cavp_score")
class CAVPScore(AudioVisualCosine):
    """CAVP score: cosine of a generated sound with the picture, in windows of 4 s.

    Args:
        judge: Model that embeds sounds and pictures; None is `judge.cavp`.
        shuffles: Other videos that each clip is compared with for the chance level.
        resamples: Bootstrap draws of the clips.
        seed: Seed of shuffles and draws.

    Shapes:
        N times (windows, D) of sounds and pictures -> a mean over clips
    """

    default_judge = CAVPJudge
    score_name, label = "cavp_score", "CAVP score"

    def compare(self, sound: np.ndarray, picture: np.ndarray) -> float:
        windows = min(len(sound), len(picture))
        return float(semantic.cosines(sound[:windows], picture[:windows]).mean())


@register("metric", "desync")
class DeSync(AudioVisualMetric):
    """DeSync of av-benchmark: how far a generated sound is from the picture in time, by Synchformer.

    Its level by chance is not measured; equally likely offsets would give 1.05 s.

    Args:
        judge: Model that finds offsets; None is `judge.synchformer`.
        resamples: Bootstrap draws of the clips.
        seed: Seed of the draws.

    Shapes:
        N times windows of sounds and pictures -> a mean over clips, in seconds
    """

    default_judge = Synchformer

    def __init__(self, *, judge: JudgeFactory | None = None, resamples: int = 2000, seed: int = 0):
        definition = (
            "magnitude of the likeliest offset of generated sound and picture, s, mean of two windows"
        )
        super().__init__(judge, "desync", "DeSync", definition, resamples=resamples, seed=seed)

    def compare(self, sound: np.ndarray, picture: np.ndarray) -> float:
        return float(np.abs(self.judge.offsets_s(sound, picture)).mean())
