"""What each process of test_paper_scale.py runs: `stav2a run`, with a checkpoint at every step.

Usage: paper_run.py FOLDER OPTION..., where FOLDER gets the number of the process and its batches of sounds
"""

import os
import sys
from pathlib import Path
from typing import Any

from stav2a.cli.main import main
from stav2a.sampling import waveforms
from stav2a.training import loop


def run(folder: Path, options: list[str]) -> int:
    rank, real = os.environ.get("RANK", "0"), waveforms.to_audio

    def to_audio(model: Any, z: Any) -> Any:
        with (folder / f"sampled-{rank}").open("a") as file:
            file.write(f"{len(z)}\n")
        return real(model, z)

    loop.CHECKPOINT_S, loop.SAVING = 0.0, 1e9
    waveforms.BATCH, waveforms.to_audio = 2, to_audio
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    return main(["run", *options])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
