"""Sampler that moves the latent by the gradient of an audio-visual similarity: nothing is trained for it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.data.front_ends import AudioLDMMel
from stav2a.models.stav2a import STAV2A, check_denoises
from stav2a.registry import register, selector_of
from stav2a.sampling.guiders import EQUATION_7
from stav2a.sampling.reference import (
    Progress,
    SamplerError,
    branch_conditions,
    guided,
    initial_noise,
    step_generators,
    takes_generator,
)
from stav2a.sampling.schedulers import clean_latent
from stav2a.slots import Guider
from stav2a.utils.errors import check_bounds


@register("sampler", "similarity_guided")
class SimilarityGuidedSampler:
    """Reference loop that moves each latent towards sound that is like the video (Xing et al. 2024).

    After every step the clean latent that it stands for is decoded and embedded by the feature encoder's
    tower of sound, and the latent takes steps of Adam up the cosine with the video's features. As in the
    authors' code the denoiser's prediction counts as constant: the gradient passes through the decoder and
    the tower alone. Unlike there similarities are those of segments, averaged, not of the whole clip, sound
    is embedded as a log-mel, without a vocoder, and the sound's similarity with the text is left out.

    Args:
        learning_rate: Learning rate of Adam, which starts anew at every denoising step.
        optimization_steps: Number of Adam's steps at a denoising step.
        start: Share of the denoising steps at the beginning that are left as they are.
        segment_frames: Video frames of a segment.

    Raises:
        UsageError: A value is out of its bounds.
        SamplerError: The feature encoder embeds no sound.
    """

    def __init__(
        self,
        *,
        learning_rate: float = 0.1,
        optimization_steps: int = 1,
        start: float = 0.2,
        segment_frames: int = 4,
    ) -> None:
        check_bounds("sampler.similarity_guided.learning_rate", learning_rate, 0)
        check_bounds("sampler.similarity_guided.optimization_steps", optimization_steps, 1)
        check_bounds("sampler.similarity_guided.start", start, 0, 1)
        check_bounds("sampler.similarity_guided.segment_frames", segment_frames, 1)
        self.learning_rate, self.optimization_steps = learning_rate, optimization_steps
        self.start, self.segment_frames = start, segment_frames

    @torch.no_grad()
    def __call__(
        self,
        model: STAV2A,
        e_v: Tensor,
        captions: Sequence[str],
        *,
        scheduler: Any,
        num_inference_steps: int,
        guidance_scale: float,
        seeds: Sequence[int],
        negative_captions: Sequence[str] | None = None,
        guider: Guider = EQUATION_7,
        progress: Progress = iter,
    ) -> Tensor:
        """Denoise one latent per clip; see `slots.Sampler`."""
        check_denoises(model, "sampler.similarity_guided")
        tower = getattr(model.feature_encoder, "audio_tower", None)
        if tower is None:
            encoder = selector_of("feature_encoder", type(model.feature_encoder))
            raise SamplerError(
                f"sampler.similarity_guided needs a feature encoder that embeds sound; {encoder} does not.",
                advice="Bind run.feature_encoder = @feature_encoder.cavp_two_towers, or another sampler.",
            )
        if not isinstance(model.front_end, AudioLDMMel):
            front_end = selector_of("front_end", type(model.front_end))
            raise SamplerError(
                "sampler.similarity_guided embeds decoded mels of front_end.audioldm_mel; the model has "
                f"{front_end}.",
                advice="Bind run.front_end = @front_end.audioldm_mel, or another sampler.",
            )
        branches = guider.branches(guidance_scale)
        conditions = branch_conditions(model, e_v, captions, branches, negative_captions)
        z_t = initial_noise(model.latent_shape, seeds).to(e_v) * scheduler.init_noise_sigma
        scheduler.set_timesteps(num_inference_steps)
        extra = {"generator": step_generators(seeds)} if takes_generator(scheduler) else {}
        untouched = int(self.start * num_inference_steps)
        for i, t in enumerate(progress(scheduler.timesteps)):
            prediction = guided(model, z_t, t, conditions, guidance_scale, guider)
            z_t = scheduler.step(prediction, t, z_t, **extra).prev_sample
            if i >= untouched:
                z_t = self._moved(model, tower, e_v, scheduler, prediction, t, z_t)
        return z_t

    @torch.enable_grad()
    def _moved(
        self,
        model: STAV2A,
        tower: nn.Module,
        e_v: Tensor,
        scheduler: Any,
        prediction: Tensor,
        t: Tensor,
        z_t: Tensor,
    ) -> Tensor:
        z = z_t.detach().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self.learning_rate)
        for _ in range(self.optimization_steps):
            mel = model.autoencoder.decode(clean_latent(scheduler, prediction, t, z))
            similarity = self.similarity(tower(mel, e_v.shape[1]), e_v)
            (z.grad,) = torch.autograd.grad(-similarity.sum(), z)  # a sum, so that clips don't meet
            optimizer.step()
        return z.detach()

    def similarity(self, e_a: Tensor, e_v: Tensor) -> Tensor:
        """e_a, e_v (B, L, D_v) -> cosine (B,) of sound and video, averaged over segments."""
        return functional.cosine_similarity(self._segments(e_a), self._segments(e_v), dim=-1).mean(dim=1)

    def _segments(self, e: Tensor) -> Tensor:
        """Means over the frames of each segment: (B, segments, D_v)."""
        return torch.stack([part.mean(dim=1) for part in e.split(self.segment_frames, dim=1)], dim=1)
