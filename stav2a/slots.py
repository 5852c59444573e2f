"""Slots: interfaces of the swappable components, and the arguments that the assembly supplies.

A component fills one slot. Recipes set its constructor arguments except the *wired* ones: `assemble` and the
stages supply those from the neighbouring components, so that no width is written twice, and no recipe may
bind them.

Letters used in all shapes:
    B batch, L video frames, T latent frames, F latent bins, C latent channels,
    M mel bins, S audio samples, D width, K tokens
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


class FeatureEncoder(Protocol):
    """video (B, L, 3, H, W) in [0, 1] -> e_v (B, L, D_v), at the encoder's own frame rate and size."""

    dim: int
    frame_rate_hz: float
    frame_size: int

    def forward(self, video: Tensor) -> Tensor: ...


class TextEncoder(Protocol):
    """B captions -> e_text (B, K0, D_c) and its mask (B, K0), True where a token counts."""

    dim: int

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]: ...


class LocalHead(Protocol):
    """e_v (B, L, D_v) -> e_lv (B, T, D_l): video features on the latent's time axis (sec. II-B1)."""

    dim: int

    def forward(self, e_v: Tensor) -> Tensor: ...


class GlobalPooler(Protocol):
    """e_v (B, L, D_v) -> e_gv (B, K, D_c): semantics of a clip in a few tokens (sec. II-B2)."""

    def forward(self, e_v: Tensor) -> Tensor: ...


class ConditionFuser(Protocol):
    """e_text (B, K0, D_c), its mask (B, K0), e_gv (B, K, D_c) -> c (B, K0+K, D_c) and its mask (eq. 5)."""

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]: ...


class UNet(Protocol):
    """The text-to-audio denoiser that a backbone builds on: a diffusers `UNet2DConditionModel`."""

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Any: ...


class Backbone(Protocol):
    """z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> prediction (B, C, T, F)."""

    unet: nn.Module

    def start_from_t2a(self) -> None: ...
    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor: ...


class Autoencoder(Protocol):
    """log-mel (B, 1, Tm, M) <-> z (B, C, T, F), whitened: about zero mean and unit deviation."""

    latent_channels: int
    downsampling: int

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]: ...
    def decode(self, z: Tensor) -> Tensor: ...


class Vocoder(Protocol):
    """log-mel (B, 1, Tm, M) -> waveform (B, S)."""

    def forward(self, mel: Tensor) -> Tensor: ...


class Dataset(Protocol):
    """List of clips: files with sound, captions and splits.

    One whose parameters do not determine its clips, as it reads files, also has `identity(contents)`: a JSON
    value of all that its clips depend on, with `contents.of_files(paths)` for the files.
    """

    def clips(self, folder: Path) -> Sequence[Any]: ...


class DataFilter(Protocol):
    """Decoded clip -> whether to keep it, and the reason."""

    def __call__(self, clip: Any) -> Any: ...


class OnsetDetector(Protocol):
    """audio (S,) at `sample_rate` Hz -> onset times in seconds, ascending."""

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray: ...


class OpticalFlow(Protocol):
    """Grey pictures (N, H, W) uint8 -> the mean magnitude of the flow to the next one (N - 1,), in pixels."""

    definition: str

    def __call__(self, grey: np.ndarray) -> np.ndarray: ...


class Metric(Protocol):
    """Evaluation set -> one score, with its definition, its interval and its values per clip."""

    def __call__(self, samples: Any) -> Any: ...


class Scheduler(Protocol):
    """Scheduler of diffusers: noise levels, and the step from z_t to z_{t-1}."""

    def set_timesteps(self, num_inference_steps: int) -> None: ...
    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any: ...


class Sampler(Protocol):
    """The denoising loop: video features e_v (B, L, D_v) and B captions -> whitened latents z (B, C, T, F).

    Arguments are the assembled model in evaluation mode, a diffusers scheduler (its state is set anew), the
    number of steps, w of eq. 7, B seeds (one per clip, for its initial noise and the scheduler's), and a
    wrapper of the timesteps such as a progress bar. At a guidance scale of 1 the null branch is not computed.
    """

    def __call__(
        self,
        model: Any,
        e_v: Tensor,
        captions: Sequence[str],
        *,
        scheduler: Any,
        num_inference_steps: int,
        guidance_scale: float,
        seeds: Sequence[int],
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> Tensor: ...


class Engine(Protocol):
    """Step of a sampler on static tensors -> the same step, executed in another way."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]: ...


class Shortcut(Protocol):
    """Parts of the model that a sampler computes: prediction functions by name, and the one of each step."""

    def predict_fns(self, backbone: Any) -> Mapping[str, Any]: ...
    def plan(self, timesteps: Sequence[int]) -> Sequence[str]: ...


class Stage(Protocol):
    """Training stage: its blocks, its clips and its loss."""

    def run(self, work: Any) -> Any: ...


class Optimizer(Protocol):
    """Optimizer of torch over parameter groups."""

    def step(self) -> Any: ...
    def zero_grad(self) -> None: ...


class Trainer(Protocol):
    """Training loop of every stage: hardware, precision, size of the pieces of a batch."""

    def fit(self, plan: Any, work: Any) -> Any: ...


class Classifier(Protocol):
    """log-mel (B, 1, Tm, M) -> logits (B, classes), embeddings (B, D); trained on the dataset's classes."""

    def fit(self, work: Any) -> Any: ...
    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]: ...


class Judge(Protocol):
    """audio (S,) at `sample_rate` Hz -> outputs of a pretrained model; `fault` says why it can't run."""

    name: str
    fault: str | None

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Slot:
    """Contract of a slot, and the constructor arguments that `assemble` supplies."""

    contract: type
    wired: tuple[str, ...] = ()


SLOTS: dict[str, Slot] = {
    "feature_encoder": Slot(FeatureEncoder),
    "text_encoder": Slot(TextEncoder),
    "local_head": Slot(LocalHead, wired=("in_dim", "length")),
    "global_pooler": Slot(GlobalPooler, wired=("in_dim", "cond_dim")),
    "condition_fuser": Slot(ConditionFuser),
    "unet": Slot(UNet, wired=("latent_channels", "cond_dim")),
    "backbone": Slot(Backbone, wired=("unet", "local_dim")),
    "autoencoder": Slot(Autoencoder),
    "vocoder": Slot(Vocoder),
    "dataset": Slot(Dataset),
    "data_filter": Slot(DataFilter),
    "onset_detector": Slot(OnsetDetector),
    "optical_flow": Slot(OpticalFlow),
    "metric": Slot(Metric),
    "judge": Slot(Judge),
    "scheduler": Slot(Scheduler, wired=("prediction_type",)),
    "sampler": Slot(Sampler),
    "engine": Slot(Engine),
    "shortcut": Slot(Shortcut),
    "stage": Slot(Stage),
    "optimizer": Slot(Optimizer, wired=("params",)),
    "trainer": Slot(Trainer),
    "classifier": Slot(Classifier, wired=("classes",)),
}
