"""The command line of `stav2a dashboard`: MLflow's pages of what was tracked, opened at a study."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from stav2a.cli import options
from stav2a.utils.errors import guarded
from stav2a.utils.network import HOST, check_free

EXAMPLES = """\
examples:
  stav2a dashboard                        # everything tracked under runs/
  stav2a dashboard table3                 # the address of the page that compares a study's runs
  stav2a dashboard table3 --port 5001
"""


def build_parser() -> argparse.ArgumentParser:
    parser = options.command(
        "dashboard",
        "Start MLflow's pages on this machine, and say where a study's runs are compared.",
        EXAMPLES,
    )
    parser.add_argument("study", nargs="?", metavar="STUDY", help="name of a study, such as table3")
    options.add_output(parser, "holds the tracking database")
    options.add_tracking_uri(parser)
    parser.add_argument("--port", type=int, default=5000, help="default: 5000")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from stav2a.experiments.tracking import open_store

    store = open_store(arguments.tracking_uri, arguments.output)
    base = f"http://{HOST}:{arguments.port}"
    if not store.is_server:
        check_free(arguments.port)
    if arguments.study:
        study = store.study(arguments.study)
        print(f"{arguments.study}: {store.compare_url(store.children(study.run_id), base)}", flush=True)
    if store.is_server:
        print(f"all runs: {store.address}", flush=True)
        return 0
    print(f"all runs: {base}  (Ctrl-C ends)", flush=True)
    command = ["ui", "--backend-store-uri", store.address.uri, "--host", HOST, "--port", str(arguments.port)]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return subprocess.run([sys.executable, "-m", "mlflow", *command], env=quiet, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
