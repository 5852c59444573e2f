"""`stav2a dashboard`: MLflow's pages of what was tracked, opened at a study."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from stav2a.cli.options import Output, TrackingUri
from stav2a.utils.errors import SUCCESS, StaV2AError
from stav2a.utils.network import HOST, check_free

START_TIMEOUT_S, STOP_TIMEOUT_S = 300.0, 10.0
# One process starts sooner than MLflow's four; its server says where it runs before it answers.
QUICK = ("--workers", "1", "--uvicorn-opts", "--log-level warning")
STDERR = 2  # MLflow's own words; the standard output has the addresses alone

EXAMPLES = """
  stav2a dashboard                        everything tracked under runs/
  stav2a dashboard table3                 the address of the page that compares a study's runs
  stav2a dashboard table3 --port 5001
"""


class DashboardError(StaV2AError):
    """Pages that did not start."""


def dashboard(
    study: Annotated[str | None, Argument(metavar="STUDY", help="a study, such as table3")] = None,
    output: Output = Path("runs"),
    tracking_uri: TrackingUri = None,
    port: Annotated[int, Option(min=1, max=65535, help="port of the pages on this machine")] = 5000,
) -> int:
    """Start MLflow's pages on this machine; when they answer, print where a study's runs are compared."""
    from stav2a.experiments.tracking import open_store

    store = open_store(tracking_uri, output)
    base = f"http://{HOST}:{port}"
    if not store.is_server:
        check_free(port)
    addresses = []
    if study:
        parent = store.study(study)
        addresses += [
            f"{study}: {store.compare_url(store.children(parent.run_id), base)}",
            f"runs: {store.children_url(parent, base, charts=False)}",
            f"charts: {store.children_url(parent, base)}",
        ]
    if store.is_server:
        print("\n".join([*addresses, f"all runs: {store.all_url()}"]), flush=True)
        return SUCCESS
    command = ["ui", "--backend-store-uri", store.uri, "--host", HOST, "--port", str(port), *QUICK]
    print("starting MLflow's pages; their address comes when they answer", file=sys.stderr, flush=True)
    with _served([sys.executable, "-m", "mlflow", *command]) as pages:
        if not _answers(pages, base):
            ended = f"ended with exit code {pages.returncode}; its words are above"
            silent = f"do not answer after {START_TIMEOUT_S:g} s"
            raise DashboardError(f"MLflow's pages {silent if pages.returncode is None else ended}.")
        print("\n".join([*addresses, f"all runs: {store.all_url(base)}  (Ctrl-C ends)"]), flush=True)
        return pages.wait()


@contextlib.contextmanager
def _served(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server with all processes that it starts; they end with this one, by a signal too."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}
    no_jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # of language models; a dozen processes
    environment = {**os.environ, **quiet, **no_jobs}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGHUP)}
    server = subprocess.Popen(command, env=environment, stdout=STDERR, start_new_session=True)
    try:
        yield server
    finally:
        for number, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):  # all have ended
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout_s)
        for each, handler in before.items():
            signal.signal(each, handler)


def _answers(server: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until the pages answer; False where their process ends before, or where they never do."""
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    last = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < last:
        try:
            ask.open(address, timeout=START_TIMEOUT_S).close()
            return True
        except OSError:
            time.sleep(0.2)
    return False
