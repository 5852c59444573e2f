import subprocess
import sys

from stav2a.utils.files import HOST, sweep, temporary_beside, write_text


def test_temporary_files_of_dead_processes_are_swept(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    names = (f".tmp-{HOST}-{child.pid}-00000000{ending}" for ending in ("", ".json", ".db-journal"))
    dead = [tmp_path / name for name in names]
    others = [
        temporary_beside(tmp_path / "mine.json"),
        tmp_path / f".tmp-ffffff-{child.pid}-00000000.json",  # of another machine
        tmp_path / ".tmp-notes",
    ]
    dead[0].mkdir()
    for path in (dead[0] / "x", *dead[1:], *others):
        path.touch()
    sweep(tmp_path.rglob(".tmp-*"))
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_name_of_any_length_can_be_written(tmp_path):
    write_text(tmp_path / ("x" * 250 + ".txt"), "whole")
    assert (tmp_path / ("x" * 250 + ".txt")).read_text() == "whole"
