"""The training stages, from the encoders over text-to-audio to the joint model (sec. II)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional

from stav2a.models.adapters import NoAdapter
from stav2a.models.stav2a import BLOCKS, as_video, check_denoises, check_predicts_codes, encode_captions
from stav2a.registry import RegistryError, expect, register, selector_of
from stav2a.training.corpus import Corpus
from stav2a.training.objective import (
    Batch,
    Group,
    History,
    Inputs,
    TrainingContext,
    TrainingSpec,
    adapted,
    check_training,
    draw_rows,
    draw_seeds,
    generator,
    noise,
)
from stav2a.utils.audio_tower import AudioTower, symmetric_contrast
from stav2a.utils.errors import UsageError, check_bounds

CODEBOOK_CLIPS = 256  # whose latents a codebook is fitted to


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """Settings of every stage, whose length is given in steps or in epochs.

    Args:
        data_filter: Filter of the clips to train on.
        steps: Optimizer steps; None where `epochs` is given.
        epochs: Passes over the clips that the filter keeps; None where `steps` is given.
        batch_size: Clips a step, over all processes.
        learning_rate: Peak learning rate.
        validation_clips: Clips of the validation loss; None for all that the filter keeps.

    Raises:
        UsageError: Both steps and epochs, or neither; a number that is too small.
    """

    data_filter: Callable[..., Any]
    steps: int | None
    epochs: int | None = None
    batch_size: int
    learning_rate: float
    validation_clips: int | None = 32

    def __post_init__(self) -> None:
        check_training(self)

    @property
    def idle(self) -> bool:
        """True for a stage of no steps, whose blocks come with their weights or stay as they are drawn."""
        return 0 in (self.steps, self.epochs)

    def count_steps(self, corpus: Corpus) -> int:
        """Optimizer steps on these clips: as given, or as many whole batches as the epochs need."""
        if self.epochs is None:
            assert self.steps is not None, "refused by check_training"
            return self.steps
        return self.epochs * math.ceil(len(corpus.rows("train", self.data_filter)) / self.batch_size)

    def held_out(self, corpus: Corpus) -> Tensor:
        """Row numbers of the clips of the validation loss."""
        return corpus.rows("validation", self.data_filter)[: self.validation_clips]


@register("stage", "autoencoder")
@dataclass(frozen=True, kw_only=True)
class AutoencoderStage(TrainingStage):
    """Train the mel VAE on random crops: reconstruction and a little KL (sec. II-A; VAE [19]).

    Its latents are whitened in the end. It needs no picture, so usually `@data_filter.none`.

    Args:
        crop: Mel frames a crop; a multiple of the autoencoder's downsampling.
        kl_weight: Weight of the KL term, a latent element, against the squared error, a mel bin.
    """

    steps: int | None = 300
    batch_size: int = 32
    learning_rate: float = 2e-3
    validation_clips: int | None = 64
    crop: int = 64
    kl_weight: float = 1e-3

    uses = ("autoencoder",)
    trains = ("autoencoder",)

    def run(self, work: TrainingContext) -> History:
        vae: Any = work.model.autoencoder
        whole = work.corpus.mel.shape[2]
        if self.crop > whole or self.crop % vae.downsampling:
            raise UsageError(
                f"stage.autoencoder.crop = {self.crop}: expected a multiple of the autoencoder's "
                f"downsampling of {vae.downsampling}, and no more than the {whole} mel frames of a clip.",
                advice="Bind stage.autoencoder.crop = "
                f"{max(1, min(self.crop, whole) // vae.downsampling) * vae.downsampling}.",
            )
        mel, rows = work.corpus.mel, work.corpus.rows("train", self.data_filter)
        held_out = self.held_out(work.corpus)

        def draw(rng: torch.Generator) -> Batch:
            chosen = draw_rows(rows, self.batch_size, rng)
            starts = torch.randint(mel.shape[2] - self.crop + 1, (self.batch_size,), generator=rng)
            return chosen, starts, starts + self.crop, draw_seeds(self.batch_size, rng)

        def fetch(chosen: Tensor, starts: Tensor, ends: Tensor, seeds: Tensor) -> Inputs:
            """Crops (B, 1, Tm, M), and the noise of their latents."""
            places = zip(chosen.tolist(), starts.tolist(), ends.tolist(), strict=True)
            crops = torch.stack([mel[i, :, start:end] for i, start, end in places])
            frames = crops.shape[2] // vae.downsampling
            return crops, noise(seeds, vae.latent_channels, frames, work.model.latent_shape[2])

        def loss(spectrograms: Tensor, within: Tensor) -> Tensor:
            posterior = vae.posterior(spectrograms)
            decoded = vae.decode_raw(posterior.mean + posterior.std * within)
            error = functional.mse_loss(decoded, vae.floored(spectrograms))
            kl = posterior.kl().mean() / posterior.mean[0].numel()
            return error / vae.mel_std**2 + self.kl_weight * kl

        def validation() -> Batch:
            starts, rng = torch.zeros_like(held_out), generator(work.seed, "validation", 0)
            return held_out, starts, starts + mel.shape[2], draw_seeds(len(held_out), rng)

        groups = [Group(work.train_only("autoencoder"), self.learning_rate)]
        steps = self.count_steps(work.corpus)
        history = work.fit(TrainingSpec("autoencoder", steps, draw, loss, groups, fetch, validation))
        vae.whiten(mel[rows[:256]].to(work.device))
        return history


def fit_contrast(
    stage: TrainingStage,
    work: TrainingContext,
    name: str,
    towers: Sequence[nn.Module],
    fetch: Callable[..., Inputs],
    contrast: Callable[..., Tensor],
) -> History:
    """Train towers by a contrast of the clips of a batch, which are all different.

    A batch is not divided among processes, as each of its clips is contrasted with all others.

    Args:
        stage: Settings of the stage.
        work: Surroundings of the stage.
        name: Name of the stage.
        towers: Modules to train.
        fetch: Inputs of the contrast, of rows (B,).
        contrast: Loss of these inputs, a scalar.
    """
    rows, held_out = work.corpus.rows("train", stage.data_filter), stage.held_out(work.corpus)

    def draw(rng: torch.Generator) -> Batch:
        return (rows[torch.randperm(len(rows), generator=rng)[: stage.batch_size]],)

    groups, steps = [Group(towers, stage.learning_rate)], stage.count_steps(work.corpus)
    return work.fit(
        TrainingSpec(name, steps, draw, contrast, groups, fetch, lambda: (held_out,), divisible=False)
    )


@register("stage", "contrastive")
@dataclass(frozen=True, kw_only=True)
class ContrastiveStage(TrainingStage):
    """Bring picture and sound of the same moment together, all others apart (Diff-Foley [10]).

    CAVP's audio-visual contrast, for a feature encoder trained from nothing; one that came with its weights
    stays as it is. Segments of other clips give the semantic contrast, other segments of the same clip the
    temporal one; both are in one matrix of similarities. The sound's tower is kept where the encoder has a
    place for it (`audio_tower`), and dropped otherwise.

    Args:
        segment_frames: Video frames a segment; must divide the clip's frames.
    """

    steps: int | None = 200
    batch_size: int = 16
    learning_rate: float = 2e-3
    segment_frames: int = 4

    uses = ("feature_encoder",)
    trains = ("feature_encoder",)

    def run(self, work: TrainingContext) -> History:
        video: Any = work.model.feature_encoder
        trained = work.train_only("feature_encoder")
        if not trained:
            return {}
        if (frames := work.corpus.frames.shape[1]) % self.segment_frames:
            fitting = max(n for n in range(1, self.segment_frames) if frames % n == 0)
            raise UsageError(
                f"stage.contrastive.segment_frames = {self.segment_frames} does not divide the {frames} "
                "video frames of a clip.",
                advice=f"Bind stage.contrastive.segment_frames = {fitting}.",
            )
        torch.manual_seed(work.seed)
        kept = getattr(video, "audio_tower", None)
        audio = kept or AudioTower(work.corpus.spectrogram.shape[-1], video.dim).to(work.device)

        def segments(e: Tensor) -> Tensor:
            """Means of segments: (B, L, D) -> (B * L / segment_frames, D)."""
            return reduce(e, "b (s f) d -> (b s) d", "mean", f=self.segment_frames)

        def fetch(chosen: Tensor) -> Inputs:
            return work.corpus.frames[chosen], work.corpus.spectrogram[chosen]

        def contrast(frames: Tensor, mel: Tensor) -> Tensor:
            e_v, e_a = segments(video(as_video(frames))), segments(audio(mel, frames.shape[1]))
            return symmetric_contrast(e_v, e_a, audio.scale)

        towers = trained if kept else [*trained, audio]
        return fit_contrast(self, work, "contrastive", towers, fetch, contrast)


@register("stage", "text_contrastive")
@dataclass(frozen=True, kw_only=True)
class TextContrastiveStage(TrainingStage):
    """Bring each caption and its sound together, all others apart, as CLAP (Wu et al. 2023).

    For a text encoder trained from nothing, where the paper has a pretrained one, which stays as it is. It is
    finished when text to audio begins. The sound's tower is dropped.

    Raises:
        UsageError: Fewer than two clips a batch, or to validate on: a clip is contrasted with others.
    """

    steps: int | None = 150
    batch_size: int = 64
    learning_rate: float = 5e-3
    validation_clips: int | None = 64

    uses = ("text_encoder",)
    trains = ("text_encoder",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for parameter in ("batch_size", "validation_clips"):
            if (clips := getattr(self, parameter)) is not None:
                check_bounds(f"stage.text_contrastive.{parameter}", clips, 2)

    def run(self, work: TrainingContext) -> History:
        trained = work.train_only("text_encoder")
        if not trained:
            return {}
        torch.manual_seed(work.seed)
        dim = work.model.text_encoder.dim
        audio = AudioTower(work.corpus.spectrogram.shape[-1], dim).to(work.device)

        def fetch(chosen: Tensor) -> Inputs:
            captions = work.corpus.captions(chosen, torch.zeros(len(chosen), dtype=torch.bool))
            return captions, work.corpus.spectrogram[chosen]

        def contrast(captions: list[str], mel: Tensor) -> Tensor:
            e_text, mask = encode_captions(work.model, captions)
            e_text = (e_text * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            return symmetric_contrast(e_text, audio(mel, 1)[:, 0], audio.scale)

        return fit_contrast(self, work, "text_contrastive", [*trained, audio], fetch, contrast)


@register("stage", "onset")
@dataclass(frozen=True, kw_only=True)
class OnsetStage(TrainingStage):
    """Train the local head to predict the sound's onsets by binary cross entropy (sec. II-B1, eq. 1).

    Raises:
        RegistryError: The local head has no onset logits.
    """

    steps: int | None = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    validation_clips: int | None = None

    uses = ("temporal_encoder", "local_head")
    trains = ("local_head",)

    def run(self, work: TrainingContext) -> History:
        head: Any = work.model.local_head
        if not hasattr(head, "onset_logits"):
            raise RegistryError(
                f"stage.onset needs a local head with an onset pretext task; {type(head).__name__} has no "
                "method onset_logits. Bind run.local_head = @local_head.onset, or leave the stage out."
            )
        e_v, onsets = work.corpus.features(work.model.encoders[-1]), work.corpus.onsets
        rows = work.corpus.rows("train", self.data_filter)
        held_out = self.held_out(work.corpus)

        def fetch(chosen: Tensor) -> Inputs:
            return e_v[chosen], onsets[chosen]

        def cross_entropy(e_v: Tensor, onsets: Tensor) -> Tensor:
            return functional.binary_cross_entropy_with_logits(head.onset_logits(e_v), onsets)

        def draw(rng: torch.Generator) -> Batch:
            return (draw_rows(rows, self.batch_size, rng),)

        groups = [Group(work.train_only("local_head"), self.learning_rate)]
        steps = self.count_steps(work.corpus)
        return work.fit(
            TrainingSpec(
                "onset", steps, draw, cross_entropy, groups, fetch, lambda: (held_out,), validations=10
            )
        )


# (rows, which of their captions are the null text, which of their videos are left out) -> conditions of the
# denoiser; the last argument is given where videos may be left out
Condition = Callable[..., Inputs]

# (z_t, t, *conditions) -> prediction
Predict = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class DiffusionStage(TrainingStage):
    """A stage that trains the denoiser: E ||target - prediction||^2 (eq. 6), as the objective has it.

    Args:
        ema_decay: Decay of the averaged weights.
        validation_times: Timesteps of each clip of the validation loss, evenly spaced over all clips.
        adapter: Layers to train in place of the weights of some of the blocks.

    Raises:
        UsageError: The adapter is for a block that the stage does not train, or for the backbone.
    """

    later: ClassVar[tuple[str, ...]] = ("adapter",)  # left out of signatures with their defaults

    ema_decay: float = 0.99
    validation_times: int = 4
    adapter: Callable[..., Any] = NoAdapter

    def __post_init__(self) -> None:
        super().__post_init__()
        trained: tuple[str, ...] = getattr(self, "trains", ())
        # An adapter freezes its block. A backbone's own layers are new: their zeros have to be trained.
        able = tuple("unet" if slot == "backbone" else slot for slot in trained)
        if other := [slot for slot in expect("adapter", self.adapter)().blocks if slot not in able]:
            raise UsageError(
                f"{selector_of('adapter', self.adapter)}.blocks has {other[0]!r}, which "
                f"{selector_of('stage', type(self))} can't adapt.",
                advice=f"It can adapt {', '.join(able)}.",
            )

    def fit(
        self,
        work: TrainingContext,
        name: str,
        condition: Condition,
        predict: Predict,
        *,
        groups: Sequence[Group],
        text_dropout: float,
        video_dropout: float = 0.0,
    ) -> History:
        """Train with noise, and the objective's timesteps, which are fixed in validation.

        Args:
            work: Surroundings of the stage.
            name: Name of the stage.
            condition: Conditions beside the latent, without a gradient.
            predict: The denoiser.
            groups: Modules to train.
            text_dropout: Probability of the null text, for classifier-free guidance (sec. II-C2).
            video_dropout: Probability of no video; above 0 `condition` gets the rows without one.
        """
        check_denoises(work.model, f"stage.{name}")
        rows = work.corpus.rows("train", self.data_filter)
        validation_rows = self.held_out(work.corpus)
        mean, std = work.corpus.latents()
        objective = work.objective

        def batch(chosen: Tensor, t: Tensor, rng: torch.Generator, dropouts: Sequence[float]) -> Batch:
            count, (text, *video) = len(chosen), dropouts
            drop = torch.rand(count, generator=rng) < text
            seeds = draw_seeds(count, rng)  # before the video's, so that these are the same without them
            return chosen, t, drop, seeds, *(torch.rand(count, generator=rng) < each for each in video)

        dropouts = [text_dropout, video_dropout] if video_dropout else [text_dropout]

        def draw(rng: torch.Generator) -> Batch:
            chosen = draw_rows(rows, self.batch_size, rng)
            t = objective.draw_times(self.batch_size, rng)
            return batch(chosen, t, rng, dropouts)

        def held_out() -> Batch:
            fixed = validation_rows.repeat(self.validation_times)
            t = objective.spread_times(len(fixed))
            return batch(fixed, t, generator(work.seed, "validation", 0), [0.0] * len(dropouts))

        def fetch(chosen: Tensor, t: Tensor, drop: Tensor, seeds: Tensor, *no_video: Tensor) -> Inputs:
            """z_t, t, the target and the weights of its errors, then the conditions."""
            within, eps = noise(seeds, 2, *mean.shape[1:]).unbind(1)
            z = mean[chosen] + std[chosen] * within
            z_t, target = objective.add_noise(z, eps, t), objective.target(z, eps, t)
            return z_t, t, target, objective.weights(t), *condition(chosen, drop, *no_video)

        def loss(z_t: Tensor, t: Tensor, target: Tensor, weights: Tensor | None, *conditions: Any) -> Tensor:
            prediction = predict(z_t, t, *conditions).float()
            if weights is None:
                return functional.mse_loss(prediction, target)
            return (weights * (prediction - target).square().mean(dim=(1, 2, 3))).mean()

        steps = self.count_steps(work.corpus)
        spec = TrainingSpec(name, steps, draw, loss, groups, fetch, held_out, ema_decay=self.ema_decay)
        return work.fit(spec)


@register("stage", "t2a_pretrain")
@dataclass(frozen=True, kw_only=True)
class T2APretrain(DiffusionStage):
    """Train the U-Net, and a text encoder that is not pretrained, on captions and sound (sec. II-C1).

    It needs no picture, so usually `@data_filter.none`.

    Args:
        text_dropout: Probability of the null text, for classifier-free guidance.
    """

    steps: int | None = 600
    batch_size: int = 32
    learning_rate: float = 2e-3
    text_dropout: float = 0.1

    name = "t2a_pretrain"
    uses = ("autoencoder", "text_encoder", "unet")
    trains: ClassVar[tuple[str, ...]] = ("text_encoder", "unet")

    def run(self, work: TrainingContext) -> History:
        blocks = adapted(work, self.adapter, work.train_only(*self.trains))
        text_encoder, unet = work.model.text_encoder, work.model.block("unet")

        def denoise(z_t: Tensor, t: Tensor, e_text: Tensor, mask: Tensor) -> Tensor:
            return unet(z_t, t, e_text, encoder_attention_mask=mask, return_dict=False)[0]

        def encode_and_denoise(z_t: Tensor, t: Tensor, captions: list[str]) -> Tensor:
            return denoise(z_t, t, *encode_captions(work.model, captions))

        trained = any(block is text_encoder for block in blocks)  # then its gradient is needed
        return self.fit(
            work,
            self.name,
            (lambda rows, drop: (work.corpus.captions(rows, drop),)) if trained else work.corpus.texts,
            encode_and_denoise if trained else denoise,
            groups=[Group(blocks, self.learning_rate)],
            text_dropout=self.text_dropout,
        )


@register("stage", "t2a_finetune")
@dataclass(frozen=True, kw_only=True)
class T2AFinetune(T2APretrain):
    """Go on training the U-Net on the clips of the video model ("FineTuned-T2A")."""

    name = "t2a_finetune"
    trains = ("unet",)


@register("stage", "joint")
@dataclass(frozen=True, kw_only=True)
class JointStage(DiffusionStage):
    """Train all that carries the video into the denoiser, together with the denoiser (sec. II-C2).

    A local head that the onset stage has trained stays as it is. "CN w/o Filter" takes all clips.

    Args:
        unet_learning_rate: Peak learning rate of the U-Net, which has been trained before.
        video_dropout: Probability of features of zeros in place of the video's, which `guider.two_weights`
            needs; independent of the text's.

    Raises:
        UsageError: The probability is out of its bounds.
    """

    steps: int | None = 400
    batch_size: int = 32
    learning_rate: float = 1e-3
    unet_learning_rate: float = 3e-4
    video_dropout: float = 0.0

    uses = (*(slot for slot in BLOCKS if slot != "vocoder"), "temporal_encoder")
    trains = ("local_head", "global_pooler", "condition_fuser", "backbone")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("stage.joint.video_dropout", self.video_dropout, 0, 1)

    def run(self, work: TrainingContext) -> History:
        model: Any = work.model
        blocks = work.train_only(*self.trains)
        model.backbone.start_from_t2a()
        blocks = adapted(work, self.adapter, blocks)
        features, unet = [work.corpus.features(slot) for slot in model.encoders], model.backbone.unet

        def condition(rows: Tensor, drop: Tensor, no_video: Tensor | None = None) -> Inputs:
            videos = [each[rows] for each in features]
            if no_video is not None:
                videos = [each.masked_fill(no_video[:, None, None], 0) for each in videos]
            e_v, *e_tv = videos
            return e_v, *work.corpus.texts(rows, drop), *e_tv

        new: list[nn.Module] = []  # all but the U-Net, a child of the backbone with its own learning rate
        for block in blocks:
            children = list(block.children())
            new += [each for each in children if each is not unet] if unet in children else [block]
        return self.fit(
            work,
            "joint",
            condition,
            model,
            groups=[Group(new, self.learning_rate), Group([unet], self.unet_learning_rate)],
            text_dropout=0.1,
            video_dropout=self.video_dropout,
        )


@register("stage", "codes")
@dataclass(frozen=True, kw_only=True)
class CodesStage(TrainingStage):
    """Train a model of codes, and all that carries the video into it, by cross entropy (Im2Wav).

    First its codebook is fitted to the latents, by k-means.

    Args:
        ema_decay: Decay of the averaged weights.
        text_dropout: Probability of the null text.
        video_dropout: Probability of features of zeros in place of the video's, which `guider.two_weights`
            needs; independent of the text's.

    Raises:
        UsageError: A probability is out of its bounds, or the model is a denoiser.
    """

    steps: int | None = 800
    batch_size: int = 32
    learning_rate: float = 1e-3
    ema_decay: float = 0.99
    text_dropout: float = 0.1
    video_dropout: float = 0.1

    uses = (*(slot for slot in BLOCKS if slot != "vocoder"), "temporal_encoder")
    trains = ("local_head", "global_pooler", "condition_fuser", "backbone")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("stage.codes.text_dropout", self.text_dropout, 0, 1)
        check_bounds("stage.codes.video_dropout", self.video_dropout, 0, 1)

    def run(self, work: TrainingContext) -> History:
        model = work.model
        check_predicts_codes(model, "stage.codes")
        backbone: Any = model.backbone
        blocks = work.train_only(*self.trains)
        features, (z, _) = [work.corpus.features(slot) for slot in model.encoders], work.corpus.latents()
        rows, held_out = work.corpus.rows("train", self.data_filter), self.held_out(work.corpus)
        fitted = z[rows[:CODEBOOK_CLIPS]].to(work.device)
        backbone.unet.fit_codebook(fitted, generator(work.seed, "codebook", 0))

        def draw(rng: torch.Generator) -> Batch:
            chosen = draw_rows(rows, self.batch_size, rng)
            no_text = torch.rand(self.batch_size, generator=rng) < self.text_dropout
            return chosen, no_text, torch.rand(self.batch_size, generator=rng) < self.video_dropout

        def validation() -> Batch:
            none = torch.zeros(len(held_out), dtype=torch.bool)
            return held_out, none, none

        def fetch(chosen: Tensor, no_text: Tensor, no_video: Tensor) -> Inputs:
            e_v, *e_tv = (each[chosen].masked_fill(no_video[:, None, None], 0) for each in features)
            return z[chosen], e_v, *work.corpus.texts(chosen, no_text), *e_tv

        def cross_entropy(
            z: Tensor, e_v: Tensor, e_text: Tensor, mask: Tensor, e_tv: Tensor | None = None
        ) -> Tensor:
            conditions = model.condition(e_v, e_text, mask, e_tv)
            return backbone.cross_entropy(z, conditions.c, conditions.mask, conditions.e_lv)

        groups, steps = [Group(blocks, self.learning_rate)], self.count_steps(work.corpus)
        return work.fit(
            TrainingSpec(
                "codes", steps, draw, cross_entropy, groups, fetch, validation, ema_decay=self.ema_decay
            )
        )
