import logging
import math
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import stav2a
from stav2a.experiments.execution import TrackingOptions
from stav2a.experiments.tracking import (
    AddressError,
    Tracker,
    TrackingError,
    TrackingStore,
    connect,
    environment,
    git_state,
    resolve,
    tracker,
    tracking_store,
)
from stav2a.utils.program import module_command


@pytest.fixture(autouse=True)
def no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the whole file: making a database takes seconds."""
    return tmp_path_factory.mktemp("runs of Zoë #1")


@pytest.fixture(scope="module")
def tracked(root: Path) -> str:
    """A finished run that logged one of everything; its id."""
    (root / "clip.wav").write_bytes(b"RIFF")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with connect(None, root, experiment="spine", run_name="cn", tags={"seed": "0"}) as run:
            for step in range(1500):
                run.log_metrics({"joint/loss": 1 / (step + 1), "IS @ 8 s": step}, step=step)
            run.log_metrics({"nothing": math.nan})
            run.log_params({f"local_head.onset.p{i}": i for i in range(150)} | {"long": "x" * 9000})
            run.log_artifact(root / "clip.wav", "samples")
            run.log_text("run.seed = 0\n", "snapshot.gin")
            run.set_tags({"git.commit": "abc"})
            return str(run.run_id)


def client(root: Path):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def test_a_run_is_read_back_as_it_was_logged(root: Path, tracked: str):
    run = client(root).get_run(tracked)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "cn"
    assert run.data.tags.items() >= {"seed": "0", "git.commit": "abc"}.items()
    assert len(run.data.params) == 151
    assert run.data.params["local_head.onset.p149"] == "149"
    assert run.data.metrics["IS _ 8 s"] == 1499  # a name MLflow refuses is made one it takes
    assert math.isnan(run.data.metrics["nothing"])
    assert [m.step for m in client(root).get_metric_history(tracked, "joint/loss")] == list(range(1500))


def test_artifacts_lie_beside_the_database(root: Path, tracked: str):
    assert {file.path for file in client(root).list_artifacts(tracked)} == {"samples", "snapshot.gin"}
    (sound,) = (root / "mlartifacts").rglob("samples/clip.wav")
    assert sound.read_bytes() == b"RIFF"


def test_a_long_parameter_is_cut_and_says_so(root: Path, tracked: str):
    value = client(root).get_run(tracked).data.params["long"]
    assert len(value) == 6000
    assert value.endswith("x … (cut, 9000 characters)")


def test_the_same_run_is_continued(root: Path, tracked: str, caplog: pytest.LogCaptureFixture):
    with connect(None, root, experiment="spine", run_name="cn", tags={"again": "1"}, run_id=tracked) as run:
        assert run.run_id == tracked
        assert client(root).get_run(tracked).info.status == "RUNNING"
        run.log_params({"local_head.onset.p3": 3, "local_head.onset.p4": 5})
        run.log_metrics({"joint/loss": 0.5}, step=1500)
    resumed = client(root).get_run(tracked)
    assert resumed.data.metrics["joint/loss"] == 0.5
    assert resumed.data.tags["again"] == "1"
    assert resumed.data.params["local_head.onset.p4"] == "4"
    assert "keeps the first value of local_head.onset.p4." in caplog.text


def test_a_run_the_store_does_not_hold_begins_anew_with_a_warning(
    root: Path, tracked: str, caplog: pytest.LogCaptureFixture
):
    with connect(None, root, experiment="spine", run_name="cn", run_id="0" * 32) as run:
        assert run.run_id not in (tracked, "0" * 32)
    assert f"does not hold the tracked run {'0' * 32} any more: a new one begins" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (None, "FINISHED")]
)
def test_the_status_says_how_a_run_ended(root: Path, tracked: str, error: type[BaseException], status: str):
    run = connect(None, root, experiment="spine", run_name=status)
    try:
        with run:
            run.log_metrics({"loss": 1.0})
            if error:
                raise error()
    except (RuntimeError, KeyboardInterrupt):
        pass
    ended = client(root).get_run(run.run_id)
    assert ended.info.status == status
    assert ended.data.metrics == {"loss": 1.0}


def test_a_child_run_names_its_parent(root: Path, tracked: str):
    with connect(None, root, experiment="spine", run_name="row", tags={"mlflow.parentRunId": tracked}) as run:
        pass
    assert client(root).get_run(run.run_id).data.tags["mlflow.parentRunId"] == tracked


def test_logging_does_not_wait_for_the_store(root: Path, tracked: str):
    with connect(None, root, experiment="spine", run_name="quick") as run:
        began = time.perf_counter()
        for step in range(1000):
            run.log_metrics({"loss": 1.0}, step=step)
        assert time.perf_counter() - began < 1.0  # 10 s by log_metric


def test_a_store_that_fails_later_does_not_stop_the_training(
    root: Path, tracked: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(tracker, "RETRY_AFTER_S", (0.0, 0.0))
    run = connect(None, root, experiment="spine", run_name="unlucky")
    run.wait()
    monkeypatch.setattr(run.store.client, "log_text", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    run.log_text("x", "a.txt")
    run.log_text("x", "b.txt")
    run.finish()
    assert run.lost == ["a.txt", "b.txt"] and not run.complete
    assert "did not take a.txt (disk full). Training continues." in caplog.text
    assert "lacks: a.txt, b.txt. The run folder has all of it." in caplog.text


def test_a_store_that_is_too_slow_at_the_end_lacks_the_rest(
    root: Path, tracked: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(tracker, "FINISH_TIMEOUT_S", 0.1)
    run = connect(None, root, experiment="spine", run_name="slow")
    run.wait()
    go_on = threading.Event()
    monkeypatch.setattr(run.store.client, "log_text", lambda *_: go_on.wait())
    run.log_text("x", "a.txt")
    run.finish()
    assert not run.complete
    assert "lacks: the rest, being too slow." in caplog.text
    go_on.set()


def test_finish_can_be_called_twice(root: Path, tracked: str):
    run = connect(None, root, experiment="spine", run_name="twice")
    run.finish()
    run.finish("FAILED")
    assert run.complete
    assert client(root).get_run(run.run_id).info.status == "FINISHED"


def test_a_missing_artifact_is_an_error_at_once(root: Path, tracked: str):
    with connect(None, root, experiment="spine", run_name="hasty") as run:
        with pytest.raises(TrackingError, match="nowhere.wav is not a file; write it before it is tracked"):
            run.log_artifact(Path("nowhere.wav"))


def test_where_is_a_command_for_a_shell(root: Path, tracked: str):
    with connect(None, root, experiment="spine", run_name="x") as run:
        assert shlex.split(run.where())[-3:] == ["dashboard", "--output", str(root)]


def test_a_run_that_is_over_shows_its_own_time(root: Path, tracked: str):
    with connect(None, root, experiment="spine", run_name="old", span=(1000.0, 1075.5)) as run:
        pass
    info = client(root).get_run(run.run_id).info
    assert (info.start_time, info.end_time) == (1_000_000, 1_075_500)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (None, ("dashboard",)),
        ("sqlite:////data/m.db", ("dashboard", "--tracking-uri", "sqlite:////data/m.db")),
        ("http://h:5000", ("dashboard", "--tracking-uri", "http://h:5000")),
    ],
)
def test_the_dashboard_s_command_names_the_store(uri, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tuple(shlex.split(resolve(uri, Path("runs")).opened_by()))[-len(words) :] == words
    assert shlex.split(resolve(None, Path("other")).opened_by("table3"))[-4:] == [
        "dashboard", "table3", "--output", "other",
    ]  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////data/m.db")
    assert resolve(None, Path("other")).opened_by().endswith("dashboard")


def test_mlflow_is_silent_and_sends_no_telemetry(root: Path, tracked: str):
    from mlflow.telemetry import get_telemetry_client

    assert get_telemetry_client() is None
    assert logging.getLogger("alembic").level >= logging.ERROR


def test_none_tracks_nothing(tmp_path: Path):
    with connect("none", tmp_path, experiment="spine", run_name="cn") as run:
        assert type(run) is Tracker
        run.wait()
        run.log_params({"a": 1})
        run.log_metrics({"a": 1.0}, step=1)
        run.log_artifact(tmp_path / "nowhere", "samples")
        run.log_text("a", "b")
        run.set_tags({"a": 1})
        assert run.run_id is None
        assert run.where() == "not tracked (--tracking-uri none)"
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_imports_neither_mlflow_nor_torch():
    code = "import sys, stav2a.experiments.tracking; print({'mlflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("mlflow.db", "Did you mean sqlite:///mlflow.db?"),
        ("sqllite:///mlflow.db", "Did you mean sqlite:?"),
        ("sqlite://mlflow.db", "Name the file after three slashes, four for an absolute path"),
        ("sqlite:///:memory:", "Name the file after three slashes"),
        ("localhost:5000", "Did you mean http://localhost:5000?"),
        ("http:/localhost:5000", "Write it with two slashes and a host: http://HOST."),
        ("htp://localhost:5000", "Did you mean http:?"),
        ("./mlruns", "MLflow no longer keeps runs in plain folders. Write sqlite:///./mlruns/mlflow.db."),
        ("file:///data/mlruns", "Write sqlite:////data/mlruns/mlflow.db."),
        ("s3://bucket", "See docs/tracking.md"),
        ("", "See docs/tracking.md"),
    ],
)
def test_a_misspelt_address_is_an_error_with_advice(uri: str, advice: str, tmp_path: Path):
    with pytest.raises(AddressError) as caught:
        connect(uri, tmp_path, experiment="spine", run_name="cn")
    assert str(caught.value).startswith(
        f'--tracking-uri was given "{uri}"; expected none, sqlite:///FILE.db, '
    )
    assert advice in str(caught.value)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_a_store_and_is_named_in_its_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlit:///x.db")
    with pytest.raises(AddressError, match='MLFLOW_TRACKING_URI was given "sqlit:///x.db"'):
        connect(None, tmp_path, experiment="spine", run_name="cn")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert type(connect(None, tmp_path, experiment="spine", run_name="cn")) is Tracker
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert resolve(None, tmp_path) == TrackingStore(
        f"sqlite:///{tmp_path}/mlflow.db",
        "the default store",
        (tmp_path / "mlartifacts").as_uri(),
        tmp_path / "mlflow.db",
    )


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://u:secret@h/d", "postgresql://***@h/d"),
        ("postgresql://u:secret@secret@h", "postgresql://***@h"),
        ("postgresql://u:secret/secret@h:5/d", "postgresql://***@h:5/d"),
        ("postgresql://u:secret@secret/secret@h/d", "postgresql://***@h/d"),
        ("postgresql://u:secret?secret@h/d", "postgresql://***"),
        ("mysql+pymysql://h/d?user=u&password=secret", "mysql+pymysql://h/d"),
        ("https://u:secret@h:5000/a/", "https://***@h:5000/a"),
        ("https://h/me@home", "https://h/me@home"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////data/me@home/a:b/m.db?timeout=5", "sqlite:////data/me@home/a:b/m.db"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, shown: str, tmp_path: Path):
    store = resolve(uri, tmp_path)
    assert store is not None and str(store) == shown
    assert TrackingOptions(uri, tags={"mlflow.parentRunId": "1"}).place(tmp_path).startswith(shown)
    assert "secret" not in TrackingOptions(uri).place(tmp_path)


@pytest.mark.parametrize("uri", ["postgresql:/u:secret@h", "u:secret@h/d.db", "postgresql://u:secret/x@h"])
def test_a_misspelt_address_is_shown_without_its_password_too(uri: str, tmp_path: Path):
    with pytest.raises(TrackingError) as caught:
        connect(uri, tmp_path, experiment="spine", run_name="cn")
    assert "secret" not in str(caught.value) and "***@h" in str(caught.value)


def test_stores_have_places_of_their_own(tmp_path: Path):
    def place(uri: str) -> str:
        return TrackingOptions(uri).place(tmp_path)

    base = "postgresql://u:secret@h/d"
    others = [base, f"{base}2", f"{base}?host=a", f"{base}?host=b", "postgresql://u:secret@h2/d"]
    assert len({place(uri) for uri in others}) == len(others)
    assert place(f"{base}?host=a&password=b") == place("postgresql://u:new@h/d?password=c&host=a")
    assert place("sqlite:////m.db") == "sqlite:////m.db" and place("http://h:1/") == "http://h:1"


def test_a_relative_address_means_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    address = resolve("sqlite:///m.db", Path("elsewhere"))
    assert address and address.database == tmp_path / "m.db"


def refused(uri: str | None, root: Path) -> str:
    began = time.perf_counter()
    with pytest.raises(TrackingError) as caught:
        with connect(uri, root, experiment="spine", run_name="cn") as run:
            run.wait()
    assert time.perf_counter() - began < 30
    assert str(caught.value).endswith("--tracking-uri none tracks nothing.")
    return str(caught.value)


def test_a_server_that_is_not_there_is_an_error_within_seconds(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}", f"postgresql://me:secret@127.0.0.1:{port}/mlflow"):
        message = refused(uri, tmp_path)
        assert f"nothing answers at 127.0.0.1:{port} (Connection refused)." in message
        assert "Start the server, or correct the address." in message
        assert "secret" not in message
    assert "nothing answers at mlflow.invalid:80" in refused("http://mlflow.invalid", tmp_path)


@pytest.fixture
def another_server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_is_not_mlflow_is_an_error(another_server: str, tmp_path: Path):
    message = refused(another_server, tmp_path)
    assert message.startswith(f"--tracking-uri is {another_server}: MLflow can't use it: ")
    assert "404" in message


# A transaction that outgrew SQLite's cache lies half in the file; its journal says how to undo it.
KILLED_WHILE_WRITING = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
for statement in ("PRAGMA cache_size = 1", "BEGIN", *sys.argv[2:]):
    database.execute(statement)
rows = [(str(i), "x" * 1000) for i in range(500)]
database.executemany("INSERT INTO experiment_tags VALUES (?, ?, 0)", rows)
os._exit(9)
"""


