from pathlib import Path

import pytest

from stav2a.metrics.judges.judge import weights_in
from stav2a.metrics.judges.vggish import VGGish
from stav2a.utils.checkpoints import CheckpointError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)


def test_weights_are_where_they_are_named_else_in_the_folder_else_in_the_environments(monkeypatch):
    assert VGGish().path is None
    monkeypatch.setenv("STAV2A_WEIGHTS", "everywhere")
    assert VGGish().path == Path("everywhere") / VGGish.published
    with weights_in(Path("here")):
        assert VGGish().path == Path("here") / VGGish.published
        assert VGGish(weights="mine.pth").path == Path("mine.pth")
    with weights_in(None):
        assert VGGish().path == Path("everywhere") / VGGish.published


def test_missing_weights_are_reported_with_their_place(tmp_path):
    assert VGGish().fault == (
        "weights of VGGish not found: put vggish-10086976.pth, from github.com/harritaylor/torchvggish "
        "(release v0.1), into a folder that the environment variable STAV2A_WEIGHTS names"
    )
    judge = VGGish(weights=str(tmp_path / "x.pth"))
    assert judge.fault == (
        "weights of VGGish not found: put vggish-10086976.pth, from github.com/harritaylor/torchvggish "
        f"(release v0.1), here: {tmp_path}/x.pth"
    )
    (tmp_path / "x.pth").write_bytes(b"1")
    assert judge.fault is None
    assert judge.definition.endswith("; weights 6b86b273ff34)")


def test_a_folder_in_place_of_the_file_is_told(tmp_path):
    with pytest.raises(
        CheckpointError, match="is a folder; the weights of VGGish are a file. Give vggish-10086"
    ):
        _ = VGGish(weights=str(tmp_path)).definition
