"""Text to audio: the prior that the video model starts from (sec. II-C1)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from stav2a.registry import register
from stav2a.training.corpus import TrainingContext
from stav2a.training.objective import Batch, Group, TrainingSpec
from stav2a.training.stages.diffusion import DiffusionLoss


@register("stage", "t2a_pretrain")
class T2APretrain:
    """Train the U-Net, and a text encoder that is not pretrained, on captions and sound.

    Args:
        data_filter: Which clips to train on; sound alone counts, so usually `@data_filter.none`.
        steps: Optimizer steps.
        batch_size: Clips a step.
        learning_rate: AdamW's, at its peak.
        text_dropout: Probability of the null text, for classifier-free guidance.
        ema_decay: Of the averaged weights.
    """

    name = "t2a_pretrain"
    uses: tuple[str, ...] = ("autoencoder", "text_encoder", "unet")
    trains: tuple[str, ...] = ("text_encoder", "unet")

    def __init__(
        self,
        *,
        data_filter: Callable[..., Any],
        steps: int = 600,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        text_dropout: float = 0.1,
        ema_decay: float = 0.99,
    ) -> None:
        self.data_filter, self.steps, self.batch_size = data_filter, steps, batch_size
        self.learning_rate, self.text_dropout, self.ema_decay = learning_rate, text_dropout, ema_decay

    def run(self, work: TrainingContext) -> dict[str, Any]:
        model = work.model

        def condition(rows: Tensor, drop: Tensor) -> Batch:
            return (drop,)  # the text encoder may need its gradient

        def predict(z_t: Tensor, t: Tensor, rows: Tensor, drop: Tensor) -> Tensor:
            e_text, mask = work.corpus.texts(rows, drop)
            return model.block("unet")(z_t, t, e_text, encoder_attention_mask=mask, return_dict=False)[0]

        objective = DiffusionLoss(
            work,
            condition,
            predict,
            rows=work.corpus.rows("train", self.data_filter),
            batch_size=self.batch_size,
            validation_rows=work.corpus.rows("validation", self.data_filter),
            text_dropout=self.text_dropout,
        )
        return work.fit(
            TrainingSpec(
                self.name,
                self.steps,
                objective.draw,
                objective.loss,
                [Group(work.train_only(*self.trains), self.learning_rate)],
                held_out=objective.held_out,
                ema_decay=self.ema_decay,
            )
        )


@register("stage", "t2a_finetune")
class T2AFinetune(T2APretrain):
    """Go on training the U-Net on the clips that the video model will see ("FineTuned-T2A").

    Args:
        data_filter: Which clips to train on.
        steps: Optimizer steps.
        batch_size: Clips a step.
        learning_rate: AdamW's, at its peak.
        text_dropout: Probability of the null text, for classifier-free guidance.
        ema_decay: Of the averaged weights.
    """

    name = "t2a_finetune"
    trains = ("unet",)
