"""Work in processes: as many as this process may use processors."""

import os
import subprocess
import sys

import pytest

from stav2a.utils.parallel import parallel, usable_cpus, worker_number


def process(item: int) -> int:
    return os.getpid()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_there_are_no_more_workers_than_processors_that_may_be_used():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cpus() == 1
        assert {*parallel(process, range(32), description="numbers")} == {os.getpid()}
    finally:
        os.sched_setaffinity(0, before)


def numbered(item: int) -> tuple[int, int | None]:
    return os.getpid(), worker_number()


@pytest.mark.slow
def test_worker_processes_are_numbered():
    found = {*parallel(numbered, range(40), workers=2, description="numbers")}
    assert sorted(number for _, number in found) == [*range(len({process for process, _ in found}))]
    assert worker_number() is None


FAULTS = """
import resource, sys
import numpy as np
from stav2a.utils.parallel import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(4):  # steps that ask for the same 40 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(2**17) for _ in range(40)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another allocator")
def test_memory_that_was_freed_is_asked_of_the_system_once():
    def pages(how: str) -> int:
        line = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    assert pages("kept") < 100 < 5000 < pages("given back")
