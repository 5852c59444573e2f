"""The contrastive stage: CAVP's audio-visual contrast, for an encoder trained from nothing."""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from stav2a.models.stav2a import as_video
from stav2a.registry import register
from stav2a.training.corpus import TrainingContext
from stav2a.training.objective import Group, TrainingSpec


@register("stage", "contrastive")
class ContrastiveStage:
    """Bring picture and sound of the same moment together, all others apart (Diff-Foley [10]).

    Segments of other clips give the semantic contrast, other segments of the same clip the temporal
    one; both sit in one matrix of similarities.

    Args:
        data_filter: Which clips to train on.
        steps: Optimizer steps.
        batch_size: Clips a step.
        learning_rate: AdamW's, at its peak.
        segment_frames: Video frames a segment; must divide the clip's frames.
    """

    uses = ("feature_encoder",)
    trains = ("feature_encoder",)

    def __init__(
        self,
        *,
        data_filter: Callable[..., Any],
        steps: int = 200,
        batch_size: int = 16,
        learning_rate: float = 2e-3,
        segment_frames: int = 4,
    ) -> None:
        self.data_filter, self.steps, self.batch_size = data_filter, steps, batch_size
        self.learning_rate, self.segment_frames = learning_rate, segment_frames

    def run(self, work: TrainingContext) -> dict[str, Any]:
        video: Any = work.model.feature_encoder
        torch.manual_seed(work.seed)
        audio = AudioTower(work.corpus.mel.shape[-1], video.dim).to(work.device)
        rows = work.corpus.rows("train", self.data_filter)
        held_out = work.corpus.rows("validation", self.data_filter)[:32]

        def contrast(chosen: Tensor) -> Tensor:
            frames, mel = work.corpus.frames[chosen].to(work.device), work.corpus.mel[chosen].to(work.device)
            e_v = self._segments(video(as_video(frames)))
            e_a = self._segments(audio(mel, frames.shape[1]))
            logits = audio.scale.exp() * e_v @ e_a.T
            same = torch.arange(len(logits), device=logits.device)
            return (functional.cross_entropy(logits, same) + functional.cross_entropy(logits.T, same)) / 2

        blocks = [*work.train_only("feature_encoder"), audio]
        return work.fit(
            TrainingSpec(
                "contrastive",
                self.steps,
                lambda rng: (rows[torch.randperm(len(rows), generator=rng)[: self.batch_size]],),
                contrast,
                [Group(blocks, self.learning_rate)],
                held_out=lambda: (held_out,),
                divisible=False,  # each clip is told from all others of its batch
            )
        )

    def _segments(self, e: Tensor) -> Tensor:
        """(B, L, D) -> unit vectors (B * L / segment_frames, D)."""
        means = reduce(e, "b (s f) d -> (b s) d", "mean", f=self.segment_frames)
        return functional.normalize(means, dim=-1)


class AudioTower(nn.Module):
    """A small convolutional tower on log-mels, needed only while training.

    Shapes:
        mel (B, 1, Tm, M) -> (B, L, D)
    """

    def __init__(self, bins: int, dim: int, width: int = 64) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.layers = nn.Sequential(
            nn.BatchNorm1d(bins),
            nn.Conv1d(bins, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(width, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(2 * width, dim, 1),
        )

    def forward(self, mel: Tensor, frames: int) -> Tensor:
        x = self.layers(rearrange(mel, "b 1 t m -> b m t"))
        return rearrange(functional.adaptive_avg_pool1d(x, frames), "b d l -> b l d")