def kill_while_writing(database: Path, *statements: str) -> None:
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(database), *statements]
    assert subprocess.run(command, check=False).returncode == 9
    assert Path(f"{database}-journal").stat().st_size >= 512


@pytest.fixture
def unfinished(root: Path, tracked: str, tmp_path: Path) -> Path:
    """A database with a run, and what a killed process has half written to it."""
    database = tmp_path / "mlflow.db"
    shutil.copy(root / "mlflow.db", database)
    kill_while_writing(database)
    return database


def unfinished_rows(database: Path) -> int:
    with closing(sqlite3.connect(database)) as read:
        assert read.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(read.execute("SELECT count(*) FROM experiment_tags WHERE key < ':'").fetchone()[0])


def test_what_a_killed_process_wrote_to_the_database_is_undone(unfinished: Path, tracked: str):
    store = resolve(None, unfinished.parent)
    store.check()
    assert store.may_hold(tracked) and not Path(f"{unfinished}-journal").exists()
    assert unfinished_rows(unfinished) == 0


def test_what_a_killed_process_wrote_to_a_deleted_database_is_not_in_the_next(
    unfinished: Path, tracked: str, caplog: pytest.LogCaptureFixture
):
    unfinished.unlink()
    store = resolve(None, unfinished.parent)
    store.check()
    assert store.client.search_experiments() and not store.may_hold(tracked)
    assert unfinished_rows(unfinished) == 0
    assert unfinished.with_name("mlflow.db.deleted-journal").exists() and "mlflow.db.deleted-*" in caplog.text


