"""`stav2a demo`: what its page does with a tiny model, what it refuses, and how it ends."""

import http.client
import json
import os
import signal
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stav2a import demo_page
from stav2a.cli.main import main
from stav2a.data.media import MediaError, mix_sounds, probe, read_audio, write_wav
from stav2a.data.mel import SAMPLE_RATE
from stav2a.data.struck_objects import CLASSES, StruckObjects
from stav2a.demo_page import Demo, GenerationRequest, pages
from stav2a.models.stav2a import STAV2A
from stav2a.pipeline import VideoToAudioPipeline
from stav2a.sampling import FastSampler, ddim
from stav2a.utils.errors import INTERRUPTED, UsageError
from stav2a.utils.local_server import LocalServer
from tests import tiny
from tests.cli.test_generate_command import FPS, write_video
from tests.cli.test_generate_command import run as run  # a fixture

FRAMES = 20


def pipeline(seed: int) -> VideoToAudioPipeline:
    model: STAV2A = tiny.model(seed)
    tiny.shake(model, seed=seed)
    settings: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0}
    return VideoToAudioPipeline(
        model, sampler=FastSampler, scheduler=ddim, prediction_type="epsilon", **settings
    )


@pytest.fixture(scope="module")
def pipes() -> dict[str, VideoToAudioPipeline]:
    return {"drums": pipeline(0), "bells": pipeline(1)}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    write_video(path, FRAMES)
    return path


@pytest.fixture
def demo(pipes, tmp_path) -> Iterator[Demo]:
    demo = Demo(pipes, tmp_path)
    yield demo
    demo.close()


@contextmanager
def serving(demo: Demo, **where: Any) -> Iterator[LocalServer]:
    """A server of the page, in a thread."""
    server = LocalServer(pages(demo), 0, **where)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


def given(demo: Demo, video: Path) -> str:
    """Token of a copy of a video."""
    copy = demo.folder / f"copy{len(demo.uploads)}"
    copy.write_bytes(video.read_bytes())
    return demo.keep(copy, "clip.mp4")


