"""The autoencoder stage: a mel VAE from nothing, its latents then whitened."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.registry import register
from stav2a.training.corpus import TrainingContext, generator
from stav2a.training.objective import Batch, Group, TrainingSpec


@register("stage", "autoencoder")
class AutoencoderStage:
    """Train the mel VAE on random crops: reconstruction and a little KL (sec. II-A; VAE [19]).

    Args:
        data_filter: Which clips to train on; sound alone counts, so usually `@data_filter.none`.
        steps: Optimizer steps.
        batch_size: Crops a step.
        learning_rate: AdamW's, at its peak.
        crop: Mel frames a crop; a multiple of the autoencoder's downsampling.
        kl_weight: Weight of the KL term, a latent element, against the squared error, a mel bin.
    """

    uses = ("autoencoder",)
    trains = ("autoencoder",)

    def __init__(
        self,
        *,
        data_filter: Callable[..., Any],
        steps: int = 300,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        crop: int = 64,
        kl_weight: float = 1e-3,
    ) -> None:
        self.data_filter, self.steps, self.batch_size = data_filter, steps, batch_size
        self.learning_rate, self.crop, self.kl_weight = learning_rate, crop, kl_weight

    def run(self, work: TrainingContext) -> dict[str, Any]:
        vae: Any = work.model.autoencoder
        rows = work.corpus.rows("train", self.data_filter)
        held_out = work.corpus.mel[work.corpus.rows("validation", self.data_filter)[:64]]

        def loss(mel: Tensor, noise: Tensor) -> Tensor:
            return self._loss(vae, mel.to(work.device), noise.to(work.device))

        history = work.fit(
            TrainingSpec(
                "autoencoder",
                self.steps,
                lambda rng: self._with_noise(vae, self._crops(work.corpus.mel, rows, rng), rng),
                loss,
                [Group(work.train_only("autoencoder"), self.learning_rate)],
                held_out=lambda: self._with_noise(vae, held_out, generator(work.seed, "validation", 0)),
            )
        )
        vae.whiten(work.corpus.mel[rows[:256]].to(work.device))
        return history

    def _crops(self, mel: Tensor, rows: Tensor, rng: torch.Generator) -> Tensor:
        chosen = rows[torch.randint(len(rows), (self.batch_size,), generator=rng)]
        starts = torch.randint(mel.shape[2] - self.crop + 1, (self.batch_size,), generator=rng).tolist()
        return torch.stack(
            [mel[i, :, s : s + self.crop] for i, s in zip(chosen.tolist(), starts, strict=True)]
        )

    def _with_noise(self, vae: Any, mel: Tensor, rng: torch.Generator) -> Batch:
        """Spectrograms, and the noise of their latents."""
        batch, _, *sides = mel.shape
        latent = (batch, vae.latent_channels, *(side // vae.downsampling for side in sides))
        return mel, torch.randn(latent, generator=rng)

    def _loss(self, vae: Any, mel: Tensor, noise: Tensor) -> Tensor:
        posterior = vae.posterior(mel)
        error = functional.mse_loss(vae.decode_raw(posterior.mean + posterior.std * noise), vae.floored(mel))
        return error / vae.mel_std**2 + self.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
