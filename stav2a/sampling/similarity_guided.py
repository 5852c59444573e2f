"""Sampler that moves the latent by the gradient of an audio-visual similarity: nothing is trained for it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.data.front_ends import AudioLDMMel
from stav2a.models.stav2a import STAV2A
from stav2a.registry import register, selector_of
from stav2a.sampling.reference import ReferenceSampler, SamplerError
from stav2a.sampling.schedulers import clean_latent
from stav2a.utils.errors import check_bounds


@register("sampler", "similarity_guided")
class SimilarityGuidedSampler(ReferenceSampler):
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
        SamplerError: The feature encoder embeds no sound, or a step of the scheduler is more than one
            evaluation of the model.
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

    def check(self, model: STAV2A, scheduler: Any) -> None:
        """Refuse a model whose feature encoder embeds no sound, or not that of the front end.

        A scheduler that evaluates the model twice a step is refused too: its second half starts from the
        latent before the first, so that the moves after the first would be lost.

        Raises:
            SamplerError: See above.
            UsageError: It predicts codes.
        """
        super().check(model, scheduler)
        if (evaluations := getattr(scheduler, "order", 1)) > 1:
            raise SamplerError(
                "sampler.similarity_guided moves the latent at each evaluation of the model, and a step of "
                f"the scheduler has {evaluations}: the moves in between would be lost.",
                advice="Bind run.scheduler = @scheduler.flow_match_euler, or another sampler.",
            )
        if not hasattr(model.feature_encoder, "audio_tower"):
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

    @torch.enable_grad()
    def after_step(
        self, model: STAV2A, e_v: Tensor, scheduler: Any, i: int, prediction: Tensor, z_t: Tensor
    ) -> Tensor:
        """Latents (B, C, T, F) after Adam's steps up the similarity; those of the first steps as they are."""
        if i < int(self.start * len(scheduler.timesteps)):
            return z_t
        z = z_t.detach().requires_grad_()
        optimizer, tower = torch.optim.Adam([z], lr=self.learning_rate), model.feature_encoder.audio_tower
        for _ in range(self.optimization_steps):
            clean = clean_latent(scheduler, prediction, scheduler.timesteps[i], z)
            similarity = self.similarity(tower(model.autoencoder.decode(clean), e_v.shape[1]), e_v)
            (z.grad,) = torch.autograd.grad(-similarity.sum(), z)  # a sum, so that clips don't meet
            optimizer.step()
        return z.detach()

    def similarity(self, e_a: Tensor, e_v: Tensor) -> Tensor:
        """e_a, e_v (B, L, D_v) -> cosine (B,) of sound and video, averaged over segments."""
        return functional.cosine_similarity(self._segments(e_a), self._segments(e_v), dim=-1).mean(dim=1)

    def _segments(self, e: Tensor) -> Tensor:
        """Means over the frames of each segment: (B, segments, D_v)."""
        return torch.stack([part.mean(dim=1) for part in e.split(self.segment_frames, dim=1)], dim=1)
