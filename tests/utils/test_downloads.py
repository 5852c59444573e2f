"""Downloads: whole, broken in the middle, of another hash, refused, and on a disk without room."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download

from stav2a.utils.downloads import DownloadError, RemoteFile, download
from tests.hub import COMMIT

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ON_THE_HUB = RemoteFile("w.bin", "lab/model/folder/w.bin")


@pytest.fixture(autouse=True)
def served(hub, monkeypatch):
    hub.repositories["lab/model"] = {"folder/w.bin": CONTENT, "plain.json": b"{}"}
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what a broken connection may lose
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    return hub


def refused(file: RemoteFile, path: Path, **more: str) -> DownloadError:
    with pytest.raises(DownloadError) as told:
        download(file, path, **more)
    assert "\n" not in str(told.value)
    return told.value


def test_a_file_of_the_hub_comes_with_its_commit_and_the_hash_that_was_announced(tmp_path):
    found = download(ON_THE_HUB, tmp_path / "new" / "w.bin")
    assert (tmp_path / "new" / "w.bin").read_bytes() == CONTENT
    assert (found.revision, found.sha256, found.size, found.announced) == (COMMIT, SHA256, 10_240, True)
    small = download(RemoteFile("plain.json", "lab/model/plain.json"), tmp_path / "plain.json")
    assert small.sha256 == hashlib.sha256(b"{}").hexdigest() and not small.announced


def test_the_beginning_of_a_hash_is_enough_and_another_address_than_the_hub_s(hub, tmp_path):
    address = f"{hub.address}/lab/model/resolve/main/folder/w.bin"
    found = download(RemoteFile("w.bin", address, sha256=SHA256[:8]), tmp_path / "w.bin")
    assert (found.address, found.revision, found.announced) == (address, "", False)
    told = refused(RemoteFile("w.bin", address, sha256="abcd"), tmp_path / "other.bin")
    assert str(told) == (
        f"{address} is not the file that was expected: what came has sha256 {SHA256}, expected abcd. It was "
        "not kept. Try once more; if it stays so, the authors published another file."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["w.bin"] and not told.resumable


def test_a_broken_connection_goes_on_where_it_broke(hub, tmp_path):
    hub.breaks = [4000, 3000]
    download(ON_THE_HUB, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert hub.ranges() == ["", "bytes=4000-", "bytes=7000-"]


def test_a_command_goes_on_where_another_was_interrupted(hub, tmp_path):
    hub.breaks = [4000, None]
    told = refused(ON_THE_HUB, tmp_path / "w.bin")
    assert str(told) == (
        "lab/model/folder/w.bin can't be downloaded: the server answers 503. What has come is kept: the same "
        "command goes on with it."
    )
    assert told.resumable and (tmp_path / "w.bin.part").stat().st_size == 4000
    hub.requests.clear()
    download(ON_THE_HUB, tmp_path / "w.bin")
    assert hub.ranges() == ["bytes=4000-"] and [path.name for path in tmp_path.iterdir()] == ["w.bin"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(hub, tmp_path):
    address = f"{hub.address}/lab/model/resolve/main/folder/w.bin"
    (tmp_path / "w.bin.part").write_bytes(b"0" * 20_000)
    download(RemoteFile("w.bin", address), tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_part_of_another_file_is_found_by_its_hash_and_not_kept(tmp_path):
    (tmp_path / "w.bin.part").write_bytes(b"0" * 4000)
    assert "is not the file that was expected" in str(refused(ON_THE_HUB, tmp_path / "w.bin"))
    assert list(tmp_path.iterdir()) == []


def test_a_hash_that_the_hub_announces_otherwise_stops_before_the_download(hub, tmp_path):
    told = refused(ON_THE_HUB, tmp_path / "w.bin", sha256="ab" * 32)
    assert f"the hub announces sha256 {SHA256}, expected {'ab' * 32}" in str(told)
    assert hub.ranges() == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_file_that_asks_for_an_agreement_names_the_way(hub, tmp_path, status):
    hub.refused["lab/model"] = status
    assert str(refused(ON_THE_HUB, tmp_path / "w.bin")) == (
        f"the hub does not give lab/model/folder/w.bin ({status}): its authors ask for an agreement, "
        "or it is private. Open https://huggingface.co/lab/model, agree to its terms, log in with "
        "`hf auth login`, and try again."
    )


def test_a_file_that_is_not_there_and_a_server_that_is_not_there(hub, tmp_path):
    assert "the server answers 404" in str(refused(RemoteFile("x", "lab/model/x"), tmp_path / "x"))
    nowhere = RemoteFile("x", "http://127.0.0.1:9/x")
    assert "http://127.0.0.1:9/x can't be downloaded: " in str(refused(nowhere, tmp_path / "x"))


def test_no_room_is_told_before_the_download(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5000))
    told = refused(ON_THE_HUB, tmp_path / "w.bin")
    assert str(told) == (
        f"no room for w.bin: its size is 10.2 kB, 5 kB are free in {tmp_path}. Make room, or give an "
        "--output on another disk; the same command goes on."
    )
    assert told.resumable and hub.ranges() == []


def test_a_disk_that_fills_up_meanwhile_is_told_too(tmp_path):
    (tmp_path / "w.bin.part").symlink_to("/dev/full")
    told = refused(ON_THE_HUB, tmp_path / "w.bin")
    assert str(told).startswith("no room for w.bin: its size is not known, ") and told.resumable
