"""Nothing stays behind on the CPU when the model is elsewhere.

The other place is torch's meta device, which every machine has: like a GPU it refuses tensors of the CPU.
"""

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stav2a.components.vocoders import HiFiGAN
from stav2a.metrics.judges.judge import judges_on
from stav2a.metrics.judges.yamnet import YAMNet
from stav2a.models.stav2a import as_video
from stav2a.sampling.video_to_audio import video_to_audio
from stav2a.training.objective import TrainingSpec, on_device
from stav2a.utils import distributed
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.cli.test_generate_command import write_video
from tests.metrics.judges.judge_networks import NETWORKS, judge_of
from tests.training.stage_settings import STAGES

ELSEWHERE = torch.device("meta")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.setattr(distributed, "device", lambda: ELSEWHERE)


def test_a_tensor_left_on_the_cpu_would_be_found():
    with pytest.raises(RuntimeError, match="device"):
        nn.Linear(2, 2, device=ELSEWHERE)(torch.zeros(1, 2))


def test_a_gpu_of_this_machine_is_hidden_from_all_tests_but_those_marked():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and not torch.cuda.is_available()


class OneStep:
    """A trainer that moves a batch's inputs, and computes one loss and its gradient."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def fit(self, plan: TrainingSpec, work: Any) -> Any:
        with torch.no_grad():
            inputs = plan.fetch(*plan.draw(torch.Generator().manual_seed(0)))
        self.losses.append(plan.loss(*on_device(inputs, ELSEWHERE)))
        self.losses[-1].backward()
        return {}


class Words(nn.Module):
    """A text encoder without transformers' own, whose masks ask for numbers."""

    dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, self.dim)

    def forward(self, captions: Any) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([[len(caption) % 8] for caption in captions], device=self.table.weight.device)
        return self.table(ids), torch.ones_like(ids, dtype=torch.bool)


def test_a_video_follows_the_model(tmp_path):
    given: list[Tensor] = []

    def sampler(model: Any, e_v: Tensor, *_: Any, **__: Any) -> Tensor:
        given.append(e_v)
        raise KeyboardInterrupt

    write_video(tmp_path / "x.mp4", 20)
    settings: dict[str, Any] = {"scheduler": None, "num_inference_steps": 1, "guidance_scale": 1.0}
    with pytest.raises(KeyboardInterrupt):
        video_to_audio(tiny.model().to(ELSEWHERE), tmp_path / "x.mp4", sampler=sampler, **settings)
    assert given[0].device == ELSEWHERE


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match=r"can't be used: .*[^.]\. Write auto or cpu"):
        distributed.device_named(name)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_moves_what_its_loss_needs(name, tmp_path):
    here, trainer = tiny.model(text_encoder=Words), OneStep()
    work = tiny.work(here, tmp_path, trainer=trainer)  # type: ignore[arg-type]
    work.corpus.latents(), work.corpus.features()  # kept on the CPU
    here.to(ELSEWHERE)
    STAGES[name]().run(work)
    assert [loss.device for loss in trainer.losses] == [ELSEWHERE]
    assert any(p.grad is not None for p in here.parameters())


@pytest.mark.parametrize("name", ["t2a_finetune", "onset", "joint"])
def test_a_stage_leaves_encoders_that_the_corpus_does_not_call_where_they_are(name, tmp_path):
    """Those of prepared clips; a stage takes the blocks that it trains along by itself."""
    here, trainer = tiny.model(text_encoder=Words), OneStep()
    work = tiny.work(here, tmp_path, trainer=trainer)  # type: ignore[arg-type]
    texts = here.text_encoder(["a", "b"] * 4)
    work.corpus.texts = lambda rows, drop: tuple(each[: len(rows)].detach() for each in texts)  # type: ignore[method-assign]
    work.corpus.latents(), work.corpus.features()
    STAGES[name]().run(work)
    assert [loss.device for loss in trainer.losses] == [ELSEWHERE]
    unread = (here.feature_encoder, here.text_encoder, here.autoencoder, here.vocoder)
    assert {p.device.type for block in unread for p in block.parameters()} == {"cpu"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_judge_moves_what_its_model_takes_of_several_sounds(name):
    judge = judge_of(name)
    judge.model.to(ELSEWHERE)
    assert judge.device == ELSEWHERE and judge.at_once > 1
    samples = 5 * judge.sample_rate
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):  # the answer, at the end
        judge.judge_together([np.zeros(samples, np.float32), np.ones(samples, np.float32)])


def test_a_judge_stays_where_it_is_told():
    with judges_on("cpu"):
        assert YAMNet(weights="none").device == torch.device("cpu")
    assert YAMNet(weights="none").device == ELSEWHERE


@torch.no_grad()
def test_encoders_and_decoders_run():
    model: Any = tiny.model(vocoder=HiFiGAN).to(ELSEWHERE)
    frames, mel, _, _ = tiny.clips()
    e_v = model.feature_encoder(as_video(frames[:2].to(ELSEWHERE)))
    z, _ = model.autoencoder.encode(mel[:2].to(ELSEWHERE))
    sound = model.vocoder(model.autoencoder.decode(z))
    assert {e_v.device, z.device, sound.device} == {ELSEWHERE}
