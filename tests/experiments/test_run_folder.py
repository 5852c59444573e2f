import json
from pathlib import Path
from typing import Any

import pytest

from stav2a.experiments.run_folder import RunFolder, RunFolderError
from stav2a.utils.errors import UsageError, exit_code
from stav2a.utils.files import check_writable
from stav2a.utils.program import command

SIGNATURE, OTHER = "1a2b3c4d" * 8, "9f8e7d6c" * 8


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    made = RunFolder(tmp_path / "cn-1a2b3c4d")
    made.begin(signature=SIGNATURE, snapshot="run.seed = 1\n", facts={"recipe": "cn"})
    return made


def test_a_run_writes_down_whose_it_is(folder):
    assert folder.begun and not folder.finished
    assert folder.facts() == {"recipe": "cn", "signature": SIGNATURE, "format": 1}
    assert folder.snapshot.read_text() == "run.seed = 1\n"


def test_a_run_goes_on_in_its_own_folder_and_keeps_what_it_knew(folder):
    folder.add(seconds=3.5)
    folder.begin(signature=SIGNATURE, snapshot="run.seed = 1\n", facts={"recipe": "cn", "host": "here"})
    assert folder.facts() == {
        "recipe": "cn", "signature": SIGNATURE, "format": 1, "seconds": 3.5, "host": "here"
    }  # fmt: skip


def test_what_stands_in_the_place_of_a_file_or_a_folder_gives_way(folder):
    (folder.report / "inside").mkdir(parents=True)
    folder.samples.write_text("a file")
    folder.scores.write_text("{}")
    folder.sounds.mkdir()
    folder.make_room()
    assert not folder.report.exists() and not folder.samples.exists()
    assert folder.scores.is_file() and folder.sounds.is_dir()


def test_a_run_is_finished_when_it_says_so(folder):
    folder.add(seconds=3.5, environment={}, git={}, finished=True)
    assert folder.finished and RunFolder(folder.path).finished


def test_a_folder_that_is_not_there_is_neither_begun_nor_finished(tmp_path):
    nothing = RunFolder(tmp_path / "nothing")
    assert not nothing.begun and not nothing.finished
    assert not nothing.path.exists()


def test_a_run_of_another_configuration_is_refused_and_left_as_it_is(folder):
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(RunFolderError) as error:
        folder.begin(signature=OTHER, snapshot="run.seed = 2\n", facts={})
    assert str(error.value) == (
        f"{folder.path} holds a run of another configuration (1a2b3c4d, this one is 9f8e7d6c). "
        "Choose another --output."
    )
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before
    assert exit_code(error.value) == 2


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[1]", b"\xff\x00".decode("latin-1")])
def test_what_is_no_run_folder_is_told(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError) as error:
        RunFolder(tmp_path).facts()
    assert str(error.value) == (
        f"{tmp_path} is not a run folder: it has no readable run.json. "
        "Give the folder that `stav2a run` printed, such as runs/cn_onset_gvf-1a2b3c4d."
    )


@pytest.mark.parametrize(("content", "found"), [({"format": 0}, "0"), ({"format": None}, "None")])
def test_a_folder_of_another_version_is_told_with_the_way_out(tmp_path, content, found):
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError) as error:
        RunFolder(tmp_path).facts()
    again = command("run", "--gin", tmp_path / "snapshot.gin", "--output", tmp_path.parent)
    assert str(error.value) == (
        f"{tmp_path} was written in format {found}, this version reads 1. Run its recipe again: {again}"
    )
    folder = RunFolder(tmp_path)
    assert not folder.whole()  # so that this command makes it anew
    folder.begin(signature="1", snapshot="", facts={})
    assert folder.facts()["signature"] == "1"


DAMAGED: list[dict[str, Any]] = [
    {"format": 1},
    {"format": 1, "signature": 3},
    {"format": 1, "signature": SIGNATURE, "finished": True},
    {"format": 1, "signature": SIGNATURE, "finished": True, "seconds": "3"},
    {"format": 1, "signature": SIGNATURE, "finished": True, "seconds": 3, "recipe": "cn", "environment": {}},
    {"format": 1, "signature": SIGNATURE, "files": 3},
    {"format": 1, "signature": SIGNATURE, "tracking": []},
    {"format": 1, "signature": SIGNATURE, "tracking": {"a.db": "x"}},
    {"format": 1, "signature": SIGNATURE, "tracking": {"a.db": {"whole": True}}},
]


@pytest.mark.parametrize("content", DAMAGED, ids=str)
def test_facts_of_the_wrong_kind_are_damaged_and_written_again(tmp_path, content, caplog):
    (tmp_path / "run.json").write_text(json.dumps(content))
    folder = RunFolder(tmp_path)
    assert not folder.whole() and "is damaged, or of another version" in caplog.text
    folder.begin(signature=SIGNATURE, snapshot="", facts={})
    assert folder.facts()["signature"] == SIGNATURE


def test_missing_facts_are_told(folder, caplog):
    folder.facts_file.unlink()
    assert not folder.whole()
    assert caplog.messages == [f"{folder.facts_file} is missing: the run is made again."]


def test_a_folder_for_results_is_made_and_nothing_is_left_in_it(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("inside", [".", "deeper"])
def test_a_folder_that_can_not_be_written_is_told(tmp_path, inside):
    (tmp_path / "file").write_text("kept")
    output: Path = tmp_path / "file" / inside
    with pytest.raises(
        UsageError, match=rf"--output {output} can't be written \(.+\)\. Choose a folder of your"
    ):
        check_writable(output)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_run_can_be_tracked_in_several_places(tmp_path):
    folder = RunFolder(tmp_path / "cn")
    assert folder.tracked("sqlite:///a.db") == {}
    folder.begin(signature=SIGNATURE, snapshot="", facts={})
    folder.add_tracked("sqlite:///a.db", run="1")
    folder.add_tracked("sqlite:///b.db", run="2")
    folder.add_tracked("sqlite:///a.db", where="here", whole=True)
    assert folder.tracked("sqlite:///a.db") == {"run": "1", "where": "here", "whole": True}
    assert folder.tracked("sqlite:///b.db") == {"run": "2"}