def test_a_database_whose_first_transaction_was_killed_is_made_anew(tmp_path: Path):
    kill_while_writing(tmp_path / "mlflow.db", "CREATE TABLE experiment_tags (key, value, experiment_id)")
    store = resolve(None, tmp_path)
    store.check()
    assert store.client.search_experiments() and unfinished_rows(tmp_path / "mlflow.db") == 0


def test_a_database_that_another_program_writes_to_is_told_as_such(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking_store, "PATIENCE_S", 0.1)
    with closing(sqlite3.connect(unfinished)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "another program is writing to it. Run" in " ".join(refused(None, unfinished.parent).split())


def test_a_database_that_was_cut_off_is_told_as_damaged(tmp_path: Path):
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE experiments (name TEXT)")
        database.executemany("INSERT INTO experiments VALUES (?)", [("x" * 1000,)] * 100)
    database.close()
    os.truncate(tmp_path / "mlflow.db", 5000)
    message = refused(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert "the file is damaged (" in message and "Move it away" in message


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "text.db").write_text("my notes, of more than sixteen bytes")
    assert "the file is not an SQLite database." in refused(f"sqlite:///{tmp_path}/text.db", tmp_path)
    assert (tmp_path / "text.db").read_text() == "my notes, of more than sixteen bytes"
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE songs (name TEXT)")
    other.close()
    assert "the database belongs to another program." in refused(f"sqlite:///{tmp_path}/other.db", tmp_path)


def test_places_that_cannot_hold_a_store_are_refused(tmp_path: Path):
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "100%").mkdir()
    assert "that is a folder; expected a file." in refused(f"sqlite:///{tmp_path}/folder.db", tmp_path)
    assert "does not exist." in refused(f"sqlite:///{tmp_path}/no/mlflow.db", tmp_path)
    assert "it can't be written" in refused("sqlite:////proc/mlflow.db", tmp_path)
    assert "a path with ? or %" in refused(f"sqlite:///{tmp_path}/100%/mlflow.db", tmp_path)


