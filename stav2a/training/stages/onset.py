"""The onset pretext task: predict from the picture where the sound begins (sec. II-B1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.registry import RegistryError, register
from stav2a.training.corpus import TrainingContext
from stav2a.training.objective import Group, TrainingSpec


@register("stage", "onset")
class OnsetStage:
    """Binary cross entropy between the local head's logits and the pseudo-labels (eq. 1).

    Args:
        data_filter: Which clips to train on.
        steps: Optimizer steps.
        batch_size: Clips a step.
        learning_rate: AdamW's, at its peak.

    Raises:
        RegistryError: The local head has no onset logits.
    """

    uses = ("feature_encoder", "local_head")
    trains = ("local_head",)

    def __init__(
        self,
        *,
        data_filter: Callable[..., Any],
        steps: int = 300,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
    ) -> None:
        self.data_filter, self.steps = data_filter, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate

    def run(self, work: TrainingContext) -> dict[str, Any]:
        head: Any = work.model.local_head
        if not hasattr(head, "onset_logits"):
            raise RegistryError(
                f"stage.onset needs a local head with an onset pretext task; {type(head).__name__} has no "
                "method onset_logits. Bind run.local_head = @local_head.onset, or leave the stage out."
            )
        e_v, onsets = work.corpus.features(), work.corpus.onsets
        rows = work.corpus.rows("train", self.data_filter)
        held_out = work.corpus.rows("validation", self.data_filter)

        def cross_entropy(chosen: Tensor) -> Tensor:
            logits = head.onset_logits(e_v[chosen].to(work.device))
            return functional.binary_cross_entropy_with_logits(logits, onsets[chosen].to(work.device))

        return work.fit(
            TrainingSpec(
                "onset",
                self.steps,
                lambda rng: (rows[torch.randint(len(rows), (self.batch_size,), generator=rng)],),
                cross_entropy,
                [Group(work.train_only("local_head"), self.learning_rate)],
                held_out=lambda: (held_out,),
                validations=10,
            )
        )
