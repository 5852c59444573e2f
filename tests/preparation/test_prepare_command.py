"""`stav2a prepare`: from a manifest to a folder that training reads."""

import csv
import json
import os
import shlex
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.components.autoencoders import MelVAE
from stav2a.components.feature_encoders import CAVP
from stav2a.data.filters import filter_key
from stav2a.data.media import decode, video
from stav2a.data.media.audio import read_audio
from stav2a.data.mel import log_mel, normalised
from stav2a.data.onsets import SuperFlux, onset_frames
from stav2a.data.prepared import PreparedFolder
from stav2a.data.prepared.shards import ClipRecord, PreparedFolderError, read_shard
from stav2a.experiments.experiment import Experiment
from stav2a.preparation import clip_stages, preparing
from stav2a.utils.checkpoints import save_weights, state

SIZES = {"width": 8, "blocks": (1, 1, 1, 1), "dim": 64, "frame_rate_hz": 12.5, "frame_size": 32}
VAE = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "patch": 4,
    "mel_mean": -5.0, "mel_std": 1.0, "mel_floor": -5.5,
}  # fmt: skip


def clips_csv(folder) -> list[dict[str, str]]:
    with open(folder / "clips.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_everything_is_there_and_nothing_is_left_over(prepared):
    names = {path.name for path in prepared.iterdir()}
    assert names == {
        ".lock", "clips.csv", "index.parquet", "plan.parquet", "prepared.json", "report.html", "report.json",
        "shards",
    }  # fmt: skip
    assert len(list((prepared / "shards").iterdir())) == 3


def test_what_was_decided_is_told_for_every_clip(prepared):
    rows = clips_csv(prepared)
    told = json.loads((prepared / "report.json").read_text())
    dropped = [row for row in rows if row["status"] == "dropped"]
    assert len(rows) == 10 and dropped
    assert {row["rule"] for row in dropped} == {"av_align"}
    assert all(row["reason"].startswith("rejected") for row in dropped)
    assert told["clips"] == {"kept": 10 - len(dropped), "dropped": len(dropped), "failed": 0}
    assert told["dropped_by"] == {"av_align": len(dropped)}
    assert 0 < sum(told["histograms"]["av_align"]) <= 10
    page = (prepared / "report.html").read_text()
    assert page.count("<video") >= 4 and page.count('class="strip"') == page.count("<video")
    assert "Scores of the rule av_align: a histogram" in page and "data:image/png" in page


def test_tensors_are_those_of_the_files(prepared):
    cache = PreparedFolder(prepared)
    clip = cache.clips[3]
    frames = video.read_video(clip.video, frame_rate_hz=3.125, size=64).transpose(0, 3, 1, 2)
    audio = read_audio(clip.video, 16_000)
    np.testing.assert_array_equal(cache.tensor("frames")[3], frames)
    torch.testing.assert_close(cache.tensor("mel")[3], log_mel(torch.from_numpy(audio)[None])[0])
    onsets = SuperFlux()(audio, 16_000)
    np.testing.assert_allclose(cache.table["onsets_s"][3].as_py(), onsets, atol=1e-6)
    np.testing.assert_array_equal(cache.tensor("onsets")[3], onset_frames(onsets, 32, 12.5))


def test_a_peak_of_the_recipe_is_that_of_the_mel_and_of_the_folder(prepared, prepare, tmp_path, capsys):
    assert prepare(tmp_path / "out", "--bind", "run.audio_peak = 0.5") == 0
    cache, plain = PreparedFolder(tmp_path / "out"), PreparedFolder(prepared)
    audio = normalised(read_audio(cache.clips[3].video, 16_000), 0.5)
    torch.testing.assert_close(cache.tensor("mel")[3], log_mel(torch.from_numpy(audio)[None])[0])
    assert torch.equal(cache.tensor("onsets")[:], plain.tensor("onsets")[:])
    assert cache.settings["settings"]["audio_peak"] == 0.5
    assert "audio_peak" not in plain.settings["settings"], "as in folders of earlier versions"
    assert prepare(tmp_path / "out") == 2
    assert "holds clips prepared with another settings" in capsys.readouterr().err


def test_a_recipe_without_filters_keeps_every_clip(prepare, tmp_path):
    """As Pretrained-T2A at the paper's scale, which trains nothing."""
    options = ("--bind", "run.stages = []", "--bind", "run.classifier = None")
    assert prepare(tmp_path / "out", *options) == 0
    assert len(PreparedFolder(tmp_path / "out").clips) == 10


def test_decisions_are_found_by_the_recipes_filters(prepared):
    loaded = recipe.load("recipes/cn_onset_gvf.gin", root=Experiment)
    stages = [factory() for factory in loaded.build().stages]
    data_filter = stages[-1].data_filter
    decisions = PreparedFolder(prepared).decisions(filter_key(data_filter), data_filter)
    assert {decision.keep for decision in decisions} == {True, False}


def test_the_same_command_again_changes_nothing(prepared, prepare, files_of, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    assert prepare(folder) == 0
    assert files_of(folder) == files_of(prepared)


def test_other_settings_are_refused(prepared, prepare, capsys):
    assert prepare(prepared, "--bind", "data_filter.av_align.threshold = 0.3") == 2
    assert "holds clips prepared with another filters. Choose another --output" in capsys.readouterr().err


def test_an_interrupted_command_goes_on(prepared, prepare, files_of, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    (folder / "index.parquet").unlink()
    (folder / "shards" / "00001.safetensors").unlink()
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "00001.safetensors.new").write_bytes(b"half")
    assert prepare(folder) == 0
    assert files_of(folder) == files_of(prepared)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(shards: Path) -> None:
    for number, other in ((0, "aside"), (1, 0), ("aside", 1)):
        name, to = (f"{each:05d}.safetensors" if each != "aside" else each for each in (number, other))
        (shards / name).rename(shards / to)


def rename(path: Path) -> None:
    content = path.read_bytes()
    assert b"train_00005" in content
    path.write_bytes(content.replace(b"train_00005", b"train_00009"))


def unfinish(folder: Path, damage: Callable[[Path], object]) -> None:
    """Take the second shard apart into its finished clips, and damage the second of them."""
    shard, parts = folder / "shards/00001.safetensors", folder / "unfinished/00001"
    parts.mkdir(parents=True)
    for row in read_shard(shard):
        (parts / f"{row.position:08d}.safetensors").write_bytes(row.pack())
    shard.unlink()
    damage(parts / "00000005.safetensors")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a shard in the middle is missing": lambda folder: (folder / "shards/00001.safetensors").unlink(),
    "the last shard is missing": lambda folder: (folder / "shards/00002.safetensors").unlink(),
    "all shards are missing": lambda folder: shutil.rmtree(folder / "shards"),
    "a bit of a tensor is flipped": lambda folder: flip(folder / "shards/00001.safetensors"),
    "two shards are swapped": lambda folder: swap(folder / "shards"),
    "a shard is cut off": lambda folder: os.truncate(folder / "shards/00000.safetensors", 1000),
    "the plan is missing": lambda folder: (folder / "plan.parquet").unlink(),
    "a bit of the plan is flipped": lambda folder: flip(folder / "plan.parquet"),
    "a name in a shard's facts is changed": lambda folder: rename(folder / "shards/00001.safetensors"),
    "a finished clip of an unfinished shard is changed": lambda folder: unfinish(folder, rename),
    "a finished clip of an unfinished shard is empty": lambda folder: unfinish(
        folder, lambda p: os.truncate(p, 0)
    ),
    "the index is cut off": lambda folder: os.truncate(folder / "index.parquet", 100),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_same_command_mends_a_damaged_folder(damage, prepared, prepare, files_of, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    damage(folder)
    assert prepare(folder) == 0
    assert files_of(folder) == files_of(prepared)


@pytest.mark.parametrize("content", [b"\xff", b'{"format": 3', b"[1]"])
def test_damaged_settings_are_told_by_the_command_and_by_the_reader(
    content, prepared, prepare, tmp_path, capsys
):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    (folder / "prepared.json").write_bytes(content)
    assert prepare(folder) == 2
    assert f"{folder}/prepared.json: damaged (" in capsys.readouterr().err
    with pytest.raises(PreparedFolderError, match=r"prepared.json: damaged \("):
        PreparedFolder(folder)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights for the small encoders, and the bindings that name them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, block in (("cavp", CAVP(**SIZES)), ("vae", MelVAE(**VAE))):
        (folder / name).mkdir()
        save_weights(folder / name / "model.safetensors", state(block))
    bindings = {"feature_encoder.cavp": folder / "cavp", "autoencoder.kl": folder / "vae"}
    return [word for name, path in bindings.items() for word in ("--bind", f"{name}.checkpoint = '{path}'")]


@pytest.fixture(scope="session")
def encoded(prepare, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded") / "whole"
    assert prepare(folder, *weights, "--bind", "run.classifier = None") == 0
    return folder


def test_encoders_with_weights_leave_features_and_latents(encoded, prepared):
    cache = PreparedFolder(encoded)
    assert set(cache.kinds) == {"e_v", "latent_mean", "latent_std", "onsets"}
    e_v = cache.tensor("e_v")[:]
    assert e_v.shape == (10, 8, 64) and e_v.dtype == torch.float32
    torch.testing.assert_close(e_v.norm(dim=-1), torch.ones(10, 8), atol=1e-3, rtol=0)
    assert cache.tensor("latent_mean").shape == (10, 8, 32, 8)
    assert "feature_encoder.cavp: has its weights, e_v is kept" in cache.settings["kept"]


def test_features_are_those_of_the_encoder_to_half_precision(encoded, prepared, weights):
    loaded = recipe.load(
        "recipes/cn_onset_gvf.gin", [word for word in weights if word != "--bind"], root=Experiment
    )
    encoder = loaded.build().feature_encoder().eval()
    frames = PreparedFolder(prepared).tensor("frames")[[2]].float() / 255
    with torch.no_grad():
        torch.testing.assert_close(
            PreparedFolder(encoded).tensor("e_v")[[2]], encoder(frames), atol=2e-4, rtol=1e-3
        )


def test_an_encoder_can_be_left_out(prepare, tmp_path):
    options = [word for slot in ("feature_encoder", "autoencoder") for word in ("--without", slot)]
    assert prepare(tmp_path / "out", *options, "--bind", "run.classifier = None") == 0
    assert set(PreparedFolder(tmp_path / "out").kinds) == {"onsets"}


def test_weights_that_are_not_there_are_named_with_the_way_round(prepare, tmp_path, capsys):
    assert prepare(tmp_path / "out", "--bind", "autoencoder.kl.checkpoint = 'nowhere'") == 1
    told = capsys.readouterr().err
    assert "autoencoder.kl.checkpoint = 'nowhere'" in told and "--without autoencoder" in told
    assert not (tmp_path / "out").exists()


def test_broken_clips_are_quarantined_and_can_be_tried_again(prepared, prepare, world, files_of, tmp_path):
    folder, videos = tmp_path / "out", shutil.copytree(world, tmp_path / "videos")
    victim = videos / "train" / "train_00003.mp4"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    given = ["--videos", str(videos)]
    assert prepare(folder, *given) == 0
    (row,) = [row for row in clips_csv(folder) if row["status"] == "failed"]
    assert row["id"] == "train_00003" and row["reason"].startswith("train/train_00003.mp4: ")
    assert len(PreparedFolder(folder)) == 9
    victim.write_bytes(whole)
    shutil.copystat(world / "train" / "train_00003.mp4", victim)
    assert prepare(folder, *given) == 0 and len(PreparedFolder(folder)) == 9
    assert prepare(folder, *given, "--retry-failed") == 0
    ours, theirs = files_of(folder), files_of(prepared)
    for told in (ours, theirs):  # they name the folder of videos
        told.pop("prepared.json"), told.pop("report.html")
    assert ours == theirs


def test_a_clip_whose_video_changed_is_prepared_again(prepare, world, tmp_path, capsys, monkeypatch):
    folder, videos = tmp_path / "out", shutil.copytree(world, tmp_path / "videos")
    given = ["--videos", str(videos)]
    assert prepare(folder, *given) == 0
    before = PreparedFolder(folder).table["hashes"].to_pylist()
    changed, touched, gone = (videos / "train" / f"train_0000{n}.mp4" for n in (1, 2, 4))
    changed.write_bytes((videos / "train" / "train_00000.mp4").read_bytes())
    touched.touch()
    gone.unlink()
    capsys.readouterr()
    assert prepare(folder, *given) == 0
    assert "preparing 1 clips again, whose videos changed" in capsys.readouterr().err
    after = PreparedFolder(folder).table["hashes"].to_pylist()
    assert [row for row in range(10) if before[row] != after[row]] == [1] and after[1] == after[0]
    monkeypatch.setattr(preparing, "run_local", None)
    assert prepare(folder, *given) == 0  # and nothing is left to prepare
    assert "again" not in capsys.readouterr().err


def test_a_finished_clip_of_an_unfinished_folder_is_prepared_again_too(
    prepared, prepare, world, files_of, tmp_path
):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    (folder / "index.parquet").unlink()
    shard = folder / "shards" / "00001.safetensors"
    (folder / "unfinished" / "00001").mkdir(parents=True)
    rows = list(read_shard(shard))
    shard.unlink()
    old = ClipRecord({**rows[0].facts, "video": {"size": 1, "mtime_ns": 0, "sha256": ""}}, rows[2].tensors)
    (folder / "unfinished" / "00001" / f"{old.position:08d}.safetensors").write_bytes(old.pack())
    assert prepare(folder) == 0
    assert files_of(folder) == files_of(prepared)


def test_a_video_that_changes_while_it_is_decoded_is_in_quarantine(
    prepare, world, tmp_path, monkeypatch, capsys
):
    def slow(path, **options):
        decoded = decode(path, **options)
        if path.name == "train_00003.mp4":
            path.touch()
        return decoded

    videos = shutil.copytree(world, tmp_path / "videos")
    monkeypatch.setattr(clip_stages, "decode", slow)
    assert prepare(tmp_path / "out", "--videos", str(videos)) == 0
    (row,) = [row for row in clips_csv(tmp_path / "out") if row["status"] == "failed"]
    assert "train_00003.mp4 changed while it was read. Give the command again" in row["reason"]


def test_a_folder_without_one_whole_clip_says_why(prepare, tmp_path, capsys):
    manifest = tmp_path / "m.csv"
    manifest.write_text("id,caption\na,x\nb,y")
    assert prepare(tmp_path / "out", manifest=manifest) == 0
    said = capsys.readouterr().out
    assert "2 clips: 0 kept, 0 dropped, 2 failed" in said
    assert "failed: a: no such file: a.mp4 (or .mov, " in said
    assert len(PreparedFolder(tmp_path / "out")) == 0


def test_what_was_done_to_a_clip_is_counted_by_kind(prepare, tmp_path):
    folder = tmp_path / "out"
    assert prepare(folder, "--bind", "run.duration_s = 1.28") == 0
    assert json.loads((folder / "report.json").read_text())["notes"] == {"cut to duration": 10}
    assert clips_csv(folder)[0]["notes"] == "picture and sound cut from 2.56 s to 1.28 s"
    (note,) = PreparedFolder(folder).table["notes"][0].as_py()
    assert note == {"kind": "cut to duration", "values": [2.56, 1.28]}


def test_lines_that_can_be_no_clip_do_not_stop_the_others(prepare, world, tmp_path):
    (world.parent / "secret.mp4").touch()
    lines = ["id,caption,file", "a,x,train/train_00000.mp4", "a,y,train/train_00001.mp4", "b,z,none.mp4"]
    lines += [
        "c,z,../secret.mp4",
        "g,z,../nowhere.mp4",
        "d,z,/etc/hosts",
        "e,z",
        '"f\ng",z,train/train_00002.mp4',
    ]
    lines += ["h,bad\x00text,train/train_00003.mp4"]
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines))
    assert prepare(tmp_path / "out", manifest=manifest) == 0
    rows = {row["id"] + row["status"][0]: row["reason"] for row in clips_csv(tmp_path / "out")}
    assert rows["af"] == "the id 'a' occurs before. Give it another."
    assert rows["bf"] == "no such file: none.mp4. Put it into the folder of videos."
    assert rows["cf"] == "../secret.mp4: leads out of the folder of videos. Copy the file into it."
    assert rows["gf"] == "../nowhere.mp4: leads out of the folder of videos. Copy the file into it."
    assert rows["df"] == "/etc/hosts: leads out of the folder of videos. Copy the file into it."
    assert rows["hf"] == r"its caption holds the control character '\x00'."
    assert rows["ef"] == "2 fields where the header has 3."
    assert [clip.id for clip in PreparedFolder(tmp_path / "out").clips] == ["a", "f\ng"]


def test_a_folder_of_videos_with_captions_and_a_held_out_part(prepare, world, tmp_path, caplog):
    captions = tmp_path / "captions.csv"
    captions.write_text("id,caption\ntest/test_00001,a drum\nnobody,a horn\n")
    options = ["--captions", str(captions), "--validation", "0.5"]
    assert prepare(tmp_path / "out", *options, manifest=world) == 0
    clips = PreparedFolder(tmp_path / "out").clips
    assert {clip.split for clip in clips} == {"train", "validation"}
    assert {clip.id: clip.caption for clip in clips if clip.caption} == {"test/test_00001": "a drum"}
    assert caplog.messages == [f"note: {captions}: 1 of 2 ids are no clip of {world}, such as 'nobody'."]


def test_a_part_of_the_clips_is_for_measuring(prepare, world, tmp_path, capsys):
    options = ["--validation", "0.3", "--test", "0.3"]
    assert prepare(tmp_path / "out", *options, manifest=world) == 0
    clips = PreparedFolder(tmp_path / "out").clips
    assert {clip.split for clip in clips} == {"train", "validation", "test"}
    assert prepare(tmp_path / "none", "--validation", "0.5", "--test", "0.5") == 2
    assert "leave no clip to train on" in capsys.readouterr().err


def test_the_command_that_trains_is_printed_whole(prepare, tmp_path, capsys):
    bound = ["--bind", "data_filter.av_align.threshold = 0.0"]
    assert prepare(tmp_path / "my data", *bound) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("train ")]
    words = shlex.split(line)
    assert words[words.index("run") :] == [
        "run", "--gin", "recipes/cn_onset_gvf.gin", *bound, "--bind", "run.dataset = @dataset.prepared",
        "--bind", f"dataset.prepared.folder = '{tmp_path / 'my data'}'",
    ]  # fmt: skip
    assert main([*words[words.index("run") :], "--check"]) == 0


def test_kept_clips_are_exported(prepared, prepare, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    assert prepare(folder, "--export", "webdataset", str(tmp_path / "tars")) == 0
    told = json.loads((prepared / "report.json").read_text())["clips"]
    names = []
    for path in sorted((tmp_path / "tars").iterdir()):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert names[:4] == [f"00000000.{end}" for end in ("json", "frames.npy", "mel.npy", "onsets.npy")]
    assert len(names) == 4 * told["kept"]


def test_the_rule_of_several_that_drops_a_clip_is_told(prepare, tmp_path):
    several = "[@data_filter.static, @data_filter.av_align]"
    options = [f"data_filter.all_of.filters = {several}"]
    options += [
        f"stage.{each}.data_filter = @data_filter.all_of"
        for each in ("contrastive", "t2a_finetune", "onset", "joint")
    ]
    assert prepare(tmp_path / "out", *(word for each in options for word in ("--bind", each))) == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(told["dropped_by"]) <= {"static", "av_align"}
    rows = clips_csv(tmp_path / "out")
    assert all(row["scores"].startswith(("static ", "av_align ")) for row in rows)
    assert sum(told["histograms"]["av_align"]) < 10 or "static" not in told["dropped_by"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--videos", "nowhere"], "--videos nowhere: there is no such folder"),
        (["--run", "x", "--bind", "run.seed = 1"], "--run brings its own recipe"),
        (["--export", "zip", "x"], "--export zip: expected webdataset"),
    ],
)
def test_what_the_command_refuses(prepare, tmp_path, capsys, options, message):
    assert prepare(tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err


def test_a_folder_with_other_things_is_left_alone(prepare, tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert prepare(tmp_path) == 2
    assert "holds other things. Choose a new or empty --output" in capsys.readouterr().err
