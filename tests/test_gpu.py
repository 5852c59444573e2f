"""What a GPU computes is what the CPU does: training, sampling, judging and the pipeline, at tiny sizes.

`make test-gpu` runs them; in every other session GPUs are hidden (conftest.py).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from stav2a.metrics.judges.judge import judges_on
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.sampling import Compiled, CudaGraph, FastSampler, ReferenceSampler, ddim, ddpm
from stav2a.training import loop
from stav2a.training.objective import TrainingSpec, on_device
from stav2a.training.trainer import AccelerateTrainer, adamw_8bit
from stav2a.utils import distributed
from tests import tiny
from tests.cli.test_generate_command import write_video
from tests.metrics.judges.judge_networks import NETWORKS, judge_of
from tests.sampling.given import error, features, made, sample
from tests.training.stage_settings import STAGES

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Convolutions in float32, which by default round to TF32, so that figures can be compared."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    AcceleratorState._reset_state()  # it keeps one precision a process


class OneLossOnEach:
    """A trainer that computes the loss of one batch, and its gradient, on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.found = device, (0.0, 0.0)

    def fit(self, plan: TrainingSpec, work: Any) -> dict[str, Any]:
        with torch.no_grad():
            inputs = on_device(plan.fetch(*plan.draw(torch.Generator().manual_seed(0))), self.device)
        parameters = [p for group in plan.groups for p in group.parameters()]
        loss = plan.loss(*inputs)
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        self.found = loss.item(), torch.stack([g.norm() for g in gradient if g is not None]).norm().item()
        return {}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_the_loss_and_the_gradient_of_the_cpu(name, tmp_path, monkeypatch):
    found = []
    for device in (torch.device("cpu"), GPU):
        monkeypatch.setattr(distributed, "device", lambda device=device: device)
        trainer, model = OneLossOnEach(device), tiny.model().to(device)
        STAGES[name]().run(tiny.work(model, tmp_path, trainer=trainer))  # type: ignore[arg-type]
        found.append(trainer.found)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "as at the paper's scale": {"mixed_precision": "bf16", "per_device_batch_size": 3, "prefetch": True},
    "fp16": {"mixed_precision": "fp16", "memory_format": "channels_last"},
    "less memory": {"gradient_checkpointing": True, "per_device_batch_size": 2},
    "compiled": {"compiled": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_trained_and_resumed(name, settings, tmp_path, monkeypatch):
    if settings.get("compiled") and name != "joint":
        pytest.skip("compiling takes long: the joint stage alone")
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "SAVING", 1e9)
    for steps in (2, 4):  # the second goes on from the first one's checkpoint
        AcceleratorState._reset_state()
        model = tiny.model().to(GPU)
        work = tiny.work(model, tmp_path, trainer=AccelerateTrainer(**settings))
        history = STAGES[name](steps=steps).run(work)
    assert all(np.isfinite(value) for points in history.values() for _, value in points)
    assert all(p.isfinite().all() for p in model.parameters())


def test_eight_bits_of_the_optimizer_are_resumed(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "SAVING", 1e9)
    for steps in (2, 4):
        work = tiny.work(tiny.model().to(GPU), tmp_path, trainer=AccelerateTrainer(optimizer=adamw_8bit))
        assert STAGES["joint"](steps=steps).run(work)


def test_a_checkpoint_takes_no_memory_of_the_card(tmp_path, monkeypatch):
    """Also of weights whose channels are innermost, which a file does not hold."""
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)
    peaks: list[int] = []

    def save_when_due(run: Any, real: Any = loop.TrainingRun.save_when_due) -> None:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        real(run)
        peaks.append(torch.cuda.max_memory_allocated() - before)

    monkeypatch.setattr(loop.TrainingRun, "save_when_due", save_when_due)
    work = tiny.work(tiny.model().to(GPU), tmp_path, trainer=AccelerateTrainer(memory_format="channels_last"))
    STAGES["joint"](steps=1).run(work)
    assert (tmp_path / "joint.safetensors").is_file() and peaks == [0]


ENGINES: dict[str, Any] = {
    "graph": CudaGraph,
    "compiled": Compiled,
    "compiled graph": partial(CudaGraph, inner=Compiled),
}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("scheduler", [ddim, ddpm])
def test_an_engine_gives_the_latents_of_the_plain_loop(engine, scheduler):
    model, sampler = made().to(GPU), FastSampler(engine=engine)
    for seeds in ([1, 5, 9], [2, 6, 10]):  # the second is replayed
        given: dict[str, Any] = {"e_v": features().to(GPU), "seeds": seeds, "scheduler": scheduler}
        expected = sample(ReferenceSampler(), model, **given)
        assert error(sample(FastSampler(), model, **given), expected) <= 1e-4
        assert error(sample(sampler, model, **given), expected) <= 1e-4


def test_a_graph_in_half_precision_differs_by_its_rounding():
    model, given = made().to(GPU), {"e_v": features().to(GPU)}
    sampler = FastSampler(engine=CudaGraph, precision="bfloat16", memory_format="channels_last")
    assert error(sample(sampler, model, **given), sample(ReferenceSampler(), model, **given)) <= 5e-2


@pytest.mark.parametrize("name", NETWORKS)
def test_a_judge_gives_sounds_together_what_the_cpu_gives_each(name):
    with judges_on("cpu"):
        alone = judge_of(name)
    rng = np.random.default_rng(0)
    sounds = list(rng.normal(0, 0.1, (3, 5 * alone.sample_rate)).astype(np.float32))
    expected = [alone.judge_together([sound])[0] for sound in sounds]
    judge = judge_of(name)
    judge.model.to(GPU)
    assert judge.device.type == "cuda" and judge.at_once > 1
    for found, one in zip(judge.judge_together(sounds), expected, strict=True):
        for field in one.dtype.names or [...]:
            np.testing.assert_allclose(found[field], one[field], rtol=1e-2, atol=1e-3)


def test_a_pipeline_moves_and_gives_the_cpus_sound(tmp_path: Path):
    write_video(tmp_path / "x.mp4", 20)
    model = tiny.model()
    tiny.shake(model)
    pipe = VideoToAudioPipeline(
        model,
        sampler=FastSampler,
        scheduler=ddim,
        prediction_type="epsilon",
        num_inference_steps=3,
        guidance_scale=2.0,
    )

    def latents() -> Tensor:
        kept: list[Tensor] = []
        decode = model.autoencoder.decode
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(model.autoencoder, "decode", lambda z: (kept.append(z.cpu()), decode(z))[1])
            assert np.isfinite(pipe(tmp_path / "x.mp4", "a low drum").audios[0]).all()
        return kept[0]

    expected = latents()
    assert pipe.to("cuda").device.type == "cuda"
    assert error(latents(), expected) <= 1e-3
    pipe.to(torch.bfloat16)
    assert error(latents(), expected) <= 5e-2
