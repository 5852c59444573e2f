"""Every stage at a size for tests of the tiny model."""

from functools import partial
from typing import Any

from stav2a.data.filters import KeepAll
from stav2a.training.stages import (
    AutoencoderStage,
    ContrastiveStage,
    JointStage,
    OnsetStage,
    T2AFinetune,
    T2APretrain,
    TextContrastiveStage,
)

STAGES: dict[str, Any] = {
    "autoencoder": partial(AutoencoderStage, data_filter=KeepAll, steps=30, batch_size=8, crop=32),
    "contrastive": partial(ContrastiveStage, data_filter=KeepAll, steps=24, batch_size=6, segment_frames=2),
    "text_contrastive": partial(TextContrastiveStage, data_filter=KeepAll, steps=24, batch_size=6),
    "t2a_pretrain": partial(T2APretrain, data_filter=KeepAll, steps=24, batch_size=8, ema_decay=0.5),
    "t2a_finetune": partial(T2AFinetune, data_filter=KeepAll, steps=24, batch_size=8, ema_decay=0.5),
    "onset": partial(OnsetStage, data_filter=KeepAll, steps=30, batch_size=8),
    "joint": partial(JointStage, data_filter=KeepAll, steps=24, batch_size=8, ema_decay=0.5),
}
