"""Steps of the joint stage on random clips, through data parallelism where a launcher starts them.

torchrun --nproc-per-node 1 -m tests.benchmarks.joint_steps --scale laptop --batch 16 --steps 1
python -m tests.benchmarks.joint_steps --scale paper --batch 10 --steps 20 --mixed-precision bf16
"""

import argparse
import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.state import AcceleratorState

from stav2a.data.filters import KeepAll
from stav2a.models.stav2a import encode_captions
from stav2a.training.denoising import Epsilon
from stav2a.training.loop import TrainingRun
from stav2a.training.objective import TrainingContext
from stav2a.training.stages import JointStage
from stav2a.training.trainer import AccelerateTrainer
from stav2a.utils import distributed
from stav2a.utils.files import write_json
from tests.benchmarks.measuring import CLOCK, DEVICE, RESULTS, Clock, machine, peak_memory_gb, spread
from tests.benchmarks.scales import CAPTIONS, SCALES

CLIPS = 64


def run(scale: str, batch: int, settings: dict[str, Any], folder: Path) -> TrainingRun:
    """The joint stage of a new model, ready for its first step."""
    AcceleratorState._reset_state()  # it keeps one way a process
    folder.mkdir()
    model = SCALES[scale].model(DEVICE)
    stage = JointStage(data_filter=KeepAll, batch_size=batch, steps=10_000)
    asked = SimpleNamespace(fit=lambda plan, work: plan)
    work = partial(TrainingContext, model, corpus(model), folder, 0, Epsilon(), frozenset(), lambda *_: None)
    return TrainingRun(
        stage.run(work(asked)), work(None), SimpleNamespace(**{**vars(AccelerateTrainer()), **settings})
    )


def corpus(model: Any) -> Any:
    """Random clips, of which only what the joint stage reads is there."""
    rng = torch.Generator().manual_seed(0)
    length = round(model.duration_s * model.feature_encoder.frame_rate_hz)
    e_v = torch.nn.functional.normalize(
        torch.randn(CLIPS, length, model.feature_encoder.dim, generator=rng), dim=-1
    )
    mean = torch.randn(CLIPS, *model.latent_shape, generator=rng)

    def texts(rows: torch.Tensor, drop: torch.Tensor) -> Any:
        asked = zip(rows.tolist(), drop.tolist(), strict=True)
        return encode_captions(model, ["" if null else CAPTIONS[i % len(CAPTIONS)] for i, null in asked])

    return SimpleNamespace(
        rows=lambda split, data_filter: torch.arange(CLIPS),
        features=lambda slot: e_v,
        latents=lambda: (mean, torch.full_like(mean, 0.1)),
        texts=texts,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--name", required=True, help="of the record")
    asked = parser.parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    distributed.device()  # joins the group of a launcher
    clock, seconds, losses = Clock(DEVICE), [], []
    with TemporaryDirectory() as folder:
        settings = {"mixed_precision": asked.mixed_precision}
        training = run(asked.scale, asked.batch, settings, Path(folder) / "run")
        for number in range(asked.steps):
            seconds.append(clock(lambda: losses.append(training.step()))[CLOCK])
            if not math.isfinite(losses[-1]):
                raise SystemExit(f"error: the loss of step {number} is {losses[-1]}")
            record = {
                "machine": machine(), "scale": asked.scale, "batch": asked.batch, "clock": CLOCK,
                "mixed_precision": asked.mixed_precision, "objective": type(training.objective).__name__,
                "losses": losses, "step_s": seconds, "peak_memory_gb": peak_memory_gb(DEVICE),
            }  # fmt: skip
            write_json(asked.results / f"{asked.name}.json", record)
    later = spread(seconds[len(seconds) // 4 :])  # without the first, in which libraries choose their kernels
    print(
        f"{record['objective']}: loss {losses[0]:.3f} to {losses[-1]:.3f}, "
        f"{1000 * later['median']:.1f} ms a step, {record['peak_memory_gb']:.1f} GB"
    )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
