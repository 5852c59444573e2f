"""The parts and the path of recipes/scale/paper.gin at tiny sizes, by two processes, one of them killed."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from stav2a.cli.main import main
from stav2a.components.autoencoders import MelVAE
from stav2a.components.feature_encoders import CAVP
from stav2a.components.unets import stable_diffusion
from stav2a.components.vocoders import HiFiGAN
from stav2a.data.media import read_audio
from stav2a.data.struck_objects import StruckObjects
from stav2a.experiments.run_folder import RunFolder
from stav2a.utils.checkpoints import save_weights
from tests.components.test_text_encoders import word_tokenizer

ROOT = Path(__file__).parents[2]
EPOCHS = {"t2a_finetune": 2, "onset": 2, "joint": 6}
JOINT_STEPS = 18
CAVP_SIZES: dict[str, Any] = {"width": 4, "blocks": (1, 1, 1, 1), "dim": 16}
VAE_SIZES: dict[str, Any] = {"block_out_channels": (8, 16, 16), "layers_per_block": 1}
UNET_SIZES: dict[str, Any] = {
    "block_out_channels": (16, 16), "attention_levels": (False, True), "attention_head_dim": (2, 2),
    "layers_per_block": 1, "norm_num_groups": 4,
}  # fmt: skip
SETTINGS = """
run.duration_s = 2.56
run.num_inference_steps = 3
feature_encoder.cavp.frame_size = 32
local_head.onset.dim_per_window = 8
local_head.onset.windows = (1, 2)
data_filter.av_align.threshold = 0.0
trainer.accelerate.mixed_precision = 'no'  # whose rounding would hide what is compared
trainer.accelerate.per_device_batch_size = 2
trainer.accelerate.validations = 2
metric.aa_align.resamples = 50
metric.av_align.resamples = 50
"""


def bindings(component: str, sizes: dict[str, Any]) -> str:
    return "".join(f"{component}.{name} = {value}\n" for name, value in sizes.items())


def recipes(scale: Path) -> list[str]:
    files = ("recipes/cn_onset_gvf.gin", "recipes/scale/paper.gin", str(scale))
    return [word for file in files for word in ("--gin", file)]


@pytest.fixture(scope="module")
def scale(tmp_path_factory) -> Path:
    """A scale over the paper's: sizes, folders of weights, and prepared clips."""
    from transformers import MT5Config, MT5EncoderModel

    folder = tmp_path_factory.mktemp("paper")
    torch.manual_seed(0)
    text = {"vocab_size": word_tokenizer(folder / "mt5"), "num_layers": 1, "num_heads": 2}
    MT5EncoderModel(MT5Config(d_model=16, d_kv=8, d_ff=32, **text)).save_pretrained(folder / "mt5")
    vae = MelVAE(**VAE_SIZES, patch=1, mel_mean=0.0, mel_std=1.0, mel_floor=-11.6)
    vocoder = HiFiGAN(upsample_initial_channel=32).generator
    for weight in vocoder.parameters():  # its own first weights give silence
        if weight.ndim > 1:
            torch.nn.init.xavier_normal_(weight)
    made = {
        "feature_encoder.cavp": CAVP(**CAVP_SIZES, frame_rate_hz=4.0, frame_size=32),
        "autoencoder.kl": vae,
        "vocoder.hifigan": vocoder,
        "unet.stable_diffusion": stable_diffusion(
            latent_channels=vae.latent_channels, cond_dim=16, **UNET_SIZES
        ),
    }
    text_folder, lines = folder / "mt5", SETTINGS + bindings("feature_encoder.cavp", CAVP_SIZES)
    lines += bindings("autoencoder.kl", VAE_SIZES) + bindings("unet.stable_diffusion", UNET_SIZES)
    lines += f"vocoder.hifigan.upsample_initial_channel = 32\ntext_encoder.mt5.checkpoint = '{text_folder}'\n"
    for name, module in made.items():
        (folder / name).mkdir()
        save_weights(folder / name / "model.safetensors", module.state_dict())
        lines += f"{name}.checkpoint = '{folder / name}'\n"
    for stage, epochs in EPOCHS.items():
        lines += f"stage.{stage}.epochs = {epochs}\nstage.{stage}.batch_size = 8\n"
    lines += f"dataset.prepared.folder = '{folder / 'clips'}'\n"
    (folder / "tiny.gin").write_text(lines)
    clips = StruckObjects(train_clips=24, validation_clips=4, test_clips=6).clips(folder / "world")
    given = ["--manifest", clips[0].video.parents[1] / "manifest.csv", "--videos", clips[0].video.parents[1]]
    command = [
        "prepare",
        *given,
        "--output",
        folder / "clips",
        "--workers",
        "1",
        *recipes(folder / "tiny.gin"),
    ]
    assert main([str(word) for word in command]) == 0
    return folder / "tiny.gin"


