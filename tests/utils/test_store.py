import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stav2a.utils.files import write_bytes, write_json, write_text
from stav2a.utils.store import Store, StoreTask, in_turn, save_tensors

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def names(store: Store) -> set[str]:
    return {path.name for path in store.root.iterdir()}


def test_a_finished_entry_is_found_again(store):
    assert not store.has("stage", "a")
    with store.create("stage", "a") as folder:
        write_text(folder / "x.txt", "made")
        assert not store.has("stage", "a")  # not before it is finished
    assert store.has("stage", "a")
    assert (Store(store.root).path("stage", "a") / "x.txt").read_text() == "made"
    assert names(store) == {store.path("stage", "a").name}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_entry_that_fails_leaves_nothing(store, error):
    with pytest.raises(error), store.create("stage", "a") as folder:
        write_text(folder / "x.txt", "half")
        raise error
    assert not store.has("stage", "a")
    assert names(store) == set()


def test_an_entry_can_be_made_after_it_failed(store):
    with pytest.raises(ValueError), store.create("stage", "a"):
        raise ValueError
    with store.create("stage", "a") as folder:
        write_text(folder / "x.txt", "made")
    assert (store.path("stage", "a") / "x.txt").read_text() == "made"


def test_of_two_writers_the_first_to_finish_counts(store):
    with store.create("stage", "a") as slow:
        write_text(slow / "x.txt", "slow")
        with store.create("stage", "a") as fast:
            write_text(fast / "x.txt", "fast")
            assert slow != fast
    assert (store.path("stage", "a") / "x.txt").read_text() == "fast"
    assert names(store) == {store.path("stage", "a").name}


def test_an_entry_is_made_once(store):
    made = []

    def make(folder):
        made.append(folder)
        write_text(folder / "x.txt", "made")

    places = [store.obtain("stage", "a", make) for _ in range(2)]
    assert len(made) == 1 and places == [store.path("stage", "a")] * 2
    assert (places[0] / "x.txt").read_text() == "made"


MAKER = """
import pathlib, sys, time
from stav2a.utils.files import write_text
from stav2a.utils.store import Store

def make(folder):
    print("making", flush=True)
    sys.stdin.readline()
    write_text(folder / "x.txt", "made")

Store(pathlib.Path(sys.argv[1])).obtain("stage", "a", make)
"""


