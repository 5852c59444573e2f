"""Sampling: denoising loops, their guidance, their schedulers, and waveforms from latents."""

from stav2a.sampling.autoregressive_sampler import AutoregressiveSampler
from stav2a.sampling.fast.branch_parallel import BranchParallelSampler
from stav2a.sampling.fast.engines import Compiled, CudaGraph, Eager
from stav2a.sampling.fast.fast_sampler import FastSampler
from stav2a.sampling.fast.shortcuts import ControlEvery, DeepCache, GuidanceInterval, NoShortcut
from stav2a.sampling.guiders import AdaptiveProjected, ClassifierFree, NullText, TwoWeights
from stav2a.sampling.reference import ReferenceSampler, SamplerError, guided, initial_noise
from stav2a.sampling.schedulers import ddim, ddpm, dpm_solver, flow_match_euler, flow_match_heun, unipc
from stav2a.sampling.similarity_guided import SimilarityGuidedSampler
from stav2a.sampling.waveforms import to_audio

__all__ = [
    "AdaptiveProjected", "AutoregressiveSampler", "BranchParallelSampler", "ClassifierFree", "Compiled",
    "ControlEvery", "CudaGraph", "DeepCache", "Eager", "FastSampler", "GuidanceInterval", "NoShortcut",
    "NullText", "ReferenceSampler", "SamplerError", "SimilarityGuidedSampler", "TwoWeights", "ddim", "ddpm",
    "dpm_solver", "flow_match_euler", "flow_match_heun", "guided", "initial_noise", "to_audio", "unipc",
]  # fmt: skip
