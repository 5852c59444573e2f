"""Processes, Ray and kill -9: whatever happens, the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stav2a.data.prepared.shards import ClipRecord
from stav2a.preparation import clip_stages
from stav2a.preparation.clip_stages import ClipSettings, ClipWork, Decode, Encode
from stav2a.preparation.executors import run_local

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_processes_change_nothing(prepare, prepared, files_of, tmp_path):
    assert prepare(tmp_path / "out", workers=2) == 0
    assert files_of(tmp_path / "out") == files_of(prepared)


@pytest.mark.slow
def test_ray_gives_the_same_files(prepare, prepared, files_of, tmp_path):
    assert prepare(tmp_path / "out", "--engine", "ray", workers=2) == 0
    assert files_of(tmp_path / "out") == files_of(prepared)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(world, prepared, files_of, tmp_path):
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "stav2a", "prepare", "--manifest", str(world / "manifest.csv")]
    command += ["--videos", str(world), "--output", str(folder), "--shard-clips", "4", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for finished in ("unfinished/00000/*.safetensors", "shards/*.safetensors"):  # a clip; a shard
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob(finished)):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (folder / "index.parquet").exists()
    subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
    assert files_of(folder) == files_of(prepared)


class Encoder(torch.nn.Module):
    """Has no room, as on a GPU of many processes; or one number a frame."""

    def __init__(self, room: bool) -> None:
        super().__init__()
        self.room, self.place = room, torch.nn.Parameter(torch.ones(1))

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        if not self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")
        return video.mean(dim=(3, 4)) * self.place


FACTS = ("position", "line", "id", "file", "caption", "caption_row", "split", "label")


@pytest.mark.parametrize("room", [True, False])
def test_a_clip_for_which_a_gpu_has_no_room_fails_alone(room):
    frames = np.full((3, 3, 4, 4), 255, np.uint8)
    record = ClipRecord(dict.fromkeys(FACTS, ""), {"frames": frames})
    made = Encode(("e_v",), {"feature_encoder": Encoder(room)})(record)
    if room:
        np.testing.assert_array_equal(made.tensors["e_v"], np.ones((3, 3), np.float16))
    else:
        assert made.facts["status"] == "failed" and made.facts["reason"] == (
            "cpu has no room for it: CUDA out of memory. Tried to allocate 2 GiB. Give fewer --workers."
        )


def test_worker_processes_encode_on_gpus_in_turn(monkeypatch):
    asked: list[str] = []

    def device_named(name: str) -> torch.device:
        asked.append(name)
        return torch.device("meta")

    monkeypatch.setattr(clip_stages, "device_named", device_named)
    encoder = Encoder(room=True)
    record = ClipRecord(dict.fromkeys(FACTS, ""), {"frames": np.zeros((3, 3, 4, 4), np.uint8)})
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):  # the features, at the end
        Encode(("e_v",), {"feature_encoder": encoder})(record)
    assert asked == ["auto"] and encoder.place.is_meta


class Fragile(Decode):
    """Dies with its process at clip 3, as a fault in a decoder would."""

    def __call__(self, position: int) -> ClipRecord:
        if position == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(position)


@pytest.mark.slow
def test_a_clip_that_kills_its_process_is_quarantined(prepared, world):
    from stav2a.data.filters import KeepAll
    from stav2a.data.front_ends import AudioLDMMel
    from stav2a.data.onsets import SuperFlux
    from stav2a.preparation.plan import PreparationPlan

    settings = ClipSettings(12.5, 32, 2.56, 32, keep=("mel",))
    plan = PreparationPlan(prepared / "plan.parquet")
    decode = Fragile(plan, world, settings, SuperFlux(), {"none": KeepAll()}, AudioLDMMel())
    work = ClipWork(decode, Encode(("mel",), {}))
    rows = {row.position: row for row in run_local(work, range(10), 2)}
    assert sorted(rows) == list(range(10))
    failed = {position: row.facts["reason"] for position, row in rows.items() if not row.tensors}
    assert list(failed) == [3] and failed[3].startswith("the process that read it died")
