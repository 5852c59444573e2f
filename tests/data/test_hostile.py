"""What becomes of hostile files: told in one line, at once, in little memory."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.hostile import FILES, outcome

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("hostile", FILES, ids=lambda hostile: hostile.came)
def test_a_hostile_file_is_told_in_one_line_and_at_once(hostile, tmp_path):
    path = hostile.make(tmp_path)
    started = time.process_time()
    read, told = outcome(path)
    assert time.process_time() - started < 1
    assert read == hostile.read
    assert told == "" if hostile.told is None else hostile.told in told
    assert told.isprintable()
    told.encode("utf-8")


@pytest.mark.slow
def test_the_page_tells_what_happens_and_all_of_it_needs_little_memory():
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.hostile"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in (ROOT / "docs" / "hostile.md").read_text()
    assert int(re.findall(r"peak memory (\d+) MB", done.stderr)[0]) < 1000
