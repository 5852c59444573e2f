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

loop.CHECKPOINT_S, loop.SAVING = 0.0, 1e9
waveforms.BATCH = 2
FOLDER, RANK = Path(sys.argv[1]), os.environ.get("RANK", "0")


def to_audio(model: Any, z: Any, real: Any = waveforms.to_audio) -> Any:
    with (FOLDER / f"sampled-{RANK}").open("a") as file:
        file.write(f"{len(z)}\n")
    return real(model, z)


waveforms.to_audio = to_audio
if __name__ == "__main__":
    (FOLDER / f"pid-{RANK}").write_text(str(os.getpid()))
    sys.exit(main(["run", *sys.argv[2:]]))