def finished(demo: Demo, token: str) -> dict[str, Any]:
    for _ in range(600):
        state = demo.state(token)
        if state["films"] or state["error"]:
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def ask(
    server: LocalServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read(), dict(answer.getheaders())
    connection.close()
    return answer.status, *content


def test_films_have_the_sounds_of_the_pipeline(demo, pipes, video, tmp_path):
    asked = {"prompt": "a low drum", "negative_prompt": "speech", "seed": 3, "variants": 2}
    more = {"num_inference_steps": 3, "guidance_scale": 4.0}
    token = demo.begin({"video": given(demo, video), **asked, **more})
    state = finished(demo, token)
    assert (state["error"], state["done"], state["steps"]) == ("", 6, 6)
    assert [each["seed"] for each in state["films"]] == [3, 4]
    expected = pipes["drums"](
        video, "a low drum", negative_prompt="speech", seed=3, num_waveforms_per_prompt=2, **more
    ).audios
    for film, audio in zip(demo.jobs[token].films, expected, strict=True):
        write_wav(tmp_path / "expected.wav", audio, SAMPLE_RATE)
        assert film.wav.read_bytes() == (tmp_path / "expected.wav").read_bytes()
        assert probe(film.mp4).duration_s == pytest.approx(FRAMES / FPS)


def test_the_films_own_sound_is_kept_where_it_is_asked_for(demo, video):
    asked = {"video": given(demo, video), "prompt": "a low drum"}
    films = []
    for more in ({}, {"own_gain_db": 0.0, "duck_db": 0.0}):
        token = demo.begin({**asked, **more})
        assert finished(demo, token)["error"] == ""
        films.append(demo.jobs[token].films[0])
    assert films[0].wav.read_bytes() == films[1].wav.read_bytes()
    own, alone, mixed = (read_audio(path, SAMPLE_RATE) for path in (video, films[0].mp4, films[1].mp4))
    length = min(map(len, (own, alone, mixed)))
    added = mixed[:length] - alone[:length]
    assert (
        np.corrcoef(added, own[:length])[0, 1] > 0.6 > np.corrcoef(alone[:length], own[:length])[0, 1] + 0.3
    )


def test_an_own_sound_is_lowered_while_the_new_one_is_loud():
    new = np.concatenate([np.zeros(4000), np.full(4000, 0.4), np.zeros(4000)])
    own = np.full(20_000, 0.2)
    mixed = mix_sounds(new, own, 16_000, own_gain_db=-20 * np.log10(2), duck_db=20.0)
    np.testing.assert_allclose(mixed[[100, 6000, 11_900]], [0.1, 0.4 + 0.01, 0.1], atol=1e-4)
    assert len(mixed) == 12_000 and mixed.dtype == np.float32
    assert np.abs(mix_sounds(new, 5 * own, 16_000)).max() == 1.0  # scaled down, never cut off


def test_a_film_without_sound_of_its_own_has_none_to_mix(demo, tmp_path):
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for picture in np.zeros((10, 32, 32, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    state = finished(demo, demo.begin({"video": given(demo, silent), "own_gain_db": 0}))
    assert state["error"] == "clip.mp4: no sound stream in it. Give a file with sound."


def test_a_blind_comparison_names_its_models_after_the_choice(demo, pipes, video):
    token = demo.begin({"video": given(demo, video), "prompt": "a bell", "blind": True, "seed": 1})
    state = finished(demo, token)
    assert [sorted(each) for each in state["films"]] == [["film", "remarks", "seed"]] * 2
    assert not any(name in json.dumps(state) for name in pipes)
    with pytest.raises(UsageError, match="choice = 'C': expected A, B or neither"):
        demo.choose(token, "C")
    told = demo.choose(token, "B")
    assert told["choice"] == "B" and {each["model"] for each in told["films"]} == set(pipes)
    assert demo.choose(token, "A")["choice"] == "B"  # once
    for film in demo.jobs[token].films:
        expected = pipes[film.model](video, "a bell", seed=1, output_type="audio").audios[0]
        assert film.wav.read_bytes() == expected


def test_a_job_can_be_stopped(demo, video):
    token = demo.begin({"video": given(demo, video), "num_inference_steps": 900})
    demo.job(token).stop.set()
    assert finished(demo, token)["error"] == "Stopped." and not demo.job(token).folder.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"models": ["none"]}, r"models = \['none'\]. Expected some of drums, bells."),
        ({"models": "drums"}, "models = 'drums'"),
        ({"models": ["drums", "bells"]}, "a comparison is of two different models"),
        ({"models": ["drums", "drums"], "blind": True}, "a comparison is of two different models"),
        ({"prompt": 3}, "prompt is no text of one line"),
        ({"prompt": "a\x00"}, "prompt is no text of one line"),
        ({"negative_prompt": "a" * 501}, "negative_prompt is no text of one line, of at most 500 characters"),
        ({"seed": -1}, "seed = -1: expected 0 to"),
        ({"seed": 1.5}, "seed = 1.5: expected a whole number from 0 to"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0: expected 1 to 999"),
        ({"guidance_scale": True}, "guidance_scale = True: expected a number from 0 to 1000"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan: expected 0 to 1000"),
        ({"variants": 9}, "variants = 9: expected 1 to 8"),
        ({"variants": 2, "blind": True}, "variants = 2: expected 1 to 1"),
        ({"own_gain_db": 21}, "own_gain_db = 21: expected -40.0 to 20.0"),
        ({"duck_db": -1}, "duck_db = -1: expected 0.0 to 40.0"),
    ],
)
def test_what_a_request_may_not_hold(body, message):
    with pytest.raises(UsageError, match=message):
        GenerationRequest.of(body, ["drums", "bells"])


def test_jobs_need_a_film_and_a_model_that_takes_them(demo, video, monkeypatch):
    with pytest.raises(UsageError, match="the video is not there any more. Give it again."):
        demo.begin({"video": "none"})
    token = given(demo, video)
    with pytest.raises(UsageError, match="drums has no weight of the video. Leave it out."):
        demo.begin({"video": token, "video_guidance_scale": 2.0})
    monkeypatch.setattr(demo_page, "WAITING", 0)
    with pytest.raises(UsageError, match="0 jobs are waiting already. Try again when one is done."):
        demo.begin({"video": token})


def test_what_is_no_film_is_one_line_and_is_removed(demo, video, monkeypatch):
    text = demo.folder / "text"
    text.write_text("no film")
    with pytest.raises(MediaError, match="^notes.mp4: not a readable video"):
        demo.keep(text, "notes.mp4")
    monkeypatch.setattr(demo_page, "LONGEST_S", 0.5)
    with pytest.raises(MediaError, match="^clip.mp4: 1 s long; at most 0.5 s are taken. Cut it."):
        given(demo, video)
    assert [*demo.folder.iterdir()] == []


def test_the_oldest_films_and_sounds_are_removed(demo, video, monkeypatch):
    monkeypatch.setattr(demo_page, "KEPT", 2)
    jobs = [demo.begin({"video": given(demo, video), "num_inference_steps": 1})]
    for _ in range(2):
        finished(demo, jobs[-1])
        jobs.append(demo.begin({"video": given(demo, video), "num_inference_steps": 1}))
    finished(demo, jobs[-1])
    assert (list(demo.jobs), len(demo.uploads)) == (jobs[1:], 2)
    kept = {upload.path for upload in demo.uploads.values()} | {demo.folder / each for each in jobs[1:]}
    assert set(demo.folder.iterdir()) == kept


def test_the_server_takes_films_and_gives_them_back(demo, video):
    with serving(demo) as server:
        film = {"Content-Type": "application/octet-stream"}
        status, answer, _ = ask(
            server, "POST", "/uploads?name=..%2Fmy%20clip.mp4", video.read_bytes(), **film
        )
        found = json.loads(answer)
        assert status == 200 and found["seconds"] == pytest.approx(FRAMES / FPS)
        assert ask(server, "GET", f"/uploads/{found['video']}")[1] == video.read_bytes()
        request = json.dumps({"video": found["video"]}).encode()
        status, answer, _ = ask(server, "POST", "/jobs", request, **{"Content-Type": "application/json"})
        token = json.loads(answer)["job"]
        finished(demo, token)
        (made,) = json.loads(ask(server, "GET", f"/jobs/{token}")[1])["films"]
        status, content, headers = ask(server, "GET", f"{made['wav']}?download")
        assert content == demo.jobs[token].films[0].wav.read_bytes()
        assert headers["content-disposition"] == "attachment; filename*=utf-8''my%20clip-0.wav"
        for path in (f"/films/{token}/1.mp4", "/films/x/0.mp4", "/jobs/x", "/uploads/x", "/../etc/passwd"):
            assert ask(server, "GET", path)[0] == 404


def test_examples_are_clips_of_the_benchmark_with_their_captions(demo, tmp_path_factory):
    clips = StruckObjects(train_clips=0, validation_clips=0, test_clips=len(CLASSES), vague_fraction=0.0)
    assert list(demo.examples) == list(CLASSES) and demo.folder.exists() and not demo.uploads
    asked = {"Content-Type": "application/json"}
    with serving(demo) as server:
        status, answer, _ = ask(server, "POST", "/examples/drum", b"{}", **asked)
        found = json.loads(answer)
        assert status == 200 and found["seconds"] == pytest.approx(2.56)
        film = ask(server, "GET", f"/uploads/{found['video']}")[1]
        (clip,) = [each for each in clips.clips(tmp_path_factory.mktemp("clips")) if each.label == "drum"]
        assert film == clip.video.read_bytes() and found["caption"] == clip.caption
        assert demo.uploads[found["video"]].name == "drum.mp4"
        status, answer, _ = ask(server, "POST", "/examples/horn", b"{}", **asked)
        assert status == 404 and json.loads(answer)["error"].startswith(
            "there is no example 'horn', only wood,"
        )
        assert ask(server, "POST", "/examples/drum", b"{}")[0] == 400
    assert len(demo.uploads) == 1


def test_the_server_refuses_what_the_page_does_not_send(demo, video, monkeypatch):
    monkeypatch.setattr(demo_page, "MAX_UPLOAD", 1000)
    film = {"Content-Type": "application/octet-stream"}
    with serving(demo) as server:
        status, answer, _ = ask(server, "POST", "/uploads?name=a.mp4", video.read_bytes(), **film)
        assert (status, json.loads(answer)) == (
            400,
            {"error": "a.mp4: larger than 0 MB. Cut it, or scale it down."},
        )
        assert ask(server, "POST", "/uploads?name=a.mp4", b"x", **{"Content-Type": "text/plain"})[0] == 400
        assert ask(server, "POST", "/uploads", b"x", Origin="http://else.where", **film)[0] == 403
        assert ask(server, "GET", "/", Host="else.where")[0] == 403
        assert ask(server, "POST", "/jobs", b"[]", **{"Content-Type": "application/json"})[0] == 400
    assert [*demo.folder.iterdir()] == []


def test_a_host_that_is_named_is_listened_on(demo):
    with serving(demo, host="0.0.0.0") as server:
        assert server.socket.getsockname()[0] == "0.0.0.0"
        assert ask(server, "GET", "/demo.js", Host="lab:1", Origin="http://lab:1")[0] == 200
        assert ask(server, "GET", "/demo.js", Host="lab:1", Origin="http://else.where")[0] == 403


def test_the_page_shows_what_models_are_made_of_and_asks_for_nothing_outside(demo):
    with serving(demo) as server:
        sent = [ask(server, "GET", path)[1].decode() for path in ("/", "/demo.js")]
    assert all(f"<code>{name}</code>" in sent[0] for name in ("local_head.onset", "sampler.fast"))
    assert "windows = [1, 2]" in sent[0] and "drums" in sent[0]
    assert not any("http://" in text or "https://" in text for text in sent)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --run or --model. --run takes a run's folder."),
        (["--run", "x", "--run", "x"], "x was given twice. Give each model once."),
        (["--run", "x", "--host", "192.0.2.1"], "--host 192.0.2.1 is no address of this machine"),
        (["--run", "x", "--host", "a b"], "--host a b is no address of this machine"),
    ],
)
def test_a_bad_call_is_one_line(words, message, capsys):
    assert main(["demo", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_serves_a_run_and_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: list[Any] = []

    def end_once_it_answers() -> None:
        for _ in range(300):
            time.sleep(0.1)
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/demo.js") as answer:
                seen.extend([answer.status, *(each.name for each in tmp_path.iterdir())])
                os.kill(os.getpid(), signal.SIGTERM)
                return

    before = signal.getsignal(signal.SIGTERM)
    ending = threading.Thread(target=end_once_it_answers, daemon=True)
    ending.start()
    try:
        code = main(["demo", "--run", str(run), "--host", "0.0.0.0", "--port", str(port)])
    finally:
        signal.signal(signal.SIGTERM, before)
        ending.join()
    out, err = capsys.readouterr()
    assert code == INTERRUPTED
    assert out == f"untrained\nopen http://127.0.0.1:{port}/ in a browser (Ctrl-C ends)\n"
    assert f"warning: everyone who reaches 0.0.0.0 port {port} can use this page, without a password" in err
    assert seen[0] == 200 and seen[1].startswith("stav2a-demo-") and [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_from_upload_to_download_in_a_browser(browser, demo, video, pipes, tmp_path):
    with serving(demo) as server:
        context = browser.new_context(viewport={"width": 390, "height": 800}, accept_downloads=True)
        tab = context.new_page()
        tab.set_default_timeout(15_000)
        said: list[str] = []
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(server.address)
        (tmp_path / "notes.mp4").write_text("no film")
        tab.locator("#sound-file").set_input_files(tmp_path / "notes.mp4")
        tab.locator("#sound-trouble", has_text="notes.mp4: not a readable video").wait_for()
        assert tab.locator("#sound-go").is_disabled()

        for label in ("wood", "jug"):
            tab.locator(f"[data-form=sound][data-example={label}]").click()
            tab.locator("#sound-name", has_text=f"{label}, 2.6 s").wait_for()
            tab.locator("#sound-go:enabled").wait_for()
            assert tab.locator("#prompt").input_value() == demo.examples[label].caption
        tab.locator("#prompt").fill("my own")
        tab.locator("[data-form=sound][data-example=wood]").click()
        tab.locator("#sound-name", has_text="wood, 2.6 s").wait_for()
        tab.locator("#sound-go:enabled").wait_for()
        assert tab.locator("#prompt").input_value() == "my own"

        tab.locator("#sound-file").set_input_files(video)
        tab.locator("#sound-name", has_text="clip.mp4, 0.8 s").wait_for()
        tab.locator("#prompt").fill("a low drum")
        tab.locator("#variants").fill("2")
        tab.locator("#sound-go").click()
        tab.locator("#sound-films video").nth(1).wait_for()
        with tab.expect_download() as download:
            tab.get_by_role("link", name="Save wav").nth(1).click()
        assert download.value.suggested_filename == "clip-1.wav"
        expected = pipes["drums"](video, "a low drum", seed=1, output_type="audio").audios[0]
        assert Path(download.value.path()).read_bytes() == expected

        tab.get_by_role("tab", name="Blind test").click()
        tab.locator("#blind-file").set_input_files(video)
        tab.locator("#blind-go:enabled").click()
        tab.get_by_role("button", name="Neither").click()
        tab.locator("#blind-told", has_text="You chose neither.").wait_for()
        assert tab.locator("#blind-told").text_content() in [
            f"A is {a}, B is {b}. You chose neither." for a, b in (("drums", "bells"), ("bells", "drums"))
        ]
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        context.close()
    assert said == []
