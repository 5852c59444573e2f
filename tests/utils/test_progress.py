import re
import subprocess
import sys

import pytest

from stav2a.utils import progress as module
from stav2a.utils.progress import followed_by, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets, in seconds."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_with_rate_and_time_left(clock, capsys):
    with progress(100, "joint", "step") as bar:
        for step in range(70):
            clock[0] = step + 1.0
            bar.note(f"loss {step}")
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "joint: 30/100 steps, 1.00 steps/s, 01:10 left, loss 29",
        "joint: 60/100 steps, 1.00 steps/s, 00:40 left, loss 59",
    ]


def test_work_that_is_short_says_nothing(clock, capsys):
    with progress(3, "sampling", "step") as bar:
        assert list(bar.counted("abc")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_slow_work_tells_the_time_of_an_item_and_what_was_finished_before_is_not_counted(clock, capsys):
    with progress(10, "a.mp4", "step", initial=4) as bar:
        bar.skip(2)
        clock[0] = 40.0
        bar.update(2)
    assert capsys.readouterr().err == "a.mp4: 8/10 steps, 20.00 s/step, 00:40 left\n"


def test_the_time_of_the_whole_run_is_told(clock, capsys):
    with followed_by(2.0), progress(60, "onset", "step") as bar:
        clock[0] = 30.0
        bar.update(30)
    assert capsys.readouterr().err == "onset: 30/60 steps, 1.00 steps/s, 00:30 left, the whole run 02:30\n"


def test_a_work_of_unknown_size_tells_its_rate(clock, capsys):
    with progress(None, "encoding captions", "caption") as bar:
        clock[0] = 30.0
        bar.update(60)
    assert capsys.readouterr().err == "encoding captions: 60 captions, 2.00 captions/s\n"


def test_a_terminal_gets_a_bar_and_a_hidden_one_nothing():
    code = (
        "import sys; from stav2a.utils.progress import followed_by, progress\n"
        "sys.stderr.isatty = lambda: True\n"
        "with followed_by(1.0), progress(4, 'joint', 'step') as bar:\n"
        "    bar.skip(1); bar.note('loss 1'); bar.update(3)\n"
        "with progress(4, 'hidden', 'step', shown=False) as bar:\n"
        "    bar.note('loss 2'); bar.update(4)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.search(r"joint: 100%.* 4/4 .*loss 1", result.stderr) and "hidden" not in result.stderr
