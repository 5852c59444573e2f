"""What preparation costs: one clip of 10 s at 340×256, on one core; the paper's sizes."""

import pickle
import time

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stav2a.components.autoencoders import MelVAE
from stav2a.components.feature_encoders import CAVP
from stav2a.data.filters import KeepAll
from stav2a.data.front_ends import AudioLDMMel
from stav2a.data.manifest import open_manifest
from stav2a.data.media import write_clip
from stav2a.data.onsets import SuperFlux
from stav2a.data.prepared import ClipRecord
from stav2a.preparation.clip_stages import ClipSettings, Decode, Encode
from stav2a.preparation.executors import one_thread
from stav2a.preparation.plan import PreparationPlan, PreparationRequest, write_plan

# Time of the processor: other programs on the machine do not count.
pytestmark = pytest.mark.benchmark(timer=time.process_time)
SETTINGS = ClipSettings(4.0, 224, 10.24, 256, keep=("e_v", "latents"))


@pytest.fixture(scope="module")
def decode(tmp_path_factory) -> Decode:
    """A clip of a moving picture with camera noise, and clicks."""
    folder = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (32, 80, 3)), np.ones((8, 8, 1)))
    frames = np.stack([wide[:, i : i + 340] for i in range(250)]) + rng.normal(0, 2, (250, 256, 340, 3))
    sound = rng.normal(0, 0.01, 441_000).astype(np.float32)
    sound[::22_050] = 0.9
    write_clip(folder / "clip.mp4", np.clip(frames, 0, 255).astype(np.uint8), 25, sound, 44_100)
    plan = folder / "plan.parquet"
    write_plan(plan, open_manifest(folder), PreparationRequest(folder, folder, folder))
    return Decode(PreparationPlan(plan), folder, SETTINGS, SuperFlux(), {"none": KeepAll()}, AudioLDMMel())


@pytest.fixture(scope="module")
def encode() -> Encode:
    """CAVP and the autoencoder at the paper's sizes; random weights cost what trained ones do."""
    return Encode(SETTINGS.keep, {"feature_encoder": CAVP().eval(), "autoencoder": MelVAE().eval()})


def test_the_first_stage(benchmark, decode):
    with one_thread():
        row = benchmark.pedantic(decode, args=(0,), warmup_rounds=1, rounds=5)
    assert row.tensors["frames"].shape == (41, 3, 224, 224)


def test_the_encoders(benchmark, decode, encode):
    row = decode(0)
    with one_thread(), FlopCounterMode(display=False) as counter:
        made = encode(row)
    benchmark.extra_info["gflop"] = round(counter.get_total_flops() / 1e9, 1)
    benchmark.extra_info["kib_a_clip"] = round(len(made.pack()) / 1024, 1)
    with one_thread():
        benchmark.pedantic(encode, args=(row,), rounds=1)
    assert len(made.pack()) <= 300 * 1024


def test_what_a_row_costs_between_processes(benchmark, decode, encode):
    made = encode(decode(0))
    benchmark.pedantic(lambda: ClipRecord.unpack(pickle.loads(pickle.dumps(made.pack()))), rounds=20)
    assert torch.tensor(made.tensors["e_v"]).shape == (41, 512)
