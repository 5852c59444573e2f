"""The first hours on a GPU as one command: what to run in which order, each in a process of its own.

    python -m tests.benchmarks.gpu_programme --results gpu-results

A step that has ended well is not run again, and a ladder goes on where it was killed. docs/gpu.md has the
steps with what is predicted.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stav2a.utils.files import write_json, write_text

LAYOUT_AND_ATTENTION = (
    "fast, bfloat16, graph|fast, bfloat16, cuDNN attention, graph|fast, bfloat16, channels_last, graph|"
    "fast, bfloat16, compiled graph|fast, bfloat16, channels_last, compiled graph"
)
TAIL = 2000  # characters of a step's output that are kept


def programme(
    scale: str,
    small: str,
    batches: Sequence[int],
    steps: int,
    rounds: int,
    *,
    minutes: float,
    rungs: str,
    alone: str,
) -> dict[str, list[str]]:
    """Arguments of Python for each step, by its name, in their order."""
    ladder = ["-m", "tests.benchmarks.ladder", "--minutes", f"{minutes:g}"]
    named = ["--rungs", rungs] if rungs else []
    apart = ["--batch", str(batches[len(batches) // 2]), "--rungs", alone, "--name", "alone"]
    joint = ["-m", "tests.benchmarks.joint_steps"]
    sizes = ["--steps", str(steps), "--rounds", str(rounds)]
    one_process = ["-m", "torch.distributed.run", "--nproc-per-node", "1"]
    smoke = ["--scale", small, "--batch", "1", "--steps", "3", "--rounds", "1", *named, "--name", "smoke"]
    one_loss = ["--scale", small, "--batch", "16", "--steps", "1", "--name", "one-loss"]
    trained = ["--scale", scale, "--batch", "10", "--steps", str(steps), "--mixed-precision", "bf16"]
    return {
        "smoke": [*ladder, *smoke],
        "one-loss": [*one_process, *joint, *one_loss],
        "joint-steps": [*joint, *trained, "--name", "joint-steps"],
        **{
            f"ladder-{batch}": [
                *ladder, "--scale", scale, "--batch", str(batch), *sizes, *named, "--name", f"ladder-{batch}"
            ]
            for batch in batches
        },
        "alone": [*ladder, "--scale", scale, *sizes, *apart],
    }  # fmt: skip


def run(steps: Mapping[str, Sequence[str]], folder: Path) -> dict[str, Any]:
    """Run the steps that have not ended well yet, and write `programme.json` after each."""
    file = folder / "programme.json"
    done: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name, arguments in steps.items():
        command = [sys.executable, *arguments, "--results", str(folder)]
        told = shlex.join(["python", *command[1:]])
        if done.get(name, {}).get("exit_status") == 0 and done[name]["command"] == told:
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}: {told}", flush=True)
        began = time.monotonic()
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seconds = time.monotonic() - began
        print(ended.stdout[-TAIL:], flush=True)
        done[name] = {
            "command": told, "exit_status": ended.returncode, "seconds": seconds,
            "output": ended.stdout[-TAIL:],
        }  # fmt: skip
        write_json(file, done)
        write_text(folder / "programme.md", page(steps, done, folder))
    return done


def page(steps: Mapping[str, Any], done: Mapping[str, Any], folder: Path) -> str:
    """The steps that ran, and the tables of the ladders, as Markdown."""
    from tests.benchmarks.report import loop_table

    lines = ["# What ran", "", "| step | seconds | exit status | command |", "| --- | --- | --- | --- |"]
    names = [name for name in steps if name in done]
    for name in names:
        step = done[name]
        told = step["command"].replace("|", "\\|")
        lines.append(f"| {name} | {step['seconds']:.0f} | {step['exit_status']} | `{told}` |")
    for name in names:
        file = folder / f"{name}.json"
        record = json.loads(file.read_text()) if file.exists() else {}
        if "arms" in record:
            lines += ["", loop_table(name, record)]
        elif "losses" in record:
            ms = 1000 * sorted(record["step_s"])[len(record["step_s"]) // 2]
            lines += [
                "", f"### {name}", "",
                f"{record['objective']}, {record['scale']}, batch {record['batch']}: "
                f"losses {record['losses'][0]:.3f} to {record['losses'][-1]:.3f}, {ms:.1f} ms a step, "
                f"{record['peak_memory_gb']:.1f} GB.",
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of all records")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--small", default="laptop", help="scale of the first two steps")
    parser.add_argument("--batches", default="1 8 32", help="of the ladders")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps, and training steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=9, help="of a ladder's command; run again to go on")
    parser.add_argument("--rungs", default="", help="of the ladders, separated by |")
    parser.add_argument("--alone", default=LAYOUT_AND_ATTENTION, help="rungs of the last step")
    parser.add_argument("--only", default="", help="names of steps; by default all")
    asked = parser.parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    batches = [int(each) for each in asked.batches.split()]
    steps = programme(
        asked.scale,
        asked.small,
        batches,
        asked.steps,
        asked.rounds,
        minutes=asked.minutes,
        rungs=asked.rungs,
        alone=asked.alone,
    )
    wanted = asked.only.split() or list(steps)
    done = run({name: steps[name] for name in wanted}, asked.results)
    print(asked.results / "programme.md")
    return max(abs(done[name]["exit_status"]) for name in wanted)


if __name__ == "__main__":
    sys.exit(main())