def maker(store: Store) -> subprocess.Popen:
    """Another process, which makes an entry and finishes it when it is told a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", MAKER, str(store.root)], cwd=ROOT, **pipes)


@pytest.mark.parametrize("ending", ["finishes", "is killed"])
def test_of_two_processes_the_second_waits_for_the_first(store, caplog, ending):
    with maker(store) as first:
        assert first.stdout.readline() == "making\n"

        def end():
            while not caplog.messages:  # until we wait
                time.sleep(0.01)
            first.communicate("go\n") if ending == "finishes" else first.kill()

        ends = threading.Thread(target=end)
        ends.start()
        found = store.obtain("stage", "a", lambda folder: write_text(folder / "x.txt", "ours"))
        ends.join()
    assert (found / "x.txt").read_text() == ("made" if ending == "finishes" else "ours")
    assert caplog.messages == [f"another process is making the stage in {store.root}: waiting for it"]


def test_kinds_and_keys_are_kept_apart(store):
    places = {store.path(kind, key) for kind in ("stage", "filter") for key in ("a", "b", "a" * 500, "../x")}
    assert len(places) == 8
    assert all(place.parent == store.root and len(place.name) < 50 for place in places)


def test_an_entry_with_a_name_bears_it(store):
    with store.create("stage", "a", "joint"):
        pass
    (folder,) = store.root.iterdir()
    assert folder == store.path("stage", "a", "joint") and folder.name.startswith("stage-joint-")
    assert store.partial("stage", "b", "joint").name.startswith("stage-joint-")


def test_checkpoints_are_kept_until_the_entry_is_finished(store):
    write_text(store.partial("stage", "a") / "checkpoint", "half way")
    write_text(store.partial("stage", "b") / "checkpoint", "another's")
    with pytest.raises(ValueError), store.create("stage", "a"):
        raise ValueError
    assert (store.partial("stage", "a") / "checkpoint").read_text() == "half way"
    with store.create("stage", "a"):
        pass
    assert list(store.partial("stage", "a").iterdir()) == []
    assert (store.partial("stage", "b") / "checkpoint").read_text() == "another's"


def test_a_checkpoint_is_no_entry(store):
    store.partial("stage", "a")
    assert not store.has("stage", "a")


def test_tensors_come_back_as_they_were_also_tied_ones(tmp_path):
    w = torch.randn(4, 3)
    tensors = {"w": w, "tied": w, "turned": w.T, "count": torch.tensor(3)}
    save_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], t) and found[name].dtype == t.dtype for name, t in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_files_are_replaced_whole(tmp_path):
    for content in ("long before", "new"):
        write_text(tmp_path / "x", content)
    assert (tmp_path / "x").read_text() == "new"
    write_bytes(tmp_path / "x", b"\x00\xff")
    assert (tmp_path / "x").read_bytes() == b"\x00\xff"
    write_json(tmp_path / "x", {"b": 1, "a": [1.5]})
    assert json.loads((tmp_path / "x").read_text()) == {"b": 1, "a": [1.5]}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_can_not_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x", {"kept": True})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x", {"bad": object()})
    assert json.loads((tmp_path / "x").read_text()) == {"kept": True}


def content(folder: Path, files: object) -> str:
    return json.dumps({"entry": folder.name, "files": files})


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


def replace_by_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


DAMAGES = {
    "flipped": lambda folder: (folder / "x.txt").write_text("mode"),
    "cut": lambda folder: (folder / "x.txt").write_text("ma"),
    "empty": lambda folder: (folder / "x.txt").write_text(""),
    "missing": lambda folder: (folder / "x.txt").unlink(),
    "hashes flipped": lambda folder: (folder / "content.json").write_text("{}"),
    "hashes missing": lambda folder: (folder / "content.json").unlink(),
    "hashes of none": lambda folder: (folder / "content.json").write_text(content(folder, {})),
    "hashes in a list": lambda folder: (folder / "content.json").write_text(content(folder, ["x.txt"])),
    "a folder in its place": lambda folder: replace_by_folder(folder / "x.txt"),
    "a folder in the hashes' place": lambda folder: replace_by_folder(folder / "content.json"),
    "a file in the entry's place": replace_by_file,
    "a dangling link in the entry's place": replace_by_link,
    "hashes cut": lambda folder: (folder / "content.json").write_text('{"en'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("together", [False, True])
def test_a_damaged_entry_is_set_aside_and_made_again(store, damage, together, caplog):
    def make(folder):
        write_text(folder / "x.txt", "made")

    def obtain():
        return (
            store.obtain_together("stage", "a", lambda: make)
            if together
            else store.obtain("stage", "a", make)
        )

    damage(obtain())
    assert (obtain() / "x.txt").read_text() == "made"
    (message,) = caplog.messages
    assert message.startswith(f"{store.path('stage', 'a')} is damaged: ")
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert store.find("stage", "a") == store.path("stage", "a") and len(caplog.messages) == 1


def test_an_entry_in_the_place_of_another_is_damaged(store):
    for key in ("a", "b"):
        with store.create("stage", key) as folder:
            write_text(folder / "x.txt", key)
    shutil.rmtree(store.path("stage", "a"))
    store.path("stage", "b").rename(store.path("stage", "a"))
    assert store.find("stage", "a") is None


def test_a_file_that_can_not_be_read_is_no_damage(store):
    folder = store.obtain("stage", "a", lambda made: write_text(made / "x.txt", "made"))
    (folder / "x.txt").unlink()
    (folder / "x.txt").symlink_to("x.txt")  # any error of reading but a missing file
    with pytest.raises(OSError, match="symbolic links"):
        store.find("stage", "a")
    assert folder.is_dir()


def task(key: str, *needs: str) -> StoreTask:
    return StoreTask("stage", key, "", frozenset(needs), lambda: None)


def keys_in_turn(store: Store, *tasks: StoreTask) -> list[str]:
    return [each.key for each in in_turn(tasks, store, on_wait=lambda each: None)]


def test_a_task_comes_after_those_that_it_needs_and_the_one_that_most_wait_for_first(store):
    tasks = [task("alone"), task("late", "middle"), task("first"), task("middle", "first"), task("other")]
    assert keys_in_turn(store, *tasks) == ["first", "middle", "alone", "late", "other"]


def test_what_is_there_and_waited_for_comes_before_what_is_to_be_made_and_the_rest_of_it_last(store):
    for key in ("first", "unneeded"):
        with store.exclusive("stage", key), store.create("stage", key) as folder:
            write_text(folder / "x.txt", "made")
    tasks = [task("alone"), task("unneeded"), task("after", "first"), task("last", "after"), task("first")]
    assert keys_in_turn(store, *tasks) == ["first", "after", "alone", "last", "unneeded"]


def test_what_another_process_makes_comes_when_it_is_finished(store):
    waited = []
    with store.exclusive("stage", "first"):
        assert store.is_being_made("stage", "first") and not store.is_being_made("stage", "alone")
        tasks = [task("first"), task("after", "first"), task("alone")]
        turns = in_turn(tasks, store, on_wait=lambda each: waited.append(each.key))
        assert next(turns).key == "alone" and not waited

    def finish() -> None:
        with store.exclusive("stage", "first"), store.create("stage", "first") as folder:
            began.set()
            time.sleep(0.3)
            write_text(folder / "x.txt", "made")

    began = threading.Event()
    maker = threading.Thread(target=finish)
    maker.start()
    began.wait()
    assert next(turns).key == "first" and waited == ["first"] and store.has("stage", "first")
    maker.join()
    assert next(turns).key == "after" and next(turns, None) is None