@pytest.mark.parametrize("name", ["what?", "100%", "a%20b"])
def test_folders_whose_names_mlflow_would_change_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / name / "runs"
    root.mkdir(parents=True)
    assert "a path with ? or %" in refused(None, root)
    monkeypatch.chdir(root)
    assert "a path with ? or %" in refused("sqlite:///mlflow.db", tmp_path)
    assert list(root.iterdir()) == [] and [path.name for path in tmp_path.iterdir()] == [name]


def test_the_environment_has_versions_and_machine():
    found = environment()
    assert found.keys() >= {"python", "torch", "diffusers", "transformers", "av", "platform", "cpu_count"}
    assert int(found["cpu_count"]) >= 1


def test_git_state_has_the_commit_and_uncommitted_changes(tmp_path: Path):
    def git(*arguments: str) -> None:
        named = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert git_state(tmp_path) == {}
    git("init", "-b", "main")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    (tmp_path / ".venv").mkdir()
    git("add", ".")
    git("commit", "-m", "first")
    assert "folder" not in git_state(Path(stav2a.__file__).parent)
    state = git_state(tmp_path)
    assert state.pop("folder") == str(tmp_path.resolve())
    assert len(state["commit"]) == 40
    assert (state["branch"], state["dirty"]) == ("main", "no")
    (tmp_path / "new").touch()
    assert git_state(tmp_path)["dirty"] == "yes"
    assert git_state(tmp_path / ".venv") == {}  # an installed package is not the checkout around it


