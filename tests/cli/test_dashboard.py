import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from stav2a.cli import dashboard
from stav2a.cli.main import main
from stav2a.experiments.tracking import PARENT, connect

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_told_at_once(tmp_path, capsys):
    with connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, experiment="e", run_name="r"):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        uri = ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
        assert main(["dashboard", *uri, "--port", str(port)]) == 2
    assert f"--port {port} can't be used (Address already in use)" in capsys.readouterr().err


def test_nothing_tracked_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["dashboard", "--output", str(tmp_path)]) == 1
    assert "there is no such file yet" in capsys.readouterr().err


def test_pages_that_never_answer_are_waited_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(dashboard, "START_TIMEOUT_S", 0.5)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as silent:
        assert not dashboard._answers(silent, f"http://127.0.0.1:{free_port()}")
        assert silent.poll() is None
        silent.kill()


@pytest.mark.slow
def test_the_pages_are_served_on_this_machine_alone(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tags = {"kind": "study", "study": "table3"}
    with connect(uri, tmp_path, experiment="table3", run_name="table3", tags=tags) as study:
        with connect(
            uri, tmp_path, experiment="table3", run_name="CN", tags={PARENT: str(study.run_id)}
        ) as run:
            child = str(run.run_id)
    port = free_port()
    line = [
        sys.executable,
        "-m",
        "stav2a",
        "dashboard",
        "table3",
        "--tracking-uri",
        uri,
        "--port",
        str(port),
    ]
    with (
        open(tmp_path / "said", "w") as said,
        subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        ) as served,
    ):
        try:
            told = [served.stdout.readline() for _ in range(4)]
            page = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            shown = page.open(f"http://127.0.0.1:{port}/").read().decode()  # at once
        finally:
            served.terminate()
            served.wait(60)
    assert told[0].startswith(f"table3: http://127.0.0.1:{port}/#/compare-runs?runs=") and child in told[0]
    assert told[1].startswith(f"runs: http://127.0.0.1:{port}/#/experiments/")
    assert told[2].startswith(f"charts: http://127.0.0.1:{port}/#/experiments/")
    assert told[3].startswith(f"all runs: http://127.0.0.1:{port}/#/experiments?")
    assert all("workflowType=machine_learning" in line for line in told)
    assert "<title>MLflow</title>" in shown
    said_before = (tmp_path / "said").read_text()
    assert said_before.startswith("starting MLflow's pages; ") and "http://" not in said_before
    left = [file for file in Path("/proc").glob("[0-9]*/cmdline") if uri.encode() in read(file)]
    assert left == []
    with pytest.raises(OSError):
        page.open(f"http://127.0.0.1:{port}/")


def read(file: Path) -> bytes:
    """A file's bytes; empty where it is gone."""
    try:
        return file.read_bytes()
    except OSError:
        return b""
