"""The ladder of the denoising loop at the sizes of docs/performance.md, on a CPU; see `ladder`."""

import os

import pytest
import torch

from tests.benchmarks.ladder import measure
from tests.benchmarks.measuring import RESULTS

torch._inductor.config.force_disable_caches = True  # a first run compiles, as on a new machine
# scale, batch, steps a run, rounds
RUNS = [
    ("laptop", 1, 10, 10),
    ("laptop", 8, 5, 10),
    ("laptop", 32, 2, 5),
    ("quarter", 1, 1, 5),
    ("paper", 1, 1, 2),
]


@pytest.mark.timeout(0)
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU: make bench-gpu")
@pytest.mark.parametrize(("scale", "batch", "steps", "rounds"), RUNS)
def test_ladder(benchmark, scale, batch, steps, rounds):
    file = RESULTS / f"cpu-{scale}-{batch}{os.environ.get('STAV2A_TRIAL', '')}.json"
    file.unlink(missing_ok=True)
    wanted = [each for each in os.environ.get("STAV2A_RUNGS", "").split("|") if each]
    record = benchmark.pedantic(
        measure, args=(scale, batch, steps, rounds, file), kwargs={"wanted": wanted}, rounds=1
    )
    benchmark.extra_info.update(record)