def history(root: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(root).get_metric_history(run_id, name)]


def test_a_continued_run_has_each_point_once(root: Path):
    def log(steps: range, run_id: str | None) -> str:
        with connect(None, root, experiment="spine", run_name="killed", run_id=run_id) as run:
            for step in steps:
                run.log_metrics({"joint/loss": 1 / step, "nothing": math.nan}, step=step)
            return str(run.run_id)

    run_id = log(range(1, 21), None)
    assert log(range(1, 41), run_id) == run_id
    assert history(root, run_id, "joint/loss") == [(step, 1 / step) for step in range(1, 41)]
    assert len(history(root, run_id, "nothing")) == 40


def half_made(database: Path) -> None:
    """What a process left that was killed while MLflow made its tables."""
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER NOT NULL)")
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('90e64c465722')")


@pytest.mark.parametrize("leave", [half_made, Path.touch])
def test_a_half_made_database_is_made_anew(tmp_path: Path, leave):
    leave(tmp_path / "mlflow.db")
    with connect(None, tmp_path, experiment="spine", run_name="cn") as run:
        run.log_metrics({"loss": 1.0}, step=1)
        run_id = str(run.run_id)
    assert history(tmp_path, run_id, "loss") == [(1, 1.0)]
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.fixture
def older(root: Path, tracked: str, tmp_path: Path) -> Path:
    """A database of an older MLflow, as that makes it."""
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(root / "mlflow.db") as connection:
        connection.execute("VACUUM INTO ?", [str(database)])
    connection.close()
    change(
        database,
        *(f"DELETE FROM {each}" for each in ("latest_metrics", "metrics", "params", "tags", "runs")),
        "DELETE FROM experiments WHERE experiment_id != 0",
        "UPDATE alembic_version SET version_num = '90e64c465722'",
    )
    return database


