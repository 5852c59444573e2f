"""`stav2a fetch` against a server in the hub's protocol, with small random weights of published layouts."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from stav2a import registry
from stav2a.cli.main import main
from stav2a.components.feature_encoders import CAVP
from stav2a.data.media import read_audio
from stav2a.data.mel import SAMPLE_RATE
from stav2a.metrics.judges.clap import Clap
from stav2a.models.conversion import converters
from stav2a.models.conversion.catalogue import CATALOGUE, UNKNOWN
from stav2a.models.conversion.layouts import UNETS, find_unet
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.utils.shipped import shipped_root
from tests.cli.test_generate_command import write_video
from tests.components import golden
from tests.hub import Hub
from tests.models.conversion import published_layouts as layouts

WITHOUT_WEIGHTS = {"clap-630k-best"}  # its file is made by a conversion of transformers


def saved(state: dict[str, torch.Tensor]) -> bytes:
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    return tmp_path


@pytest.fixture
def cavp(hub: Hub, monkeypatch) -> bytes:
    """Small weights of CAVP on the server, which the catalogue expects."""
    content = saved(layouts.cavp())
    hub.repositories["SimianLuo/Diff-Foley"] = {"diff_foley_ckpt/cavp_epoch66.ckpt": content}
    monkeypatch.setattr(converters, "CAVP", layouts.CAVP)
    expect(monkeypatch, "cavp", hashlib.sha256(content).hexdigest())
    return content


def expect(monkeypatch, name: str, sha256: str) -> None:
    """Let the catalogue expect a hash of the first file of some weights."""
    weights = CATALOGUE[name]
    first = dataclasses.replace(weights.files[0], sha256=sha256)
    files = (first, *weights.files[1:])
    monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(weights, files=files))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_list_has_all_with_licence_size_source_and_purpose(capsys):
    assert main(["fetch"]) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if not line.startswith(" ")] == list(CATALOGUE)
    assert (
        "cavp\n  for      feature_encoder.cavp at the paper's scale\n  licence  Apache-2.0 (Diff-Foley)\n"
        "  size     1.36 GB\n  source   https://huggingface.co/SimianLuo/Diff-Foley\n"
    ) in printed


def test_the_licence_comes_before_the_download(hub, cavp, here, capsys):
    assert main(["fetch", "cavp"]) == 2
    assert capsys.readouterr().out == (
        "licence   cavp (1.36 GB): Apache-2.0 (Diff-Foley). Read https://huggingface.co/SimianLuo/Diff-Foley\n"
        "Nothing was downloaded. Once you have read it and agree: add --accept-licence.\n"
    )
    assert hub.requests == [] and left(here / "checkpoints") == []


def test_an_unknown_name_is_refused(capsys):
    assert main(["fetch", "tanga"]) == 2
    assert "no published weights named 'tanga'. Did you mean tango? Known: " in capsys.readouterr().err


def test_weights_are_converted_where_recipes_look_for_them(cavp, here, capsys):
    assert main(["fetch", "cavp", "--accept-licence"]) == 0
    printed = capsys.readouterr().out
    assert f"sha256 {hashlib.sha256(cavp).hexdigest()}, as expected" in printed
    assert left(here / "checkpoints") == ["cavp", "cavp.fetched.json"]
    loaded = CAVP(**layouts.CAVP, checkpoint="checkpoints/cavp")
    assert torch.equal(loaded.video_project_head.weight, layouts.cavp()["video_project_head.weight"])
    assert main(["fetch", "cavp"]) == 0
    assert capsys.readouterr().out == "cavp is there already: checkpoints/cavp\n"


def test_an_interrupted_fetch_goes_on(hub, cavp, here, monkeypatch, capsys):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what a broken connection may lose
    hub.breaks = [4000, None]
    command = ["fetch", "cavp", "--accept-licence", "--output", "elsewhere"]
    assert main(command) == 1
    assert "What has come is kept: the same command goes on with it." in capsys.readouterr().err
    assert left(here / "elsewhere") == [".fetch-cavp"]
    hub.requests.clear()
    assert main(command) == 0
    assert hub.ranges() == ["bytes=4000-"] and left(here / "elsewhere") == ["cavp", "cavp.fetched.json"]


def test_a_wrong_hash_is_refused_and_nothing_is_left(cavp, here, monkeypatch, capsys):
    expect(monkeypatch, "cavp", "ab" * 32)
    assert main(["fetch", "cavp", "--accept-licence"]) == 1
    assert "is not the file that was expected" in capsys.readouterr().err
    assert left(here / "checkpoints") == []


def test_a_file_of_another_layout_is_refused_and_nothing_is_left(hub, here, monkeypatch, capsys):
    hub.repositories["haoheliu/AudioLDM-S-Full"] = {"audioldm-s-full": saved(layouts.cavp())}
    assert main(["fetch", "audioldm", "--accept-licence"]) == 1
    assert "is no checkpoint of audioldm: its keys begin with" in capsys.readouterr().err
    assert left(here / "checkpoints") == []


def test_an_agreement_that_is_missing_is_one_line(hub, here, capsys):
    hub.refused["laion/clap-htsat-unfused"] = 401
    assert main(["fetch", "clap", "--accept-licence"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: the hub does not give laion/clap-htsat-unfused/pytorch_model.bin (401)")
    assert told.count("\n") == 1


@pytest.fixture
def clap(hub: Hub, monkeypatch) -> dict[str, bytes]:
    files = {file.name.split("/")[1]: file.name.encode() for file in CATALOGUE["clap"].files}
    hub.repositories["laion/clap-htsat-unfused"] = files
    expect(monkeypatch, "clap", "")
    return files


def test_a_judge_finds_its_weights(clap, here, monkeypatch, capsys):
    assert main(["fetch", "clap", "--accept-licence"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"Judges find them by: export STAV2A_WEIGHTS={here / 'weights'}\n")
    assert "pytorch_model.bin  sha256" in printed and "as the hub announced; expected from now on" in printed
    assert "config.json  sha256" in printed and "not known before; expected from now on" in printed
    monkeypatch.setenv("STAV2A_WEIGHTS", str(here / "weights"))
    assert Clap().missing is None and left(here / "weights" / "clap-htsat-unfused") == sorted(clap)
    monkeypatch.setenv("STAV2A_WEIGHTS", str(here / "others"))
    assert Clap().missing and main(["fetch", "clap", "--accept-licence"]) == 0 and Clap().missing is None


def test_what_the_first_download_found_is_expected_of_the_next(clap, here, capsys):
    assert main(["fetch", "clap", "--accept-licence"]) == 0
    folder = here / "weights" / "clap-htsat-unfused"
    folder.rename(here / "away")
    assert main(["fetch", "clap", "--accept-licence"]) == 0
    assert "as recorded in weights/clap.fetched.json" in capsys.readouterr().out
    folder.rename(here / "away too")
    clap["vocab.json"] = b"another"
    assert main(["fetch", "clap", "--accept-licence"]) == 1
    assert "clap-htsat-unfused/vocab.json is not the file that was expected" in capsys.readouterr().err
    assert left(here / "weights") == ["clap.fetched.json"]


def test_every_judge_s_weights_can_be_fetched():
    registry.load()
    judges = [entry.factory for entry in registry.available("judge")]
    published = {each.published for each in judges if hasattr(each, "published")}
    targets = {target for weights in CATALOGUE.values() if weights.judge for target in weights.targets}
    assert published - WITHOUT_WEIGHTS == targets - {"gpt2", "roberta-base"}  # tokenizers


def test_recipes_name_the_folders_and_hashes_are_whole_or_of_a_name():
    named = "".join(path.read_text() for path in (shipped_root("recipes") / "scale").glob("*.gin"))
    for weights in CATALOGUE.values():
        assert weights.judge or f"'checkpoints/{weights.folder}" in named
        assert weights.licence and (UNKNOWN in weights.licence or "-" in weights.licence)
        for file in weights.files:
            assert len(file.sha256) in (0, 64) or f"-{file.sha256}." in file.name
            assert len(file.revision) in (0, 40) and (file.repository or file.address.startswith("https://"))


@pytest.fixture
def released(hub: Hub, monkeypatch) -> None:
    """The authors' model at a small size, AudioLDM's first stage and a tokenizer on the server."""
    import sentencepiece

    unet = find_unet(str(golden.GOLDEN / "released_step_unet.json"))
    sizes: dict[str, Any] = {**layouts.CAVP, "dim": 512}
    monkeypatch.setattr(converters, "CAVP", sizes)
    monkeypatch.setattr(converters, "VAE", {**layouts.VAE, "latent_channels": 8})
    monkeypatch.setattr(converters, "HIFIGAN", layouts.HIFIGAN)
    monkeypatch.setitem(UNETS, "stav2a", unet)
    state = layouts.random(json.loads((golden.GOLDEN / "released_step_keys.json").read_text()))
    state |= {f"extract_cavp.stage1_model.{name}": each for name, each in layouts.cavp(512).items()}
    state |= layouts.t5("text_encoder.", words=64, width=1024)
    hub.repositories["y-ren16/STAV2A"] = {"STA-V2A/best/pytorch_model_2.bin": saved(state)}
    hub.repositories["haoheliu/AudioLDM-S-Full"] = {"audioldm-s-full": saved(layouts.audioldm(8))}
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a low drum", "a high bell", "someone shakes a tambourine"] * 9),
        model_writer=pieces, vocab_size=60, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    hub.repositories["google/mt5-large"] = {
        "spiece.model": pieces.getvalue(),
        "special_tokens_map.json": b'{"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}',
        "tokenizer_config.json": b'{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}',
    }


@pytest.mark.slow
@pytest.mark.usefixtures("released")
def test_the_authors_model_makes_sound_after_it_was_fetched(here, capsys):
    write_video(here / "clip.mp4", 30)
    sound = ["generate", "clip.mp4", "--model", "released", "--steps", "2", "--output", "sounds"]
    assert main(sound) == 1
    assert "checkpoints/released is not there. Fetch it: " in capsys.readouterr().err
    assert main(["fetch", "released", "--accept-licence"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("licence   audioldm") < printed.index("licence   released") < printed.index("read ")
    assert printed.endswith("stav2a generate clip.mp4 --model released --output sounds\n")
    assert left(here / "checkpoints") == [
        *("audioldm", "audioldm.fetched.json", "released", "released.fetched.json"),
    ]
    pipe = VideoToAudioPipeline.from_pretrained("released")
    assert (pipe.num_inference_steps, pipe.guidance_scale, pipe.prediction_type) == (200, 3.0, "v_prediction")
    assert main([*sound, "--prompt", "a low drum"]) == 0
    assert len(read_audio(here / "sounds" / "clip.wav", SAMPLE_RATE)) > 0
