import os

import pytest

from stav2a.utils import contents
from stav2a.utils.contents import ChangedError, Contents, file_hash


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files whose content is read."""
    read: list[str] = []

    def counting(path):
        read.append(path.name)
        return file_hash(path)

    monkeypatch.setattr(contents, "file_hash", counting)
    return read


def test_equal_content_has_an_equal_hash_wherever_it_lies(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "x.bin").write_bytes(b"1")
    found = Contents(tmp_path / "cache.json")
    assert found.of(tmp_path / "a") == found.of(tmp_path / "b")
    assert found.of(tmp_path / "a" / "deep" / "x.bin") == file_hash(tmp_path / "b" / "deep" / "x.bin")


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_another_content_or_name_has_another_hash(tmp_path, change):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x.bin").write_bytes(b"1")
    before = Contents(tmp_path / "cache.json").of(folder)
    if change == "content":
        (folder / "x.bin").write_bytes(b"2")
    elif change == "name":
        (folder / "x.bin").rename(folder / "y.bin")
    else:
        (folder / "y.bin").write_bytes(b"")
    assert Contents(tmp_path / "cache.json").of(folder) != before


def test_a_file_is_read_once_until_it_changes_even_with_its_old_size_and_time(tmp_path, reads):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    times = os.stat(path)
    first = Contents(tmp_path / "cache.json").of(path)
    assert Contents(tmp_path / "cache.json").of(path) == first and reads == ["x.bin"]
    path.write_bytes(b"new")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Contents(tmp_path / "cache.json").of(path) != first and reads == ["x.bin"] * 2


def test_nothing_has_no_hash_and_a_damaged_cache_is_made_anew(tmp_path):
    assert Contents(tmp_path / "cache.json").of(tmp_path / "nowhere") is None
    (tmp_path / "cache.json").write_text('{"half')
    (tmp_path / "x.bin").write_bytes(b"1")
    assert Contents(tmp_path / "cache.json").of(tmp_path / "x.bin") == file_hash(tmp_path / "x.bin")


def test_a_file_that_changes_after_its_hash_is_refused_whatever_other_processes_found(tmp_path):
    path, other, cache = tmp_path / "x.bin", tmp_path / "y.bin", tmp_path / "cache.json"
    path.write_bytes(b"old")
    other.write_bytes(b"old")
    ours = Contents(cache)
    ours.of_files([path])
    ours.check_unchanged()
    other.write_bytes(b"another")
    path.write_bytes(b"new")
    Contents(cache).of_files([path, other])  # another process
    ours.check_unchanged([other])  # nobody asked for it here
    with pytest.raises(ChangedError, match="x.bin changed while it was read. Give the command again when"):
        ours.check_unchanged()
    path.unlink()
    with pytest.raises(ChangedError):
        ours.check_unchanged([path])
