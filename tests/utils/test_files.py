"""Files that appear whole, with the rights that the umask gives, and never in place of a user's own."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from stav2a.utils.checkpoints import save_weights
from stav2a.utils.errors import UsageError
from stav2a.utils.files import (
    HOST,
    atomic,
    check_replaced,
    exclusive,
    new_folder,
    sweep,
    temporary_beside,
    write_text,
)
from stav2a.utils.store import Store, save_tensors


@pytest.fixture(params=[0o002, 0o027])
def rights(request):
    """The rights of a file under an umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_weights_have_the_rights_that_the_umask_gives(tmp_path, rights):
    with Store(tmp_path).create("stage", "key") as folder:
        save_tensors(folder / "model.safetensors", {"weight": torch.zeros(3)})
    (weights,) = tmp_path.rglob("*.safetensors")
    assert mode(weights) == rights


def test_weights_that_can_not_be_written_are_an_error_of_the_system(tmp_path):
    path = tmp_path / "missing" / "model.safetensors"
    with pytest.raises(OSError, match=r"model.safetensors can't be written \(.*Make room, or choose another"):
        save_weights(path, {"weight": torch.zeros(3)})


def test_files_of_libraries_that_keep_them_private_do_too(tmp_path, rights):
    with atomic(tmp_path / "arrays.safetensors") as temporary:
        save_file({"x": np.zeros(3)}, temporary)
    assert mode(tmp_path / "arrays.safetensors") == rights


def test_a_lock_that_can_not_be_opened_is_an_error(tmp_path):
    with pytest.raises(IsADirectoryError), exclusive(tmp_path, "clips"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_a_lock_of_another_user_is_an_error_that_says_so():
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "clips"
        lock.touch()
        lock.chmod(0)
        os.chmod(folder, 0o755)
        user = os.geteuid()
        try:
            if user == 0:  # whom rights do not stop
                os.seteuid(65534)
            with pytest.raises(PermissionError) as caught, exclusive(lock, "clips"):
                pass
        finally:
            os.seteuid(user)
    assert str(caught.value) == (
        f"{lock} can't be locked (Permission denied). It may be another user's: let its owner make it "
        "writable for you, or choose another folder."
    )


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EROFS])
def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch, code):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with exclusive(tmp_path / "lock", "clips"):
        pass
    code = errno.EIO
    with pytest.raises(OSError, match=os.strerror(code)), exclusive(tmp_path / "lock", "clips"):
        pass


def test_the_longest_name_can_be_written(tmp_path):
    for name in ("x" * 251 + ".mp4", "é" * 125 + ".wav"):
        with atomic(tmp_path / name) as temporary:
            temporary.write_text("x", encoding="utf-8")
        assert (tmp_path / name).exists()


def test_files_are_replaced_only_beside_the_mark_of_the_command(tmp_path):
    (tmp_path / "table.csv").touch()
    with pytest.raises(UsageError, match="table.csv is there already, and this command did not make it"):
        check_replaced(tmp_path, ["x", "table.csv"], "mark", overwrite=False)
    check_replaced(tmp_path, ["x"], "mark", overwrite=False)
    check_replaced(tmp_path, ["table.csv"], "mark", overwrite=True)
    (tmp_path / "mark").mkdir()
    check_replaced(tmp_path, ["table.csv"], "mark", overwrite=False)


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


def test_a_folder_that_was_not_filled_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "b" / "c"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a" / "b" / "c") as folder:
        (folder / "x").touch()
    assert (tmp_path / "a" / "b" / "c" / "x").exists()