def start(processes: int, scale: Path, output: Path) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [*(launcher if processes > 1 else []), "-m", "tests.experiments.paper_run", str(output)]
    words += [*recipes(scale), "--output", str(output)]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps_taken(checkpoint: Path) -> int:
    """Steps of an unfinished stage; 0 before its first checkpoint."""
    if not checkpoint.is_file():
        return 0
    with safe_open(checkpoint, framework="pt") as saved:
        return json.loads(saved.metadata()["facts"])["progress"]["step"]


def kill_in_joint_stage(run: subprocess.Popen[str], output: Path) -> int:
    """Kill -9 the second process after some steps of the last stage, and return how many there were."""
    while run.poll() is None:
        found = next(output.glob("store/partial/stage-joint-*/joint.safetensors"), None)
        if found and 0 < (taken := steps_taken(found)) < JOINT_STEPS:
            victim = int((output / "pid-1").read_text())
            os.kill(victim, signal.SIGKILL)
            return taken
        time.sleep(0.02)
    raise AssertionError("it ended before it could be killed")


def folder_of(output: Path) -> RunFolder:
    (found,) = output.glob("cn_onset_gvf-*")
    return RunFolder(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_one_of_which_was_killed_make_the_run_of_one(scale, tmp_path):
    """Sums of a gradient in another order: weights agree within 1e-5, sounds within a step of 16 bits."""
    one, two = (tmp_path / name for name in ("one", "two"))
    for output in (one, two):
        output.mkdir()
    alone = start(1, scale, one)
    told = alone.communicate()
    assert alone.returncode == 0, told

    killed = start(2, scale, two)
    taken = kill_in_joint_stage(killed, two)
    killed.communicate()
    assert killed.returncode != 0 and not list(two.glob("cn_onset_gvf-*/model.safetensors"))
    (checkpoint,) = two.glob("store/partial/stage-joint-*/joint.safetensors")
    assert taken <= steps_taken(checkpoint) < JOINT_STEPS
    resumed = start(2, scale, two)
    table, log = resumed.communicate()
    assert resumed.returncode == 0, log
    assert log.count("from the store") == 2 and "3/3  joint: training" in log
    assert all((two / f"sampled-{rank}").read_text() for rank in (0, 1))  # both sampled

    ours, theirs = folder_of(one), folder_of(two)
    weights, same = load_file(ours.weights), load_file(theirs.weights)
    assert weights.keys() == same.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(same[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
    sounds = sorted(ours.sounds.glob("*.flac"))
    assert len(sounds) == 6
    for sound in sounds:
        made = [read_audio(folder / sound.name, 16_000) for folder in (ours.sounds, theirs.sounds)]
        assert abs(made[0]).max() > 0.01 and abs(made[0] - made[1]).max() < 2**-14
    with contextlib.closing(sqlite3.connect(two / "mlflow.db")) as database:
        assert ("cn_onset_gvf", "FINISHED") in database.execute("select name, status from runs").fetchall()
        assert len(database.execute("select name from runs where status = 'FINISHED'").fetchall()) == 1
    assert (
        table.count("AA-Align ↑") == 1
        and told[0].partition("\nreport ")[0] == table.partition("\nreport ")[0]
    )
