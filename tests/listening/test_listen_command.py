"""`stav2a listen` as it is typed: what it says, what it refuses, and that killing it loses nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from stav2a.cli.main import main
from tests.listening.listening_examples import begun, film, folders, rate_all

ROOT = Path(__file__).parents[2]


def systems(root: Path) -> list[str]:
    return [f"{name}={folder}" for name, folder in folders(root).items()]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "error: give either --systems NAME=DIR"),
        (["--systems", "gt"], "expected NAME=VALUE, was given 'gt'"),
        (["--systems", "gt=x", "--clips", "0"], "--clips': Input should be greater than or equal to 1"),
        (["--systems", "gt=x", "--port", "70000"], "--port': Input should be less than or equal to 65535"),
        (
            ["--systems", "gt=x", "--report", "y"],
            "error: give either --systems NAME=DIR ..., to rate them, or --report DIR.",
        ),
    ],
)
def test_wrong_arguments_are_told(arguments, told, capsys):
    assert main(["listen", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_an_output_is_needed(capsys):
    assert main(["listen", "--systems", "gt=x"]) == 2
    assert (
        capsys.readouterr().err == "error: --output is missing: name the folder that shall hold the test.\n"
    )


def test_a_port_in_use_is_told_before_anything_is_made(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        output = tmp_path / "test"
        assert main(["listen", "--systems", *systems(tmp_path), "--output", str(output), "--port", port]) == 2
    assert f"--port {port} can't be used (Address already in use)" in capsys.readouterr().err
    assert not output.exists()


def test_too_few_clips_are_told(tmp_path, capsys):
    output = str(tmp_path / "test")
    assert (
        main(["listen", "--systems", *systems(tmp_path), "--output", output, "--port", str(free_port())]) == 1
    )
    assert "--clips 20, but all systems have 3 in common. Write --clips 3, or add clips." in (
        capsys.readouterr().err
    )


def test_an_output_that_is_a_file_is_told(tmp_path, capsys):
    film(tmp_path / "gt" / "x.mp4")
    (tmp_path / "test").touch()
    arguments = ["--systems", f"gt={tmp_path}/gt", "--output", str(tmp_path / "test")]
    assert main(["listen", *arguments, "--port", str(free_port())]) == 2
    assert f"--output {tmp_path}/test can't be written" in capsys.readouterr().err


def test_the_report_is_printed_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    test = begun(tmp_path)
    rate_all(test, "ada", lambda *_: 70)
    assert main(["listen", "--report", str(test.folder)]) == 0
    said = capsys.readouterr().out
    assert "Agreement between annotators" in said and said.endswith(f"{test.folder}/ratings.csv\n")
    assert (test.folder / "report.tex").exists()


def test_an_option_without_effect_is_told(tmp_path, capsys):
    main(["listen", "--report", str(tmp_path), "--output", str(tmp_path)])
    assert "warning: --output has no effect with --report." in capsys.readouterr().err
    main(["listen", "--systems", "gt=x", "--tracking-uri", "none"])
    assert "warning: --tracking-uri has no effect with --systems." in capsys.readouterr().err


def test_a_report_on_an_unknown_folder_is_told(tmp_path, capsys):
    assert main(["listen", "--report", str(tmp_path / "nothing")]) == 1
    assert "no listening test in it" in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


HERE = {**os.environ, "PYTHONPATH": str(ROOT)}


def started(arguments: list[str]) -> tuple[subprocess.Popen[str], str]:
    """The running command, and the address it serves."""
    command = [sys.executable, "-m", "stav2a", "listen", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=HERE)
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"http://\S+/", line):
            return process, found[0]
    raise AssertionError(process.stderr.read() if process.stderr else "")


def told(address: str, body: dict[str, object] | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"} if data else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_has_lost_nothing(tmp_path):
    arguments = ["--systems", *systems(tmp_path), "--clips", "2", "--output", str(tmp_path / "test")]
    process, address = started([*arguments, "--port", str(free_port())])
    videos = told(f"{address}session?annotator=ada")["videos"]
    for value, each in enumerate(videos, start=1):
        told(f"{address}played", {"annotator": "ada", "video": each["video"]})
        for scale in ("aq", "sa", "ta", "oq"):
            rating = {"annotator": "ada", "video": each["video"], "scale": scale, "value": value}
            told(f"{address}rating", rating)
    process.kill()
    process.wait()
    process, address = started([*arguments, "--port", str(free_port())])
    again = told(f"{address}session?annotator=ada")["videos"]
    assert process.stdout
    report = process.stdout.readline().removeprefix("the table: ")
    subprocess.run(report, shell=True, check=True, env=HERE)
    assert (tmp_path / "test" / "report.tex").exists()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert [set(each["ratings"].values()) for each in again] == [{n} for n in range(1, len(videos) + 1)]
    assert [each["video"] for each in again] == [each["video"] for each in videos]


@pytest.mark.parametrize("name", ["copies", "report.csv"])
def test_what_the_test_did_not_make_is_not_replaced(name, tmp_path, capsys):
    (tmp_path / name).mkdir()
    assert main(["listen", "--systems", "gt=x", "--output", str(tmp_path)]) == 2
    assert f"{tmp_path / name} is there already, and this command did not make it." in capsys.readouterr().err
    assert (tmp_path / name).is_dir()
