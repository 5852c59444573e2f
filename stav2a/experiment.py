"""The root of every recipe: which component fills which slot, and how a run is carried out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import gin

from stav2a import recipe
from stav2a.assembly import BLOCKS, STAV2A, assemble
from stav2a.errors import UsageError
from stav2a.registry import expect

MOST_STEPS = 999
STORE_FORMAT = "1"  # raise it when the same settings give another result; one component's: its own `version`


@gin.configurable("run")
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One variant of STA-V2A: its blocks, its data, its training and its evaluation.

    Args:
        feature_encoder: Video frames -> e_v.
        text_encoder: Captions -> e_text.
        local_head: e_v -> e_lv, the temporal condition.
        global_pooler: e_v -> e_gv, the semantic condition.
        condition_fuser: Joins e_text and e_gv.
        unet: The text-to-audio denoiser.
        backbone: The denoiser with all its conditions.
        autoencoder: Mel <-> latent.
        vocoder: Mel -> waveform.
        dataset: The clips.
        onset_detector: Gives the pseudo-labels of the onset pretext task.
        scheduler: Steps through the noise levels when sampling.
        sampler: The denoising loop.
        stages: Training stages, in order.
        trainer: How they are trained.
        classifier: The judge of FD, KL, IS and class accuracy; None where clips have no class.
        metrics: What is measured on the test split.
        duration_s: Seconds of one clip.
        prediction_type: What the denoiser predicts: eps as in eq. 6, or v.
        num_inference_steps: Denoising steps of a sample.
        guidance_scale: Weight w of the text in eq. 7.
        seed: Of every random choice.
    """

    version: ClassVar[str] = STORE_FORMAT

    feature_encoder: Callable[..., Any]
    text_encoder: Callable[..., Any]
    local_head: Callable[..., Any]
    global_pooler: Callable[..., Any]
    condition_fuser: Callable[..., Any]
    unet: Callable[..., Any]
    backbone: Callable[..., Any]
    autoencoder: Callable[..., Any]
    vocoder: Callable[..., Any]
    dataset: Callable[..., Any]
    onset_detector: Callable[..., Any]
    scheduler: Callable[..., Any]
    sampler: Callable[..., Any]
    stages: Sequence[Callable[..., Any]]
    trainer: Callable[..., Any]
    classifier: Callable[..., Any] | None
    metrics: Sequence[Callable[..., Any]]
    duration_s: float = 10.24
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    num_inference_steps: int = 200
    guidance_scale: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= MOST_STEPS:
            raise UsageError(
                f"run.num_inference_steps = {self.num_inference_steps}: expected 1 to {MOST_STEPS}, "
                "one fewer than the noise levels that the model is trained on."
            )
        if self.duration_s <= 0:
            raise UsageError(f"run.duration_s = {self.duration_s}: expected more than 0 seconds.")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in SINGLE and value is not None:
                expect(each.name, value)
            for factory in value if each.name in LISTS else ():
                expect(LISTS[each.name], factory)

    def model(self) -> STAV2A:
        """The assembled model, its random weights drawn from the seed."""
        import torch

        torch.manual_seed(self.seed)
        return assemble({slot: getattr(self, slot) for slot in BLOCKS}, duration_s=self.duration_s)

    def described(self, slot: str) -> Any:
        """A slot's component with all its parameters."""
        return recipe.describe(getattr(self, slot))


SINGLE = (*BLOCKS, "dataset", "onset_detector", "scheduler", "sampler", "trainer", "classifier")
LISTS = {"stages": "stage", "metrics": "metric"}
