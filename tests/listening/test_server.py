"""What the server gives, and what it refuses."""

import http.client
import json
import socket
import struct
import time

import pytest

from stav2a.utils import local_server
from tests.listening.listening_examples import SYSTEMS, begun, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    test = begun(tmp_path_factory.mktemp("server"))
    with serving(test) as server:
        yield server


def ask(server, method, path, body=None, **headers):
    """Status, headers and content of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if body is not None else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, sent, kind | named)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def error(server, body, path="/rating", **headers):
    status, _, content = ask(server, "POST", path, body, **headers)
    return status, json.loads(content).get("error")


def session(server, name):
    return json.loads(ask(server, "GET", f"/session?annotator={name}")[2])


def test_it_listens_on_this_machine_alone(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_nothing_that_is_sent_tells_the_system(server):
    sent = [ask(server, "GET", path)[2].decode() for path in ("/", "/listen.js", "/session?annotator=ada")]
    names = [*server.test.clips, *SYSTEMS, *(str(server.test.folder),)]
    assert [name for name in names for text in sent if f'"{name}' in text or f"/{name}" in text] == []
    assert set(session(server, "ada")["videos"][0]) == {"video", "seconds", "played", "ratings"}


def test_a_rating_is_kept_and_given_back(server):
    first = session(server, "Cy")["videos"][0]["video"]
    rating = {"annotator": " CY ", "video": first, "scale": "oq", "value": 87}
    assert error(server, rating) == (200, None)
    assert error(server, {"annotator": "cy", "video": first}, "/played") == (200, None)
    assert session(server, "cy")["videos"][0] == {
        "video": first, "seconds": pytest.approx(0.6, abs=0.07), "played": True, "ratings": {"oq": 87},
    }  # fmt: skip
    assert session(server, "dan")["videos"][0]["ratings"] == {}


@pytest.mark.parametrize("value", [0, 101, -5, 3.5, True, "50", None, [50]])
def test_a_rating_out_of_range_is_refused(server, value):
    body = {"annotator": "eve", "video": server.test.videos[0].token, "scale": "oq", "value": value}
    assert error(server, body) == (400, f"value is {value!r}. Expected a whole number from 1 to 100.")
    assert server.test.database.ratings("eve") == []


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"scale": "zq"}, 400, "scale is 'zq'. Expected one of aq, sa, ta, oq."),
        ({"scale": ["oq"]}, 400, "scale is ['oq']. Expected one of aq, sa, ta, oq."),
        ({"video": "../ratings.sqlite"}, 404, "there is no such video in this test. Load the page again."),
        ({"annotator": " "}, 400, "the name is ' '. Expected 1 to 40 characters."),
        (
            {"annotator": "x" * 41},
            400,
            "the name is 'xxxxxxxxxxxx...xxxxxxxxxxxxx'. Expected 1 to 40 characters.",
        ),
        ({"annotator": 7}, 400, "the name is 7. Expected 1 to 40 characters."),
        ({"annotator": "a\u0000b"}, 400, "the name is 'a\\x00b'. Expected 1 to 40 characters."),
    ],
)
def test_other_nonsense_is_refused(server, changes, status, told):
    body = {"annotator": "eve", "video": server.test.videos[0].token, "scale": "oq", "value": 50}
    assert error(server, body | changes) == (status, told)
    assert server.test.database.ratings("eve") == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"x" * 5000, "more than 4096 bytes"),
        (b"[" * 4000, "no JSON object"),
    ],
)
def test_what_is_no_rating_is_refused(server, body, told):
    status, said = error(server, body)
    assert status == 400 and said.startswith(told)


def test_a_body_without_a_length_is_bounded_as_well(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    pieces = (b" " * 1000 for _ in range(100))
    connection.request("POST", "/rating", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, "more than 4096 bytes" in answer.read().decode()) == (400, True)
    connection.close()


def test_nested_values_are_refused(server):
    body = {"annotator": "eve", "video": server.test.videos[0].token, "scale": "oq", "value": 50}
    for key in body:
        nested = json.dumps(body | {key: 0}).replace(" 0", "[" * 400 + "]" * 400).encode()
        assert error(server, nested)[0] in (400, 404)
    assert server.test.database.ratings("eve") == []


def test_a_form_of_another_site_is_refused(server):
    status, said = error(server, b"a=b", Content_Type="text/plain")
    assert (status, said) == (400, "not JSON. Expected Content-Type: application/json.")
    assert error(server, {}, Origin="http://evil.example")[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example:1"])
def test_another_host_name_is_refused(server, host):
    status, _, content = ask(server, "GET", "/session?annotator=ada", Host=host)
    assert status == 403 and json.loads(content) == {"error": f"open {server.address}"}


@pytest.mark.parametrize(
    "path",
    [
        "/../ratings.sqlite",
        "/videos/../ratings.sqlite",
        "/videos/%2e%2e/ratings.sqlite",
        "/videos/" + "0" * 32 + ".mp4",
        "/ratings.sqlite",
        "//etc/passwd",
        "/copies/",
    ],
)
def test_no_path_leads_to_other_files(server, path):
    status, _, content = ask(server, "GET", path)
    assert status == 404 and "error" in json.loads(content)


def test_videos_are_served_in_parts(server):
    video = server.test.videos[0]
    whole = server.test.path(video).read_bytes()
    address = f"/videos/{video.token}.mp4"
    status, headers, content = ask(server, "GET", address)
    assert (status, content, headers["Accept-Ranges"]) == (200, whole, "bytes")
    status, headers, content = ask(server, "GET", address, Range="bytes=10-19")
    assert (status, content) == (206, whole[10:20])
    assert headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    assert ask(server, "GET", address, Range="bytes=-5")[2] == whole[-5:]
    assert ask(server, "GET", address, Range=f"bytes={len(whole)}-")[0] == 416


def test_a_connection_that_is_broken_off_is_no_error(server, capfd, caplog):
    video = server.test.videos[0]
    host = f"HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    request = f"GET /videos/{video.token}.mp4 {host}\r\n"
    half = f"POST /rating {host}Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{{"
    for sent in (request.encode(), b"GET /", half.encode()):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
            connection.sendall(sent)
            if sent.endswith(b"\r\n\r\n"):
                connection.recv(100)
    time.sleep(0.2)
    assert ask(server, "GET", "/")[0] == 200
    assert (capfd.readouterr().err, caplog.text) == ("", "")


def test_a_connection_whose_request_never_comes_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(local_server, "REQUEST_S", 0.3)
    with serving(begun(tmp_path)) as server:
        host = f"HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        half = f"POST /rating {host}Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{{"
        answers = []
        for sent in (half.encode(), b"", b"GET / HTT"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(sent)
                with connection.makefile("rb") as file:
                    answers.append(file.read())  # to the end: the server closes it
        assert ask(server, "GET", "/")[0] == 200
    assert answers[0].startswith(b"HTTP/1.1 408 ")
    assert b"it did not arrive within 0.3 s. Send it again." in answers[0]
    assert answers[1:] == [b"", b""]


def test_it_ends_in_silence_while_a_video_is_paused(tmp_path, caplog):
    test = begun(tmp_path)
    video = test.videos[0]
    test.path(video).write_bytes(bytes(50_000_000))  # more than the buffers between the two programs hold
    with serving(test) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        host = f"HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
        connection.sendall(f"GET /videos/{video.token}.mp4 {host}".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
    connection.close()
    assert caplog.text == ""


def test_nothing_is_cached_and_nothing_is_framed(server):
    for path, host in (("/", None), ("/none", None), ("/", "evil.example")):
        headers = ask(server, "GET", path, **({"Host": host} if host else {}))[1]
        assert headers["Cache-Control"] == "no-store" and "server" not in headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_a_broken_database_is_told_to_the_page(tmp_path):
    test = begun(tmp_path)
    with serving(test) as server:
        test.database.path.write_bytes(b"scribbled over" * 1000)
        body = {"annotator": "ada", "video": test.videos[0].token, "scale": "oq", "value": 50}
        status, said = error(server, body)
    assert status == 500 and "damaged, or no database" in said
