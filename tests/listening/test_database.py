"""Ratings are kept at once, one a scale, by several writers."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from stav2a.listening.database import ListenError, StorageError
from tests.listening.listening_examples import begun


@pytest.fixture
def test(tmp_path):
    return begun(tmp_path)


def test_the_last_rating_on_a_scale_holds(test):
    token = test.videos[0].token
    for value in (10, 90):
        test.database.rate("ada", token, "oq", value)
    test.database.rate("bob", token, "oq", 50)
    assert [(each.annotator, each.value, each.played) for each in test.database.ratings()] == [
        ("ada", 90, False),
        ("bob", 50, False),
    ]
    assert [each.value for each in test.database.ratings("bob")] == [50]


def test_what_was_heard_is_kept_once(test):
    token = test.videos[0].token
    test.database.mark_played("ada", token)
    test.database.mark_played("ada", token)
    assert test.database.played("ada") == {token} and test.database.played("bob") == set()


@pytest.mark.parametrize(
    ("token", "scale", "value"), [("nothing", "oq", 50), (None, "zq", 50), (None, "oq", 0), (None, "oq", 101)]
)
def test_the_database_itself_refuses_what_cannot_be(test, token, scale, value):
    with pytest.raises(ListenError, match="this rating can't be saved"):
        test.database.rate("ada", token or test.videos[0].token, scale, value)
    assert test.database.ratings() == []


def test_many_write_at_once(test):
    tokens = [video.token for video in test.videos]

    def work(name):
        for value, token in enumerate(tokens, start=1):
            test.database.rate(name, token, "oq", value)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [f"annotator {i}" for i in range(8)]))
    assert len(test.database.ratings()) == 8 * len(tokens)


def test_a_locked_database_is_told(test, monkeypatch):
    monkeypatch.setattr("stav2a.listening.database.PATIENCE_S", 0.05)
    other = sqlite3.connect(test.database.path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match=r"can't be used \(database is locked\)"):
        test.database.rate("ada", test.videos[0].token, "oq", 50)
    other.close()
    test.database.rate("ada", test.videos[0].token, "oq", 50)


def test_unfinished_changes_of_a_deleted_database_are_not_in_the_next(test):
    """SQLite would apply a journal to whatever database has its name."""
    database = test.database
    settings, videos = database.read()
    with sqlite3.connect(database.path) as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN")
        other.executemany(
            "INSERT INTO heard VALUES (?, ?, '')", [(str(i), videos[0].token) for i in range(9000)]
        )
        journal = database.path.with_name(f"{database.path.name}-journal")
        left = journal.read_bytes()
        other.rollback()
    database.path.unlink()
    journal.write_bytes(left)
    database.create(settings, videos[:2])
    assert database.read() == (settings, videos[:2])
    assert journal.with_name("ratings.sqlite.deleted-journal").read_bytes() == left
