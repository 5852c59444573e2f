"""A small sound classifier trained on the dataset's own classes, for the metrics at laptop scale."""

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
    TrainingContext,
    TrainingSpec,
    check_training,
    draw_rows,
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
        """Train on the clips' own sound, and return the losses."""
        corpus = work.corpus
        rows = corpus.rows("train", self.data_filter)
        held_out = corpus.rows("validation", self.data_filter)

        def draw(rng: torch.Generator) -> Batch:
            chosen = draw_rows(rows, self.batch_size, rng)
            return _varied(corpus.mel[chosen], rng), corpus.labels[chosen]

        def cross_entropy(mel: Tensor, labels: Tensor) -> Tensor:
            logits, _ = self(mel.to(work.device))
            return functional.cross_entropy(logits, labels.to(work.device))

        def validation() -> Batch:
            return corpus.mel[held_out], corpus.labels[held_out]

        work.train_only()
        self.train()
        groups = [Group([self], self.learning_rate)]
        return work.fit(TrainingSpec("classifier", self.steps, draw, cross_entropy, groups, validation))


def _halving(channels: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


def _varied(mel: Tensor, rng: torch.Generator) -> Tensor:
    """Random gain and noise floor, so that loudness and a vocoder's residue say nothing about the class."""
    gain = torch.rand(len(mel), 1, 1, 1, generator=rng) * 2 - 1
    floor = torch.rand(len(mel), 1, 1, 1, generator=rng) * 6 - 11
    return torch.maximum(mel + gain, floor + 0.3 * torch.randn(mel.shape, generator=rng))
