"""Work in processes: as many as this process may use processors."""

import os

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
