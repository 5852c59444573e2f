"""Which classifier a metric listens to: the set's own, or a published judge."""

from collections.abc import Callable
from typing import Any

import numpy as np

from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import ClassifierOutputs, EvaluationSet, FeatureExtractor
from stav2a.registry import expect, get, load

JudgeFactory = Callable[[], Any]


def build(judge: JudgeFactory | None, usual: str) -> Any:
    """A judge; the registered one of the usual name without a factory."""
    if judge is None:
        load()
        judge = get("judge", usual).factory
    return expect("judge", judge)()


def extractors(judge: Any) -> tuple[FeatureExtractor, ...]:
    """The judge as an extractor, unless it lacks its weights."""
    return () if judge.fault else (judge,)


class Classifying:
    """The classifier of FD, KL, IS and KAD.

    Args:
        judge: A published one; None is the set's own classifier, and PANNs' Cnn14 where a set has none.
    """

    def __init__(self, judge: JudgeFactory | None) -> None:
        self.prefers_own = judge is None
        self.judge = build(judge, "panns_cnn14")

    def of(self, samples: EvaluationSet) -> ClassifierOutputs | str:
        """What it says of a set, or why it can't."""
        if self.prefers_own and samples.classifier is not None:
            return samples.classifier
        if self.judge.fault:
            return str(self.judge.fault)
        ours, theirs = (np.stack(side) for side in samples.sounds.features(self.judge))
        return ClassifierOutputs(
            name=self.judge.name,
            definition=self.judge.definition,
            generated_logits=ours["logits"],
            reference_logits=theirs["logits"],
            generated_embeddings=ours["embedding"],
            reference_embeddings=theirs["embedding"],
        )


def named(sheet: MetricReporter, name: str) -> MetricReporter:
    """No figure of a classifier's without its name."""
    return sheet.relabelled(f"{sheet.label} ({name})")
