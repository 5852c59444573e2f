"""From a caption to a waveform, at laptop scale: what of it is the denoising loop, and what shortens it."""

from functools import partial
from typing import Any

import pytest
import torch

from stav2a.components.text_encoders import TinyMT5
from stav2a.models.stav2a import encode_captions
from stav2a.sampling import FastSampler, ReferenceSampler, ddim, ddpm, dpm_solver, to_audio
from stav2a.utils.files import write_json
from tests.benchmarks.measuring import CLOCK, RESULTS, Clock, in_turns, machine, peak_memory_gb, spread
from tests.benchmarks.scales import LAPTOP, given

ROUNDS, WARMUPS = 10, 3
DEVICE = torch.device("cpu")
LATE = {"timestep_spacing": "trailing"}
# name: sampler, scheduler, steps
ARMS: dict[str, tuple[Any, Any, int]] = {
    "sampler.reference, DDPM, 25 steps": (ReferenceSampler, ddpm("v_prediction", **LATE), 25),
    "sampler.fast, DDIM, 200 steps": (FastSampler, ddim("v_prediction", **LATE), 200),
    "sampler.fast, DDPM, 25 steps": (FastSampler, ddpm("v_prediction", **LATE), 25),
    "sampler.fast, DPM-Solver++, 10 steps": (FastSampler, dpm_solver("v_prediction", **LATE), 10),
}


@pytest.mark.timeout(0)
def test_text_to_wav(benchmark):
    model = LAPTOP.model(DEVICE)
    model.text_encoder = TinyMT5(dim=LAPTOP.cond_dim).eval()
    samplers = {name: sampler() for name, (sampler, *_) in ARMS.items()}
    clock, times, seeds = Clock(DEVICE), {}, iter(range(1, 10_000))

    def sound(name: str, inputs: dict[str, Any]) -> Any:
        _, scheduler, steps = ARMS[name]
        settings = {"scheduler": scheduler, "num_inference_steps": steps, "guidance_scale": 2.0}
        return to_audio(model, samplers[name](model, **inputs, **settings))[1]

    def fresh() -> Any:
        inputs = given(model, 1, next(seeds))
        z = torch.randn(1, *model.latent_shape)
        mel = model.autoencoder.decode(z)
        pieces = {
            "text, both branches": lambda: encode_captions(model, [*inputs["captions"], ""]),
            "latent to mel": lambda: model.autoencoder.decode(z),
            "mel to waveform": lambda: model.vocoder(mel),
        }
        return ({**{name: partial(sound, name, inputs) for name in ARMS}, **pieces}, clock, times), {}

    with torch.no_grad():
        benchmark.pedantic(in_turns, setup=fresh, rounds=ROUNDS, warmup_rounds=WARMUPS)
    record = {
        "machine": machine(), "rounds": ROUNDS, "duration_s": model.duration_s,
        "peak_memory_gb": peak_memory_gb(DEVICE),
        "seconds": {name: spread(found[CLOCK][WARMUPS:]) for name, found in times.items()},
    }  # fmt: skip
    benchmark.extra_info.update(record)
    write_json(RESULTS / "sound-cpu-laptop-1.json", record)
