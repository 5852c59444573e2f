"""What every test may use."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stav2a import registry
from tests.hub import Hub, serve

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs of this machine, so that tests give what they give without one; not of `-m gpu`."""
    if config.option.markexpr != "gpu" and not getattr(config.option, "benchmark_only", False):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the processes that tests start, too
    _compile_once(config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and `make test-gpu`: other sessions hide them")


def _compile_once(config: pytest.Config) -> None:
    """Compile what numba keeps before several workers ask for it at once: on a new machine one crashed."""
    several = getattr(config.option, "numprocesses", None)
    if several and not hasattr(config, "workerinput"):
        from stav2a.data.onsets import Librosa
        from stav2a.data.optical_flow import SparseFarneback

        rng = np.random.default_rng(0)
        Librosa()(rng.normal(size=16_000).astype(np.float32), 16_000)
        SparseFarneback()(rng.integers(0, 255, (3, 64, 64), dtype=np.uint8))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """A shell's background job ignores Ctrl-C, and so would the processes that tests start."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def recipes() -> Path:
    """The folder of the recipes in this clone."""
    return ROOT / "recipes"


@pytest.fixture
def scratch_registry():
    """Components that a test registers are gone when it ends."""
    registry.load()  # first, so that ours stay
    before = dict(registry._ENTRIES), dict(registry._BY_FACTORY)
    yield registry
    for table, kept in zip((registry._ENTRIES, registry._BY_FACTORY), before, strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    """A server in the hub's protocol, which huggingface_hub takes for the hub, with a cache of its own."""
    from huggingface_hub import constants

    with serve() as served:
        template = f"{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(
            constants, "HF_HUB_DISABLE_XET", True
        )  # large files by git's LFS, as without hf_xet
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser without a window, or the test is left out."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # chromium refuses root its sandbox
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()
