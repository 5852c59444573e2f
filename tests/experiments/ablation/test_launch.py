"""Child processes a few at a time, with small real commands."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from stav2a.experiments.ablation import study
from stav2a.experiments.ablation.launch import GPUPool, Job, LocalProcess, run_all, visible_gpus
from stav2a.experiments.ablation.planning import plan
from stav2a.experiments.ablation.runner import StudyRunner
from stav2a.experiments.ablation.study_report import StudyFolder
from stav2a.utils.errors import UsageError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def job(tmp_path):
    def job(title: str, code: str = "") -> Job:
        return Job(title, (sys.executable, "-c", code), tmp_path / f"{title}.log")

    return job


def run(jobs, width=1, environment=None, **more):
    """Run jobs here: their exit codes in the order in which they end, and what happens line by line."""
    lines, seconds = [], []

    def ended(job, code, took):
        lines.append(f"{job.title} ended {code}")
        seconds.append(took)

    codes = run_all(
        jobs,
        partial(LocalProcess, environment=environment or {}),
        width=width,
        on_start=lambda job: lines.append(f"{job.title} started"),
        on_end=ended,
        **more,
    )
    assert len(seconds) == len(jobs) and all(each > 0 for each in seconds)
    return list(codes.values()), lines


def test_one_at_a_time_runs_in_order(job):
    _, lines = run([job("a"), job("b")])
    assert lines == ["a started", "a ended 0", "b started", "b ended 0"]


def test_a_job_that_fails_does_not_stop_the_others(job):
    codes, _ = run([job("a", "raise SystemExit(3)"), job("b", "import os; os.abort()"), job("c")])
    assert codes == [3, -signal.SIGABRT, 0]


def test_two_at_a_time_run_together(job, tmp_path):
    meet = "import sys, time, pathlib as p; p.Path(r'{0}/{1}').touch()\n"
    meet += "while not p.Path(r'{0}/{2}').exists(): time.sleep(0.01)"
    codes, _ = run([job("a", meet.format(tmp_path, 1, 2)), job("b", meet.format(tmp_path, 2, 1))], width=2)
    assert codes == [0, 0]


def test_a_job_that_may_not_start_yet_lets_the_next_one_pass(job):
    slow = job("slow", "import time; time.sleep(0.5)")

    def may_start(each, running):
        return each.title != "waits" or slow not in running

    _, lines = run([slow, job("waits"), job("passes")], width=2, may_start=may_start)
    assert lines.index("passes ended 0") < lines.index("slow ended 0") < lines.index("waits started")


def test_jobs_start_where_nothing_is_running(job):
    _, lines = run([job("a"), job("b")], width=2, may_start=lambda each, running: False)
    assert lines == ["a started", "a ended 0", "b started", "b ended 0"]


def test_all_that_a_job_prints_is_in_its_log(job):
    talk = job("a", "import sys; print('said'); print('step 1\\rstep 2', file=sys.stderr); sys.exit('over')")
    run([talk])
    assert sorted(talk.last_lines()) == ["over", "said", "step 2"]
    assert talk.last_lines(1) == [talk.last_lines()[-1]]


def test_a_job_gets_the_environment(job):
    each = job("a", "import os; print(os.environ['OMP_NUM_THREADS'])")
    run([each], environment={"OMP_NUM_THREADS": "7"})
    assert each.last_lines() == ["7"]


PARENT = """
import sys
from pathlib import Path
from stav2a.experiments.ablation.launch import Job, LocalProcess, run_all

child = "import time, sys\\ntry:\\n    print('up', flush=True); time.sleep(60)\\n"
child += "except KeyboardInterrupt:\\n    print('wrote it down')"
job = Job("a", (sys.executable, "-c", child), Path(sys.argv[1]))
started = lambda job: print("started", flush=True)
run_all([job], lambda job: LocalProcess(job, {}), width=1, on_start=started, on_end=print)
"""


def test_ctrl_c_lets_the_children_write_down_what_they_have(tmp_path):
    log = tmp_path / "a.log"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout.readline() == "started\n"
        deadline = time.monotonic() + 30
        while "up" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        parent.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in parent.communicate(timeout=30)[1]
    assert log.read_text() == "up\nwrote it down\n"


SHOW_GPUS = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['MINE']); time.sleep(0.3)"


def test_each_job_has_gpus_of_its_own_and_gives_them_back(job):
    pool = GPUPool(["0", "1", "4", "7", "9"], 2, {"MINE": "too"})
    jobs, running, most = [job(name, SHOW_GPUS) for name in "abcd"], [], []

    def started(each: Job) -> None:
        running.append(each)
        most.append(len(running))

    codes = run_all(
        jobs, pool.start, width=pool.width, on_start=started, on_end=lambda each, *_: running.remove(each)
    )
    assert list(codes.values()) == [0] * 4 and max(most) == pool.width == 2
    seen = [each.last_lines()[0] for each in jobs]
    assert all(line.endswith(" too") for line in seen)
    first, second = (set(line.split()[0].split(",")) for line in seen[:2])
    assert len(first) == len(second) == 2 and not first & second
    assert sorted(pool.free) == ["0", "1", "4", "7", "9"]


@pytest.mark.parametrize(("devices", "there"), [(["0"], "1 of them here"), ([], "none here")])
def test_more_gpus_than_there_are_is_refused(devices, there):
    with pytest.raises(UsageError, match=f"--gpus-a-run 2: there are {there}"):
        GPUPool(devices, 2, {})


@pytest.mark.parametrize(
    ("count", "named", "found"),
    [(2, None, ["0", "1"]), (2, "3,5", ["3", "5"]), (0, "", []), (1, "GPU-a", ["GPU-a"])],
)
def test_the_gpus_are_those_that_this_process_may_use(monkeypatch, count, named, found):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == found


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_on_several_gpus_is_started_by_torchrun(processes, tmp_path):
    planned = plan(study.load("ablations/table3.gin", ["recipes/scale/smoke.gin"], seeds=[0]), tmp_path)
    runner = StudyRunner(planned, None, 1, "", processes=processes)
    folder = StudyFolder(tmp_path, planned.study.name)
    folder.logs.mkdir(parents=True)
    command = runner._job(planned.runs[0], folder, "", ()).command
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m")
    assert command[:2] == (sys.executable, "-m")
    assert command[2:8] == (*launcher, "stav2a.run") if processes > 1 else command[2] == "stav2a.run"