def change(database: Path, *statements: str) -> None:
    with sqlite3.connect(database) as connection:
        for each in statements:
            connection.execute(each)
    connection.close()


def test_an_empty_database_of_another_mlflow_is_moved_aside(older: Path):
    before = older.read_bytes()
    with connect(None, older.parent, experiment="spine", run_name="cn") as run:
        run.wait()
    assert older.with_name("mlflow.db.half-made").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "INSERT INTO registered_models (name, workspace) VALUES ('hers', 'default')",
        "INSERT INTO experiments (experiment_id, name, workspace) VALUES (1, 'hers', 'default')",
        "UPDATE experiments SET name = 'hers'",
    ],
)
def test_a_database_of_another_mlflow_is_left_as_it_is(older: Path, content: str):
    change(older, content)
    before = older.read_bytes()
    uri = f"sqlite:///{older}"
    assert refused(uri, older.parent) == (
        f"--tracking-uri is {uri}: it was written by another MLflow version.\n  Upgrade it, after a copy "
        f"({module_command('mlflow')} db upgrade {uri}), or choose another. "
        "--tracking-uri none tracks nothing."
    )
    assert older.read_bytes() == before


def test_several_runs_at_once_make_one_database(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from stav2a.experiments.tracking import connect\n"
        "with connect(None, Path(sys.argv[1]), experiment='spine', run_name='cn') as run: run.wait()"
    )
    line = [sys.executable, "-c", program, str(tmp_path)]
    started = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(each.communicate()[1], each.returncode)[1] for each in started] == [0, 0, 0]
    store = resolve(None, tmp_path)
    assert store is not None and len(store.runs({})) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_run_is_looked_for_by_its_identifier(root: Path, tracked: str, tmp_path: Path):
    kept, missing = resolve(None, root), resolve(None, tmp_path)
    assert kept and missing and kept.may_hold(tracked)
    assert not kept.may_hold("it's") and not kept.may_hold("' OR ''='") and not missing.may_hold(tracked)
    half_made(tmp_path / "mlflow.db")
    assert not missing.may_hold(tracked)
    (tmp_path / "mlflow.db").write_bytes(b"scribbled over" * 1000)
    assert not missing.may_hold(tracked)


def test_a_database_that_is_locked_may_hold_a_run(tmp_path: Path):
    store = resolve(None, tmp_path)
    assert store
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("CREATE TABLE runs (run_uuid, lifecycle_stage)")
        other.commit()
        other.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
            assert store.may_hold("a")
