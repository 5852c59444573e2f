"""The joint stage: ControlNet, pooler and U-Net together on video, text and sound (sec. II-C2)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from stav2a.models.stav2a import BLOCKS
from stav2a.registry import register
from stav2a.training.corpus import TrainingContext
from stav2a.training.objective import Group, TrainingSpec
from stav2a.training.stages.diffusion import DiffusionLoss


@register("stage", "joint")
class JointStage:
    """Train all that carries the video into the denoiser, together with the denoiser.

    A local head that the onset stage has trained stays as it is.

    Args:
        data_filter: Which clips to train on ("CN w/o Filter" takes all).
        steps: Optimizer steps.
        batch_size: Clips a step.
        learning_rate: AdamW's at its peak, of ControlNet, pooler and head.
        unet_learning_rate: The same of the U-Net, which has been trained before.
        ema_decay: Of the averaged weights.
    """

    uses = tuple(slot for slot in BLOCKS if slot != "vocoder")
    trains = ("local_head", "global_pooler", "condition_fuser", "backbone")
    text_dropout = 0.1

    def __init__(
        self,
        *,
        data_filter: Callable[..., Any],
        steps: int = 400,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        unet_learning_rate: float = 3e-4,
        ema_decay: float = 0.99,
    ) -> None:
        self.data_filter, self.steps, self.batch_size = data_filter, steps, batch_size
        self.learning_rate, self.unet_learning_rate = learning_rate, unet_learning_rate
        self.ema_decay = ema_decay

    def run(self, work: TrainingContext) -> dict[str, Any]:
        model: Any = work.model
        new = work.train_only(*self.trains)
        model.backbone.start_from_t2a()
        e_v = work.corpus.features()

        def predict(z_t: Tensor, t: Tensor, rows: Tensor, e_text: Tensor, mask: Tensor) -> Tensor:
            return model(z_t, t, e_v[rows].to(work.device), e_text, mask)

        objective = DiffusionLoss(
            work,
            work.corpus.texts,
            predict,
            rows=work.corpus.rows("train", self.data_filter),
            batch_size=self.batch_size,
            validation_rows=work.corpus.rows("validation", self.data_filter),
            text_dropout=self.text_dropout,
        )
        unet = model.backbone.unet
        fresh = [part for block in new for part in _without(block, unet)]
        return work.fit(
            TrainingSpec(
                "joint",
                self.steps,
                objective.draw,
                objective.loss,
                [Group(fresh, self.learning_rate), Group([unet], self.unet_learning_rate)],
                held_out=objective.held_out,
                ema_decay=self.ema_decay,
            )
        )


def _without(block: Any, inner: Any) -> list[Any]:
    """The children of a block but for one, or the block itself where it holds none."""
    children = list(block.children())
    return [child for child in children if child is not inner] if inner in children else [block]
