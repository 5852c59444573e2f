from pathlib import Path

import pytest

from stav2a.metrics.judges.judge import fingerprint, looked_for_in, missing, place


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)


def test_weights_are_where_they_are_named_else_in_the_folder_else_in_the_environments(monkeypatch):
    assert place(None, "x.pth") is None
    monkeypatch.setenv("STAV2A_WEIGHTS", "everywhere")
    assert place(None, "x.pth") == Path("everywhere/x.pth")
    with looked_for_in(Path("here")):
        assert place(None, "x.pth") == Path("here/x.pth")
        assert place("mine.pth", "x.pth") == Path("mine.pth")
    with looked_for_in(None):
        assert place(None, "x.pth") == Path("everywhere/x.pth")


def test_what_is_missing_is_told_with_its_place(tmp_path):
    assert missing("X", None, "x.pth") == (
        "weights of X not found: put x.pth into a folder and name it with --weights-dir or $STAV2A_WEIGHTS"
    )
    assert (
        missing("X", tmp_path / "x.pth", "x.pth")
        == f"weights of X not found: put x.pth here: {tmp_path}/x.pth"
    )
    (tmp_path / "x.pth").write_bytes(b"1")
    assert missing("X", tmp_path / "x.pth", "x.pth") is None
    assert fingerprint(tmp_path / "x.pth") == "6b86b273ff34"
