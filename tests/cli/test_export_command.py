"""`stav2a export`: a run as one folder, which gives the same sounds, with a model card."""

import json
from pathlib import Path

import pytest

from stav2a.cli.main import main
from stav2a.data.struck_objects import VERSION
from stav2a.evaluation.scores import to_json
from stav2a.metrics.score import Score
from stav2a.reports.model_card import BlockOrigin
from stav2a.utils.files import write_json
from tests.cli.test_generate_command import run, videos  # noqa: F401 - fixtures
from tests.hub import COMMIT

SCORE = Score(
    name="aa_align", label="AA-Align", definition="of a test", higher_is_better=True, value=0.75, n=128,
    low=0.7, high=0.8, draws=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):  # noqa: F811
    (run / "scores.json").write_text(to_json([SCORE]))
    folder = tmp_path_factory.mktemp("exported") / "my-model"
    assert main(["export", "--run", str(run), "--output", str(folder)]) == 0
    return folder


def test_the_exported_model_makes_the_runs_sounds(exported, run, videos, tmp_path):  # noqa: F811
    video = str(videos / "short.mp4")
    for source in (["--run", str(run)], ["--model", str(exported)]):
        output = str(tmp_path / source[0].strip("-"))
        assert main(["generate", video, *source, "--prompt", "a drum", "--output", output]) == 0
    first, second = ((tmp_path / name / "short.wav").read_bytes() for name in ("run", "model"))
    assert first == second


def test_the_card_tells_use_scores_weights_and_recipe(exported):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: stav2a\n")
    assert 'VideoToAudioPipeline.from_pretrained("my-model")' in card
    assert "| **AA-Align ↑** | 0.750<br><sub>[0.700,&nbsp;0.800]</sub> |" in card
    assert "| backbone | `backbone.unet_controlnet` |" in card and "trained by this run" in card
    assert "| vocoder | `vocoder.griffin_lim` | 0 | it has no weights |  |" in card
    assert "run.local_head = @local_head.onset" in card
    assert f"Of the test clips of `dataset.struck_objects`, version {VERSION}, with the settings of" in card
    assert json.loads((exported / "sampling.json").read_text())["num_inference_steps"] == 2


def test_all_its_files_have_the_rights_that_the_umask_gives(exported):
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {(exported / "README.md").stat().st_mode}
    assert any(path.suffix == ".safetensors" for path in files)


def test_a_folder_that_is_there_is_left_alone(exported, run, capsys):  # noqa: F811
    before = sorted(path.name for path in exported.iterdir())
    assert main(["export", "--run", str(run), "--output", str(exported)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert sorted(path.name for path in exported.iterdir()) == before


def test_a_run_goes_to_the_hub_in_private(exported, run, hub, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert main(["export", "--run", str(run), "--push", "lab/drums"]) == 0
    assert capsys.readouterr().out == f"{hub.address}/lab/drums/commit/{COMMIT}\n"
    uploaded, folder = hub.repositories["lab/drums"], [*filter(Path.is_file, exported.rglob("*"))]
    assert set(uploaded) == {path.relative_to(exported).as_posix() for path in folder}
    assert 'from_pretrained("lab/drums")' in uploaded["README.md"].decode() and hub.public == set()
    assert main(["export", "--run", str(run), "--push", "lab/open", "--public"]) == 0
    assert hub.public == {"lab/open"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected --output or --push. --output takes a new folder."),
        (["--output", "new", "--public"], "--public goes with --push."),
        (["--push", "drums"], "'drums' has no owner on the hub. Expected OWNER/MODEL."),
        (["--push", "lab/drums"], "there is no token for the Hugging Face hub. Log in with `hf auth login`"),
    ],
)
def test_what_can_not_be_exported_is_refused_first(hub, words, told, capsys):
    assert main(["export", "--run", "none", *words]) == 2
    assert told in capsys.readouterr().err and hub.requests == []


def test_converted_weights_have_the_licence_of_their_source(tmp_path):
    facts = {"source": "cavp", "files": [{"name": "cavp.ckpt", "sha256": "0"}], "licence": "Apache-2.0"}
    write_json(tmp_path / "config.json", {"stav2a": {"converted": facts}})
    described = {"component": "feature_encoder.cavp", "parameters": {"checkpoint": str(tmp_path)}}
    origin = BlockOrigin.of("feature_encoder", described, 10)
    assert (origin.source, origin.licence) == ("cavp.ckpt", "Apache-2.0")
    described["parameters"]["checkpoint"] = "google/mt5-large"
    assert BlockOrigin.of("text_encoder", described, 10).licence == "unknown to us"
