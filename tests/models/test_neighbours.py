"""Components of neighbouring slots in pairs: each takes a step, or is refused in one line."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch

from stav2a import registry
from stav2a.components.local_heads import LinearHead
from stav2a.data.front_ends import AudioLDMMel
from stav2a.models.stav2a import PARTS, assemble, encode_captions
from stav2a.sampling.fast.fast_sampler import FastSampler
from stav2a.sampling.guiders import ClassifierFree
from stav2a.sampling.schedulers import ddim
from stav2a.training.denoising import Epsilon
from stav2a.utils.errors import StaV2AError
from tests import tiny

registry.load()
SETTINGS: dict[str, dict[str, Any]] = {  # sizes that a component has at the scale of `tiny`
    "feature_encoder.cavp": tiny.factories()["feature_encoder"].keywords,
    "feature_encoder.cavp_two_towers": tiny.factories()["feature_encoder"].keywords,
    "feature_encoder.clip": {"dim": 8, "width": 16, "layers": 1, "frame_size": 28, "frame_rate_hz": 12.5},
    "feature_encoder.videomae": {"dim": 16, "layers": 1, "frames": 4, "frame_size": 32},
    "feature_encoder.vjepa2": {"dim": 16, "layers": 1, "frame_size": 32},
    "text_encoder.tiny_mt5": tiny.factories()["text_encoder"].keywords,
    "local_head.linear": {"dim": 16},
    "local_head.nearest": {"upsampling": 1.0},
    "local_head.onset": {"dim_per_window": 8, "windows": (1, 2)},
    "local_head.onset_released": {"dim": 8, "windows": (1, 2), "upsampling": 1.0},
    "local_head.onset_track": {"dim_per_window": 8, "windows": (1, 2)},
    "global_pooler.perceiver": {"tokens": 2},
    "unet.code_transformer": {"codes": 8, "width": 16, "layers": 1, "heads": 2},
    "unet.dit": {"width": 16, "layers": 1, "heads": 2},
    "unet.mmdit": {"width": 16, "joint_layers": 1, "single_layers": 1, "heads": 2},
    "unet.stable_diffusion": {**tiny.unet.keywords, "layers_per_block": 2},
    "backbone.unet_controlnet_plain": {"channels": (4,)},
    "front_end.waveform": {"sample_rate": 16_000},
    "autoencoder.kl": tiny.factories()["autoencoder"].keywords,
    "autoencoder.mmaudio": {"bins": 80, "latent_channels": 4, "hidden_channels": 8},
    "autoencoder.oobleck": {
        "hidden_size": 8,
        "downsampling_ratios": (8, 16),
        "channel_multiples": (1, 2),
        "sample_rate": 16_000,
    },
    "vocoder.bigvgan": {
        "bins": 80,
        "upsample_initial_channel": 16,
        "upsample_rates": (8, 8, 4),
        "upsample_kernel_sizes": (16, 16, 8),
        "sample_rate": 16_000,
    },
    "vocoder.griffin_lim": {"iterations": 1},
    "vocoder.hifigan": {"upsample_initial_channel": 32},
}
PRETRAINED = {  # at their own sizes
    f"text_encoder.{name}" for name in ("mt5", "t5", "clip", "clap", "minilm")
}
NEEDS = {  # a component's neighbours in other slots, where they are not part of the pair
    "local_head.none": {"backbone": "backbone.unet"},
    "unet.dit": {"backbone": "backbone.dit"},
    "unet.mmdit": {"backbone": "backbone.dit"},
    "backbone.dit": {"unet": "unet.dit"},
    "autoencoder.mmaudio": {"front_end": "front_end.mmaudio_mel_16k"},
    "autoencoder.oobleck": {"front_end": "front_end.waveform", "vocoder": "vocoder.none"},
    "vocoder.bigvgan": {"front_end": "front_end.mmaudio_mel_16k"},
    "vocoder.none": {"front_end": "front_end.waveform"},
    "front_end.waveform": {"vocoder": "vocoder.none"},
    "unet.code_transformer": {"backbone": "backbone.autoregressive", "sampler": "sampler.autoregressive"},
    "backbone.autoregressive": {"unet": "unet.code_transformer", "sampler": "sampler.autoregressive"},
    "sampler.autoregressive": {"unet": "unet.code_transformer", "backbone": "backbone.autoregressive"},
    "sampler.similarity_guided": {"feature_encoder": "feature_encoder.cavp_two_towers"},
    "backbone.unet_controlnet_decoupled": {"condition_fuser": "condition_fuser.video_first"},
    "objective.flow": {"scheduler": "scheduler.flow_match_euler"},
    **{f"scheduler.flow_match_{name}": {"objective": "objective.flow"} for name in ("euler", "heun")},
}
NEIGHBOURS = (
    ("feature_encoder", "local_head"),
    ("feature_encoder", "global_pooler"),
    ("text_encoder", "condition_fuser"),
    ("global_pooler", "condition_fuser"),
    ("local_head", "backbone"),
    ("condition_fuser", "backbone"),
    ("unet", "backbone"),
    ("autoencoder", "unet"),
    ("front_end", "autoencoder"),
    ("autoencoder", "vocoder"),
    ("objective", "scheduler"),
    ("scheduler", "sampler"),
    ("sampler", "backbone"),
    ("sampler", "guider"),
)
DEFAULTS = {
    **tiny.factories(local_head=partial(LinearHead, dim=16), unet=partial(tiny.unet, layers_per_block=2)),
    "front_end": AudioLDMMel,
    "objective": Epsilon,
    "scheduler": ddim,
    "sampler": FastSampler,
    "guider": ClassifierFree,
}
TRANSFORMERS = ("unet.dit", "unet.mmdit")
CONTROLNETS = [each.selector for each in registry.available("backbone") if "controlnet" in each.name]
REFUSED = {  # the pairs, and a part of the message
    **{
        (unet, backbone): "needs the blocks of diffusers' U-Net"
        for unet in TRANSFORMERS
        for backbone in CONTROLNETS
    },
    **{
        (part, backbone): "needs the blocks of diffusers' U-Net"
        for part in ("unet.code_transformer", "sampler.autoregressive")
        for backbone in CONTROLNETS
    },
    **{
        (f"unet.{unet}", "backbone.autoregressive"): "is a denoiser"
        for unet in ("dit", "mmdit", "stable_diffusion")
    },
    **{
        (f"sampler.{sampler}", "backbone.autoregressive"): f"sampler.{sampler} needs a denoiser"
        for sampler in ("fast", "fast_branch_parallel", "reference", "similarity_guided")
    },
    ("unet.code_transformer", "backbone.unet"): "needs a model of codes",
    ("unet.code_transformer", "backbone.dit"): "needs a transformer that takes a frame_embedding",
    ("scheduler.flow_match_heun", "sampler.similarity_guided"): "the moves in between would be lost",
    ("sampler.autoregressive", "backbone.unet"): "needs a model of codes",
    ("sampler.autoregressive", "backbone.dit"): "needs a model of codes",
    ("unet.stable_diffusion", "backbone.dit"): "needs a transformer that takes a frame_embedding",
    **{("local_head.none", backbone): "A ControlNet needs local features" for backbone in CONTROLNETS},
    ("local_head.none", "backbone.dit"): "",
    ("global_pooler.none", "condition_fuser.cross_attention"): "needs video tokens",
    ("global_pooler.none", "condition_fuser.video_only"): "needs video tokens",
    **{
        (
            f"condition_fuser.{fuser}",
            "backbone.unet_controlnet_decoupled",
        ): "attends to the video's tokens apart"
        for fuser in ("concat", "cross_attention", "sum", "video_only")
    },
    **{
        (f"local_head.{head}", "backbone.unet_controlnet_plain"): "No number of halvings"
        for head in ("onset", "onset_released", "onset_track")
    },
    **{
        (f"feature_encoder.{encoder}", f"local_head.{head}"): "the latent's frame rate over the video's"
        for encoder in ("videomae", "vjepa2")
        for head in ("nearest", "onset_released")
    },
    ("autoencoder.mmaudio", "vocoder.hifigan"): "is made for a hop of 160 samples",
    ("autoencoder.mmaudio", "vocoder.none"): "is made for 80 bins",
    ("autoencoder.oobleck", "vocoder.bigvgan"): "is made for 1 bins",
    ("autoencoder.oobleck", "vocoder.griffin_lim"): "needs mel spectrograms",
    ("autoencoder.oobleck", "vocoder.hifigan"): "is made for a hop of 160 samples",
    ("autoencoder.kl", "vocoder.none"): "gives 1 bins, which the autoencoder's downsampling of 8",
    ("front_end.audioldm_mel", "autoencoder.mmaudio"): "is made for 80 bins",
    ("front_end.audioldm_mel", "autoencoder.oobleck"): "is made for 1 bins",
    ("front_end.mmaudio_mel", "autoencoder.kl"): "makes 55 frames",
    ("front_end.mmaudio_mel", "autoencoder.mmaudio"): "is made for 80 bins",
    ("front_end.mmaudio_mel", "autoencoder.oobleck"): "is made for sound at 16000 Hz",
    ("front_end.mmaudio_mel_16k", "autoencoder.oobleck"): "is made for 1 bins",
    ("front_end.waveform", "autoencoder.kl"): "gives 1 bins, which the autoencoder's downsampling of 8",
    ("front_end.waveform", "autoencoder.mmaudio"): "is made for 80 bins",
    **{("objective.flow", f"scheduler.{name}"): "takes epsilon or v_prediction" for name in ("ddim", "ddpm")},
    **{
        (f"objective.{objective}", f"scheduler.flow_match_{name}"): "takes a flow"
        for objective in ("epsilon", "v_prediction")
        for name in ("euler", "heun")
    },
}


def component(selector: str) -> Callable[..., Any]:
    """Factory of a component at its tiny size."""
    slot, _, name = selector.partition(".")
    return partial(registry.get(slot, name).factory, **SETTINGS.get(selector, {}))


def components(slot: str) -> list[str]:
    return [entry.selector for entry in registry.available(slot) if entry.selector not in PRETRAINED]


def take_steps(*selectors: str) -> None:
    """One step of training and one of sampling of the tiny model with some components.

    Raises:
        StaV2AError: The components do not fit.
    """
    needed = {slot: other for selector in selectors for slot, other in NEEDS.get(selector, {}).items()}
    chosen = needed | {selector.partition(".")[0]: selector for selector in selectors}
    part = DEFAULTS | {slot: component(selector) for slot, selector in chosen.items()}
    objective = part["objective"]()
    scheduler = part["scheduler"](prediction_type=objective.prediction_type)
    torch.manual_seed(0)
    model = assemble({slot: part[slot] for slot in PARTS}, duration_s=tiny.DURATION_S)
    encoder, rng = model.feature_encoder, torch.Generator().manual_seed(0)
    frames = round(tiny.DURATION_S * encoder.frame_rate_hz)
    with torch.no_grad():
        e_v = encoder(torch.rand(2, frames, 3, encoder.frame_size, encoder.frame_size, generator=rng))
    z, eps = (torch.randn(2, *model.latent_shape, generator=rng) for _ in range(2))
    t = objective.draw_times(2, rng)
    prediction = model(objective.add_noise(z, eps, t), t, e_v, *encode_captions(model, tiny.CAPTIONS))
    (prediction - objective.target(z, eps, t)).square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    made = part["sampler"]()(
        model.eval(), e_v, tiny.CAPTIONS, scheduler=scheduler, num_inference_steps=2, guidance_scale=3.0,
        seeds=(0, 1), guider=part["guider"](),
    )  # fmt: skip
    assert made.shape == z.shape and made.isfinite().all()
    if "vocoder" in chosen:
        with torch.no_grad():
            sound = model.vocoder(model.autoencoder.decode(made))
        assert (
            sound.shape == (2, round(tiny.DURATION_S * model.front_end.sample_rate))
            and sound.isfinite().all()
        )


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), NEIGHBOURS)
def test_every_pair_of_neighbours_takes_a_step_or_is_refused_in_one_line(first, second):
    wrong = {}
    for pair in product(components(first), components(second)):
        try:
            take_steps(*pair)
        except StaV2AError as error:
            told = f"{error.message} {error.advice}"
            if REFUSED.get(pair, "\n") not in told or "\n" in told:
                wrong[pair] = told
        else:
            if pair in REFUSED:
                wrong[pair] = "is not refused"
    assert wrong == {}
