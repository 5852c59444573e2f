"""Autoregressive models over the discrete codes of latents, in place of a denoiser."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import RegistryError, register
from stav2a.slots import ALL_FOR_CODES
from stav2a.utils.checkpoints import load_weights
from stav2a.utils.errors import check_bounds

FIT_ON, FIT_ROUNDS = 50_000, 15  # latent vectors and rounds of k-means


@register("unet", "code_transformer")
class CodeTransformer(nn.Module):
    """Transformer that predicts the codes of latents one after the other (Im2Wav, Sheffer and Adi 2022).

    A code is the nearest of a few vectors to the C channels of a latent at one time and frequency. There is
    one level of codes, Im2Wav has two. A latent frame has F codes, of which step s predicts the one of
    frequency f in frame s - f, from all codes of earlier steps (delay pattern; MusicGen, Copet et al. 2023).
    Tokens of the conditions stand before the sequence. Its codebook is fitted by `stage.codes`.

    Args:
        latent_channels: Channels of the latent, C. Wired.
        cond_dim: Width of the tokens of the conditions, D_c. Wired.
        latent_bins: Frequencies of the latent, F. Wired.
        codes: Size of the codebook.
        width: Transformer hidden size.
        layers: Number of layers.
        heads: Heads of the attention.
        checkpoint: Folder of weights to start from, codebook included; None trains from scratch.

    Shapes:
        z (B, C, T, F), t (B,), c (B, K, D_c) -> expected latent at each place (B, C, T, F)

    Raises:
        RegistryError: The heads do not divide the width.
        UsageError: A size is less than 1.
    """

    codebook: Tensor

    def __init__(
        self,
        latent_channels: int,
        cond_dim: int,
        latent_bins: int,
        *,
        codes: int = 2048,
        width: int = 1024,
        layers: int = 48,
        heads: int = 16,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        from diffusers.models.embeddings import Timesteps

        for name, size in (("codes", codes), ("width", width), ("layers", layers), ("heads", heads)):
            check_bounds(f"unet.code_transformer.{name}", size, 1)
        if width % heads:
            raise RegistryError(
                f"unet.code_transformer.width = {width}, heads = {heads}: expected a width that the heads "
                "divide."
            )
        self.codes, self.width, self.bins = codes, width, latent_bins
        self.proj_tokens = nn.Linear(cond_dim, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.embedding = nn.Embedding(latent_bins * (codes + 1), width)
        self.positions = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.layers = nn.ModuleList(CausalLayer(width, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, latent_bins * codes)
        self.register_buffer("codebook", torch.randn(codes, latent_channels))
        load_weights(self, checkpoint, parameter="unet.code_transformer.checkpoint")

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Expected latent at each place, given those before it, as diffusers returns a prediction.

        It has no use for the timestep.
        """
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        mask = encoder_attention_mask
        mask = torch.ones_like(encoder_hidden_states[..., 0]) if mask is None else mask
        expected = self.expected(sample, encoder_hidden_states, mask)
        return UNet2DConditionOutput(expected) if return_dict else (expected,)

    def expected(self, z: Tensor, c: Tensor, mask: Tensor, frames: Tensor | None = None) -> Tensor:
        """Means of the predicted codes' vectors (B, C, T, F); arguments as those of `logits`."""
        steps = self.delay(self.encode(z))
        likelihood = self.logits(steps[:, :-1], c, mask, frames).softmax(dim=-1)
        return rearrange(self.undelay(likelihood @ self.codebook), "b t f c -> b c t f")

    def logits(self, steps: Tensor, c: Tensor, mask: Tensor, frames: Tensor | None = None) -> Tensor:
        """Logits of the codes of one step more than are given.

        Args:
            steps: Delayed codes of the first S steps (B, S, F); see `delay`.
            c: Tokens of the conditions (B, N, D_c).
            mask: True where a token counts (B, N).
            frames: Embedding of each latent frame (B, T, width), added to that of the step that begins it.

        Returns:
            Logits (B, S + 1, F, codes).
        """
        tokens = self.proj_tokens(c)
        offsets = torch.arange(self.bins, device=steps.device) * (self.codes + 1)
        x = torch.cat(
            [self.start.expand(len(steps), 1, -1), self.embedding(steps + offsets).sum(dim=2)], dim=1
        )
        length, before = x.shape[1], tokens.shape[1]
        x = x + self.positions(torch.arange(length, device=x.device)).to(x.dtype)
        if frames is not None:
            x = x + functional.pad(frames, (0, 0, 0, self.bins - 1))[:, :length]
        x = torch.cat([tokens, x], dim=1)
        whole = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        whole[:, :before] = True
        counts = torch.cat([mask.bool(), mask.new_ones(len(x), length).bool()], dim=1)
        attended = (whole & counts[:, None])[:, None]  # (B, 1, N + S + 1, N + S + 1)
        for layer in self.layers:
            x = layer(x, attended)
        x = self.proj_out(self.norm_out(x[:, before:]))
        return rearrange(x, "b s (f k) -> b s f k", f=self.bins)

    def cross_entropy(self, z: Tensor, c: Tensor, mask: Tensor, frames: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of the codes of latents; arguments as those of `logits`."""
        steps = self.delay(self.encode(z))
        logits = self.logits(steps[:, :-1], c, mask, frames)
        targets = steps.masked_fill(steps == self.codes, -100)  # which cross_entropy leaves out
        return functional.cross_entropy(logits.flatten(0, 2), targets.flatten())

    def delay(self, codes: Tensor) -> Tensor:
        """Codes (B, T, F) -> codes by step (B, T + F - 1, F), with `self.codes` where a step has none."""
        length = codes.shape[1] + self.bins - 1
        steps = codes.new_full((len(codes), length, self.bins), self.codes)
        for f in range(self.bins):
            steps[:, f : f + codes.shape[1], f] = codes[..., f]
        return steps

    def undelay(self, steps: Tensor) -> Tensor:
        """Values by step (B, T + F - 1, F, ...) -> by frame (B, T, F, ...)."""
        length = steps.shape[1] - self.bins + 1
        return torch.stack([steps[:, f : f + length, f] for f in range(self.bins)], dim=2)

    def encode(self, z: Tensor) -> Tensor:
        """Latents (B, C, T, F) -> codes (B, T, F), those of the nearest vectors."""
        places = rearrange(z, "b c t f -> b (t f) c")
        codes = torch.cdist(places, self.codebook[None]).argmin(dim=-1)
        return rearrange(codes, "b (t f) -> b t f", f=self.bins)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, T, F) -> latents (B, C, T, F)."""
        return rearrange(self.codebook[codes], "b t f c -> b c t f")

    @torch.no_grad()
    def fit_codebook(self, z: Tensor, rng: torch.Generator) -> None:
        """Set the codebook by k-means of latents (B, C, T, F); the generator is on the CPU."""
        vectors = rearrange(z, "b c t f -> (b t f) c")
        vectors = vectors[torch.randint(len(vectors), (max(FIT_ON, self.codes),), generator=rng)]
        centres = vectors[: self.codes].clone()
        for _ in range(FIT_ROUNDS):
            nearest = torch.cdist(vectors, centres).argmin(dim=1)
            counts = torch.zeros_like(centres[:, 0]).index_add_(0, nearest, torch.ones_like(vectors[:, 0]))
            sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
            centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
        self.codebook.copy_(centres)


class CausalLayer(nn.Module):
    """Transformer layer with normalisation before its parts.

    Shapes:
        x (B, N, width), attended (B, 1, N, N), True where a row reads a column -> (B, N, width)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        qkv = self.to_qkv(self.attention_norm(x))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=attended)
        x = x + self.to_out(rearrange(found, "b h n d -> b n (h d)"))
        return x + self.mlp(self.mlp_norm(x))


@register("backbone", "autoregressive")
class AutoregressiveBackbone(nn.Module):
    """A model of codes that reads the local features frame by frame, as Im2Wav reads CLIP's.

    Args:
        unet: The model of codes, `unet.code_transformer`. Wired.
        local_dim: Width of the local features, D_l; 0 for none. Wired.

    Shapes:
        z (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> expected latent (B, C, T, F)

    Raises:
        RegistryError: The `unet` is a denoiser.
    """

    def __init__(self, unet: Any, local_dim: int) -> None:
        super().__init__()
        if not isinstance(unet, CodeTransformer):
            raise RegistryError(
                f"backbone.autoregressive needs a model of codes, and {type(unet).__name__} is a denoiser.",
                advice=ALL_FOR_CODES,
            )
        self.unet = unet
        self.embed = nn.Linear(local_dim, unet.width, bias=False) if local_dim else None

    def start_from_t2a(self) -> None:
        """Do nothing: there is no text-to-audio model."""

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        return self.unet.expected(z_t, c, mask, self._frames(e_lv))

    def logits(self, steps: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        """Logits of the codes of each step and of the next; see `CodeTransformer.logits`."""
        return self.unet.logits(steps, c, mask, self._frames(e_lv))

    def cross_entropy(self, z: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        """Mean negative log-likelihood of the codes of latents z (B, C, T, F)."""
        return self.unet.cross_entropy(z, c, mask, self._frames(e_lv))

    def _frames(self, e_lv: Tensor) -> Tensor | None:
        return None if self.embed is None else self.embed(e_lv)
