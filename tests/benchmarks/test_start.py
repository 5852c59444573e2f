"""How long `stav2a --help` takes, interpreter included."""

import subprocess
import sys


def test_help(benchmark):
    benchmark.pedantic(
        subprocess.run,
        args=([sys.executable, "-m", "stav2a", "--help"],),
        kwargs={"check": True, "stdout": subprocess.DEVNULL},
        rounds=10,
        warmup_rounds=3,
    )
