"""A small sound classifier trained on the dataset's own classes, for the metrics at laptop scale."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register
from stav2a.training.objective import (
    Batch,
    Group,
    History,
    Inputs,
    TrainingContext,
    TrainingSpec,
    check_training,
    draw_rows,
    draw_seeds,
    noise,
)

WIDTHS = (1, 16, 32, 64, 64)


@register("classifier", "mel_cnn")
class MelCNN(nn.Module):
    """A convolutional classifier of log-mels, trained on real clips; it is no part of the model.

    Args:
        classes: Number of classes. Wired.
        data_filter: Filter of the clips to train on; no picture is needed, so usually `@data_filter.none`.
        steps: Optimizer steps.
        batch_size: Clips a step.
        learning_rate: Peak learning rate.

    Shapes:
        mel (B, 1, Tm, M) -> logits (B, classes), embeddings (B, 64)
    """

    def __init__(
        self,
        classes: int,
        *,
        data_filter: Callable[..., Any],
        steps: int = 150,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__()
        self.data_filter, self.steps = data_filter, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        check_training(self)
        self.layers = nn.Sequential(*(_halving(a, b) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)))
        self.head = nn.Linear(WIDTHS[-1], classes)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers((mel + 5) / 4)
        embedding = x.amax(dim=2).mean(dim=-1)  # the loudest moment, over all bins
        return self.head(embedding), embedding

    def fit(self, work: TrainingContext) -> History:
        """Train on the own sound of the clips whose class is known, and return the losses."""
        corpus = work.corpus

        def labelled(split: str) -> Tensor:
            rows = corpus.rows(split, self.data_filter)
            return rows[corpus.labels[rows] >= 0]

        rows, held_out = labelled("train"), labelled("validation")

        def draw(rng: torch.Generator) -> Batch:
            chosen = draw_rows(rows, self.batch_size, rng)
            gain, floor = torch.rand(2, len(chosen), generator=rng)
            return chosen, gain * 2 - 1, floor * 6 - 11, draw_seeds(len(chosen), rng)

        def fetch(chosen: Tensor, gain: Tensor, floor: Tensor, seeds: Tensor) -> Inputs:
            return _varied(corpus.spectrogram[chosen], gain, floor, seeds), corpus.labels[chosen]

        def cross_entropy(mel: Tensor, labels: Tensor) -> Tensor:
            logits, _ = self(mel)
            return functional.cross_entropy(logits, labels)

        def validation() -> Batch:
            """The clips as they are: without gain, and a noise floor at minus infinity."""
            zeros = torch.zeros(len(held_out))
            return held_out, zeros, zeros - math.inf, zeros.long()

        work.train_only()
        self.train()
        groups = [Group([self], self.learning_rate)]
        return work.fit(
            TrainingSpec("classifier", self.steps, draw, cross_entropy, groups, fetch, validation)
        )


def _halving(channels: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


def _varied(mel: Tensor, gain: Tensor, floor: Tensor, seeds: Tensor) -> Tensor:
    """Log-mels (B, 1, Tm, M) with another gain (B,) and a noise floor (B,).

    With random ones, loudness and a vocoder's residue say nothing about the class.
    """
    gain, floor = gain[:, None, None, None], floor[:, None, None, None]
    return torch.maximum(mel + gain, floor + 0.3 * noise(seeds, *mel.shape[1:]))
