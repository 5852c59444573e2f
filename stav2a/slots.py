"""Slots: interfaces of the swappable components, and the arguments that the assembly supplies.

A component fills one slot. Recipes set its constructor arguments except the *wired* ones: `assemble` and the
stages supply those from the neighbouring components, so that no width is written twice, and no recipe may
bind them.

Letters used in all shapes:
    B batch, L video frames, T latent frames, F latent bins, C latent channels,
    M mel bins, S audio samples, D width, K tokens
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # these modules lie above; at run time a contract needs the names of arguments alone
    from stav2a.data.clip import Clip
    from stav2a.data.filters import Decision
    from stav2a.data.media import Decoded
    from stav2a.metrics.score import EvaluationSet, Score
    from stav2a.models.stav2a import STAV2A
    from stav2a.sampling.fast.shortcuts import PredictFn
    from stav2a.sampling.guiders import Branch
    from stav2a.training.objective import History, TrainingContext, TrainingSpec


class FeatureEncoder(Protocol):
    """video (B, L, 3, H, W) in [0, 1] -> e_v (B, L, D_v), at the encoder's own frame rate and size.

    One that embeds sound too has a module `audio_tower`, which `stage.contrastive` trains with it: log-mel
    (B, 1, Tm, M) and the number of frames -> (B, L, D_v).

    A second one may serve as `run.temporal_encoder`, whose features the local head takes.

    Attributes:
        dim: Width of the feature of a frame, D_v.
        frame_rate_hz: Expected frames per second.
        frame_size: Side of the square frames in pixels, H and W.
    """

    dim: int
    frame_rate_hz: float
    frame_size: int

    def forward(self, video: Tensor) -> Tensor: ...


class TextEncoder(Protocol):
    """B captions -> e_text (B, K0, D_c) and its mask (B, K0), True where a token counts.

    Attributes:
        dim: Width of a token, D_c.
    """

    dim: int

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]: ...


class LocalHead(Protocol):
    """e_v (B, L, D_v) -> e_lv (B, T, D_l): video features on the latent's time axis (sec. II-B1).

    The features are the temporal encoder's where there is one.

    One that the onset stage trains also has `onset_logits(e_v)`, which gives logits (B, T).

    Attributes:
        dim: Width of the local features, D_l; 0 where there are none.
    """

    dim: int

    def forward(self, e_v: Tensor) -> Tensor: ...


class GlobalPooler(Protocol):
    """e_v (B, L, D_v) -> e_gv (B, K, D_c): semantics of a clip in a few tokens (sec. II-B2)."""

    def forward(self, e_v: Tensor) -> Tensor: ...


class ConditionFuser(Protocol):
    """e_text (B, K0, D_c), its mask (B, K0), e_gv (B, K, D_c) -> c (B, N, D_c), its mask (B, N) (eq. 5).

    One that puts the video's tokens as they are before all others has a true `video_first`.
    """

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]: ...


# Advice where a part is for a model of codes and another for a denoiser.
ALL_FOR_CODES = (
    "Bind run.unet = @unet.code_transformer, run.backbone = @backbone.autoregressive, run.sampler = "
    "@sampler.autoregressive and the stage @stage.codes, as recipes/designs/im2wav.gin does; or none of them."
)


class UNet(Protocol):
    """The text-to-audio denoiser that a backbone builds on, called like diffusers' `UNet2DConditionModel`.

    It takes z_t (B, C, T, F), t (B,), c (B, N, D_c) and its mask (B, N), True where a token counts. With
    `return_dict=False` it gives a tuple, whose first value is the prediction (B, C, T, F). A model of codes
    has a `codebook`, and predicts the expected latent; see `unet.code_transformer`.
    """

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        encoder_attention_mask: Tensor | None,
        return_dict: bool,
    ) -> Any: ...


class Backbone(Protocol):
    """z_t (B, C, T, F), t (B,), c (B, N, D_c), mask (B, N), e_lv (B, T, D_l) -> prediction (B, C, T, F).

    One of a model of codes also has `logits` and `cross_entropy`; see `backbone.autoregressive`.

    Attributes:
        unet: The U-Net that it was given, as a submodule.
    """

    unet: nn.Module

    def start_from_t2a(self) -> None: ...
    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor: ...


class FrontEnd(Protocol):
    """audio (B, S) at its sampling rate -> what the autoencoder reads, (B, 1, Tm, M), where Tm = S // hop.

    Attributes:
        sample_rate: Sampling rate of the model's sound, in Hz.
        hop: Samples per frame.
        bins: Bins of a frame, M.
    """

    sample_rate: int
    hop: int
    bins: int

    def forward(self, audio: Tensor) -> Tensor: ...


class Autoencoder(Protocol):
    """log-mel (B, 1, Tm, M) <-> z (B, C, T, F), whitened: about zero mean and unit deviation.

    One made for a number of bins also has `bins`, M; one made for a rate `sample_rate`. One that does not
    divide bins as it divides frames also has `latent_bins`, F.

    Attributes:
        latent_channels: Channels of the latent, C.
        downsampling: Mel frames per latent frame, Tm / T, and bins per latent bin, M / F.
    """

    latent_channels: int
    downsampling: int

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]: ...
    def decode(self, z: Tensor) -> Tensor: ...


class Vocoder(Protocol):
    """log-mel (B, 1, Tm, M) -> waveform (B, Tm * hop).

    One made for a rate, a hop or a number of bins also has `sample_rate`, `hop` or `bins`.
    """

    def forward(self, mel: Tensor) -> Tensor: ...


class Dataset(Protocol):
    """List of clips: files with sound, captions and splits.

    One whose parameters do not determine its clips, as it reads files, also has `identity(contents)`: a JSON
    value of all that its clips depend on, with `contents.of_files(paths)` for the files.
    """

    def clips(self, folder: Path) -> "Sequence[Clip]": ...


class DataFilter(Protocol):
    """Decoded clip -> whether to keep it, and the reason."""

    def __call__(self, clip: "Decoded") -> "Decision": ...


class OnsetDetector(Protocol):
    """audio (S,) at `sample_rate` Hz -> onset times in seconds, ascending."""

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray: ...


class OpticalFlow(Protocol):
    """Grey pictures (N, H, W) uint8 -> the mean magnitude of the flow to the next one (N - 1,), in pixels.

    Attributes:
        definition: Name and settings; flows of equal definitions are comparable.
    """

    definition: str

    def __call__(self, grey: np.ndarray) -> np.ndarray: ...


class Metric(Protocol):
    """Evaluation set -> one score, with its definition, its interval and its values per clip.

    What can't be measured is a score with a reason in `unavailable`, no error. A `reporter` makes scores, and
    lets a study check the metric's name and direction before it trains.
    """

    def __call__(self, samples: "EvaluationSet") -> "Score": ...


class Objective(Protocol):
    """Target that the denoiser is trained to predict, and its noise levels.

    Latents z, noise eps and targets are (B, C, T, F), timesteps t (B,).

    Attributes:
        prediction_type: Name of the prediction for schedulers, as diffusers has it.
    """

    prediction_type: str

    def draw_times(self, count: int, rng: torch.Generator) -> Tensor: ...
    def spread_times(self, count: int) -> Tensor: ...
    def add_noise(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor: ...
    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor: ...
    def weights(self, t: Tensor) -> Tensor | None: ...


class Scheduler(Protocol):
    """Scheduler of diffusers: noise levels, and the step from z_t to z_{t-1}."""

    def set_timesteps(self, num_inference_steps: int) -> None: ...
    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any: ...


class Guider(Protocol):
    """Predictions of several branches of the denoiser -> one, all (B, C, T, F), by the weight of the text.

    `branches` names the branches that a weight needs; the last one has all conditions. Where there are
    several, `combine` gets their predictions in this order, and the weight, a number or a tensor. It makes no
    choice by a tensor's value.
    """

    def branches(self, guidance_scale: float) -> "Sequence[Branch]": ...
    def combine(self, predictions: Sequence[Tensor], guidance_scale: float | Tensor) -> Tensor: ...


class Sampler(Protocol):
    """The denoising loop: video features e_v (B, L, D_v) and B captions -> whitened latents z (B, C, T, F).

    A model with a temporal encoder also needs its features e_tv (B, L_t, D_t).

    Arguments are the assembled model in evaluation mode, a diffusers scheduler (its state is set anew), the
    number of steps, w of eq. 7, B seeds (one per clip, for its initial noise and the scheduler's), captions
    in place of the null text of eq. 7, a guider (eq. 7's by default), and a wrapper of the timesteps such as
    a progress bar. Only the guider's branches are computed.
    """

    def __call__(
        self,
        model: "STAV2A",
        e_v: Tensor,
        captions: Sequence[str],
        *,
        scheduler: Any,
        num_inference_steps: int,
        guidance_scale: float,
        seeds: Sequence[int],
        negative_captions: Sequence[str] | None = None,
        guider: Guider,
        e_tv: Tensor | None = None,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> Tensor: ...


class Engine(Protocol):
    """Step of a sampler on static tensors -> the same step, executed in another way.

    An engine may have attributes: `device_type`, the only kind of device that it serves; `fixed_shapes`, True
    where tensors of another shape are compiled or recorded anew; `compiles`, True where operations are fused.
    """

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]: ...


class Shortcut(Protocol):
    """Parts of the model that a sampler computes: prediction functions by name, and the one of each step."""

    def predict_fns(self, backbone: Any) -> "Mapping[str, PredictFn]": ...
    def plan(self, timesteps: Sequence[int]) -> Sequence[str]: ...


class Adapter(Protocol):
    """Layers that a stage trains in place of a block's weights, which it freezes.

    Attributes:
        blocks: Slots of the blocks that it is attached to.
    """

    blocks: tuple[str, ...]

    def attach(self, block: nn.Module) -> None: ...


class Stage(Protocol):
    """Training stage: its blocks, its clips and its loss, which `run` gives `work.fit` in a `TrainingSpec`.

    Attributes:
        data_filter: Factory of the filter of the clips to train on.
        steps: Optimizer steps; None where the length is given in epochs.
        idle: True for a stage of no steps, which is left out.
        uses: Slots of the blocks that its result depends on; those it trains are among them.
        trains: Slots of the blocks that it changes: what is stored is theirs.
    """

    data_filter: Callable[..., Any]
    steps: int | None
    uses: tuple[str, ...]
    trains: tuple[str, ...]

    @property
    def idle(self) -> bool: ...
    def run(self, work: "TrainingContext") -> "History": ...


class Optimizer(Protocol):
    """Optimizer of torch over parameter groups."""

    def step(self) -> Any: ...
    def zero_grad(self) -> None: ...


class Trainer(Protocol):
    """Training loop of every stage: hardware, precision, size of the pieces of a batch."""

    def fit(self, plan: "TrainingSpec", work: "TrainingContext") -> "History": ...


class Classifier(Protocol):
    """log-mel (B, 1, Tm, M) -> logits (B, classes), embeddings (B, D); trained on the dataset's classes.

    Attributes:
        data_filter: Factory of the filter of the clips to train on.
        steps: Optimizer steps.
    """

    data_filter: Callable[..., Any]
    steps: int

    def fit(self, work: "TrainingContext") -> "History": ...
    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]: ...


class Judge(Protocol):
    """audio (S,) at `sample_rate` Hz -> outputs of a pretrained model.

    Attributes:
        name: Name in tables.
        fault: Reason why it can't run, such as missing weights; None where it can.
    """

    name: str
    fault: str | None

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray: ...


Shape = tuple[str, ...]  # letters, or numbers as text


@dataclass(frozen=True)
class Shapes:
    """Shapes of a method's arguments and of the values it returns, by their symbols and in their order."""

    takes: Mapping[str, Shape]
    gives: Mapping[str, Shape]


@dataclass(frozen=True)
class Slot:
    """Contract of a slot, the constructor arguments that `assemble` supplies, and its methods' shapes.

    A component must take the arguments `wired`, and may take those `offered`.
    """

    contract: type
    wired: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    shapes: Mapping[str, Shapes] = field(default_factory=dict)


E_V, E_TEXT, E_LV, E_GV = ("B", "L", "D_v"), ("B", "K0", "D_c"), ("B", "T", "D_l"), ("B", "K", "D_c")
TOKENS, MASK, LATENT, MEL = ("B", "N", "D_c"), ("B", "N"), ("B", "C", "T", "F"), ("B", "1", "Tm", "M")

# Parameters that components of a slot of another name fill: a second block of its kind.
ROLES = {"temporal_encoder": "feature_encoder"}

SLOTS: dict[str, Slot] = {
    "feature_encoder": Slot(
        FeatureEncoder, shapes={"forward": Shapes({"video": ("B", "L", "3", "H", "W")}, {"e_v": E_V})}
    ),
    "text_encoder": Slot(
        TextEncoder,
        shapes={"forward": Shapes({"captions": ("B",)}, {"e_text": E_TEXT, "mask": ("B", "K0")})},
    ),
    "local_head": Slot(
        LocalHead, wired=("in_dim", "length"), shapes={"forward": Shapes({"e_v": E_V}, {"e_lv": E_LV})}
    ),
    "global_pooler": Slot(
        GlobalPooler, wired=("in_dim", "cond_dim"), shapes={"forward": Shapes({"e_v": E_V}, {"e_gv": E_GV})}
    ),
    "condition_fuser": Slot(
        ConditionFuser,
        wired=("cond_dim",),
        shapes={
            "forward": Shapes(
                {"e_text": E_TEXT, "mask": ("B", "K0"), "e_gv": E_GV}, {"c": TOKENS, "mask": MASK}
            )
        },
    ),
    "unet": Slot(
        UNet,
        wired=("latent_channels", "cond_dim"),
        offered=("latent_bins",),
        shapes={
            "forward": Shapes(
                {
                    "sample": LATENT,
                    "timestep": ("B",),
                    "encoder_hidden_states": TOKENS,
                    "encoder_attention_mask": MASK,
                },
                {"prediction": LATENT},
            )
        },
    ),
    "backbone": Slot(
        Backbone,
        wired=("unet", "local_dim"),
        offered=("video_tokens",),  # at the beginning of c; 0 for other fusers than video_first
        shapes={
            "forward": Shapes(
                {"z_t": LATENT, "t": ("B",), "c": TOKENS, "mask": MASK, "e_lv": E_LV}, {"prediction": LATENT}
            )
        },
    ),
    "front_end": Slot(FrontEnd, shapes={"forward": Shapes({"audio": ("B", "S")}, {"mel": MEL})}),
    "autoencoder": Slot(
        Autoencoder,
        shapes={
            "encode": Shapes({"mel": MEL}, {"mean": LATENT, "std": LATENT}),
            "decode": Shapes({"z": LATENT}, {"mel": MEL}),
        },
    ),
    "vocoder": Slot(
        Vocoder,
        offered=("front_end",),
        shapes={"forward": Shapes({"mel": MEL}, {"waveform": ("B", "S")})},
    ),
    "dataset": Slot(Dataset),
    "data_filter": Slot(DataFilter),
    "onset_detector": Slot(OnsetDetector),
    "optical_flow": Slot(OpticalFlow),
    "metric": Slot(Metric),
    "judge": Slot(Judge),
    "objective": Slot(Objective),
    "scheduler": Slot(Scheduler, wired=("prediction_type",)),
    "guider": Slot(Guider),
    "sampler": Slot(Sampler),
    "engine": Slot(Engine),
    "shortcut": Slot(Shortcut),
    "stage": Slot(Stage),
    "adapter": Slot(Adapter),
    "optimizer": Slot(Optimizer, wired=("params",)),
    "trainer": Slot(Trainer),
    "classifier": Slot(
        Classifier,
        wired=("classes",),
        shapes={"forward": Shapes({"mel": MEL}, {"logits": ("B", "classes"), "embeddings": ("B", "D")})},
    ),
}
