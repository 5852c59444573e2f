"""`stav2a dashboard`: MLflow's pages of what was tracked, opened at a study."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from stav2a.cli.options import Output, TrackingUri
from stav2a.utils.errors import SUCCESS
from stav2a.utils.network import HOST, check_free

EXAMPLES = """
  stav2a dashboard                        everything tracked under runs/
  stav2a dashboard table3                 the address of the page that compares a study's runs
  stav2a dashboard table3 --port 5001
"""


def dashboard(
    study: Annotated[str | None, Argument(metavar="STUDY", help="a study, such as table3")] = None,
    output: Output = Path("runs"),
    tracking_uri: TrackingUri = None,
    port: Annotated[int, Option(min=1, max=65535, help="port of the pages on this machine")] = 5000,
) -> int:
    """Start MLflow's pages on this machine, and print the address where a study's runs are compared."""
    from stav2a.experiments.tracking import open_store

    store = open_store(tracking_uri, output)
    base = f"http://{HOST}:{port}"
    if not store.is_server:
        check_free(port)
    if study:
        parent = store.study(study)
        print(f"{study}: {store.compare_url(store.children(parent.run_id), base)}", flush=True)
    if store.is_server:
        print(f"all runs: {store}", flush=True)
        return SUCCESS
    print(f"all runs: {base}  (Ctrl-C ends)", flush=True)
    command = ["ui", "--backend-store-uri", store.uri, "--host", HOST, "--port", str(port)]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return subprocess.run([sys.executable, "-m", "mlflow", *command], env=quiet, check=False).returncode
