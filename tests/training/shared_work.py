"""What each process of `torchrun` runs in test_processes.py: all stages of the tiny model, one after another.

Usage: shared_work.py FOLDER [STEPS], where after so many steps of a stage the process leaves it
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from stav2a.training import loop
from stav2a.training.trainer import AccelerateTrainer
from stav2a.utils import distributed
from stav2a.utils.store import save_tensors
from tests import tiny
from tests.training.stage_settings import STAGES

TRAINER = AccelerateTrainer(per_device_batch_size=3)  # of 8: 3 + 1 in each of two processes


class Left(Exception):
    pass


def main(folder: Path, steps: int | None) -> None:
    loop.LOG_EVERY = 1
    if distributed.is_main():
        (folder / "processes").write_text(str(distributed.count()))
    if steps is not None:
        leave_after(steps)
    for name, stage in STAGES.items():
        model: Any = tiny.model()
        inside = folder / name
        inside.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(Left):
            history = stage(steps=6).run(tiny.work(model, inside, trainer=TRAINER))
            if distributed.is_main():
                save_tensors(inside / "end.safetensors", model.state_dict())
                (inside / "history.json").write_text(json.dumps(history))
        distributed.wait()


def leave_after(steps: int) -> None:
    """A checkpoint at every step, and no step after these."""
    loop.CHECKPOINT_S, loop.SAVING = 0.0, 1e9
    taken = loop.TrainingRun.step

    def step(run: loop.TrainingRun) -> float:
        if run.progress.step == steps:
            raise Left
        return taken(run)

    loop.TrainingRun.step = step  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
