"""The page of a listening test, served on this machine alone.

No path of a request is ever a path on the disk: there is a fixed list of addresses, and videos are looked up
by their token. The Host header is checked, so that another site's page can't reach us by a name of its own
that leads here; ratings must come as JSON and from our own page.
"""

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from stav2a.listening.database import HIGHEST, LOWEST, NAMES, SCALES
from stav2a.listening.material import ListenError, StorageError, Video
from stav2a.listening.setup import ListeningTest
from stav2a.reports.html import TEMPLATES, render
from stav2a.utils.network import HOST


def playlist(
    clips: Sequence[str], systems: Sequence[str], *, seed: int, annotator: str
) -> list[tuple[str, str]]:
    """All systems' versions of a clip one after another; clips, and the versions of each, in random order.

    The versions of a clip are next to each other so that they are rated against one another; which of them
    comes first is drawn anew for every clip, so that no system gains by its place.

    Args:
        clips: Their names.
        systems: Their names.
        seed: Of the test.
        annotator: Who listens: the same one always meets the same order.

    Returns:
        (clip, system) pairs.

    Example:
        >>> playlist(["dog", "bell"], ["a", "b"], seed=0, annotator="ada")
        [('bell', 'b'), ('bell', 'a'), ('dog', 'b'), ('dog', 'a')]
    """
    digest = hashlib.sha256(f"{seed}\n{annotator}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    return [
        (clips[clip], systems[system])
        for clip in rng.permutation(len(clips))
        for system in rng.permutation(len(systems))
    ]


MAX_NAME = 40


class NotFound(ListenError):
    """No such video in this test."""


def session(test: ListeningTest, name: str) -> dict[str, Any]:
    """A listener's videos in their order, and what is rated already.

    Raises:
        ListenError: The name can't be used.
    """
    annotator = annotator_of(name)
    by_place = {(video.clip, video.system): video for video in test.videos}
    order = playlist(test.clips, test.systems, seed=test.seed, annotator=annotator)
    heard = test.database.heard(annotator)
    rated: dict[tuple[str, str], dict[str, int]] = {}
    for rating in test.database.ratings(annotator):
        rated.setdefault((rating.clip, rating.system), {})[rating.scale] = rating.value
    videos = [
        {
            "video": by_place[place].token,
            "seconds": by_place[place].seconds,
            "heard": by_place[place].token in heard,
            "ratings": rated.get(place, {}),
        }
        for place in order
    ]
    return {"annotator": annotator, "versions": len(test.systems), "videos": videos}


def rate(test: ListeningTest, told: Mapping[str, Any]) -> None:
    """Keep a rating: annotator, video, scale, value.

    Raises:
        ListenError: One of them can't be; nothing is kept.
    """
    annotator, video = annotator_of(told.get("annotator")), video_of(test, told.get("video"))
    scale, value = told.get("scale"), told.get("value")
    if scale not in NAMES:
        raise ListenError(f"scale is {scale!r}. Expected one of {', '.join(NAMES)}.")
    if type(value) is not int or not LOWEST <= value <= HIGHEST:  # True is no rating
        raise ListenError(f"value is {value!r}. Expected a whole number from {LOWEST} to {HIGHEST}.")
    test.database.rate(annotator, video.token, scale, value)


def mark_heard(test: ListeningTest, told: Mapping[str, Any]) -> None:
    """Keep that a listener has played a video to its end: annotator, video."""
    test.database.mark_heard(annotator_of(told.get("annotator")), video_of(test, told.get("video")).token)


def video_of(test: ListeningTest, token: Any) -> Video:
    """The video of this token.

    Raises:
        NotFound: There is none.
    """
    for video in test.videos:
        if video.token == token:
            return video
    raise NotFound("there is no such video in this test. Load the page again.")


def annotator_of(name: Any) -> str:
    """A name as it is kept: spaces and capitals make no difference.

    Raises:
        ListenError: It is empty, too long, or no text.

    Example:
        >>> annotator_of("  Ada   Lovelace ")
        'ada lovelace'
    """
    words = " ".join(name.split()).casefold() if isinstance(name, str) else ""
    if not words or len(words) > MAX_NAME or not words.isprintable():
        raise ListenError(f"the name is {name!r}. Expected 1 to {MAX_NAME} characters.")
    return words


MAX_BODY = 4096  # bytes; a rating has a hundred
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; media-src 'self'; "
    "img-src data:; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Serves one test.

    Args:
        test: The test.
        port: Where to listen; 0 takes any that is free.
    """

    daemon_threads = True

    def __init__(self, test: ListeningTest, port: int) -> None:
        self.test = test
        self.page = render(
            "listen.html",
            title="Listening test",
            facts={},
            curves=None,
            details={},
            scales=SCALES,
            lowest=LOWEST,
            highest=HIGHEST,
            videos=len(test.videos),
            clips=len(test.clips),
            versions=len(test.systems),
            seconds=round(max(video.seconds for video in test.videos)),
        )
        super().__init__((HOST, port), Handler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that browsers break off: they do, once they have enough of a video."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stav2a", ""

    def do_GET(self) -> None:
        """The page, its script, a listener's session, a video."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A rating, or that a video was heard."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a name is nobody's business, and ratings are in the database."""

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            self._send("text/html; charset=utf-8", self.server.page.encode())
        elif url.path == "/listen.js":
            self._send("text/javascript; charset=utf-8", (TEMPLATES / "listen.js").read_bytes())
        elif url.path == "/session":
            name = parse_qs(url.query).get("annotator", [""])[0]
            self._send_json(session(self.server.test, name))
        elif match := re.fullmatch(r"/videos/([0-9a-f]{32})\.mp4", url.path):
            self._send_video(match[1])
        else:
            raise NotFound("there is no such page.")

    def _post(self) -> None:
        told = self._body()
        if self.path == "/rating":
            rate(self.server.test, told)
        elif self.path == "/heard":
            mark_heard(self.server.test, told)
        else:
            raise NotFound("there is no such page.")
        self._send_json({"kept": True})

    def _answer(self, work: Any) -> None:
        try:
            if self._is_ours():
                work()
            else:
                self._send_json({"error": f"open {self.server.address}"}, HTTPStatus.FORBIDDEN)
        except StorageError as error:
            self._send_json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)
        except NotFound as error:
            self._send_json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        except ListenError as error:
            self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _is_ours(self) -> bool:
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin in {f"http://{host}" for host in hosts}
        )

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True  # what was not read would be taken for the next request
            raise ListenError(f"the length is {length or 'not given'}. Expected at most {MAX_BODY} bytes.")
        body = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise ListenError("not JSON. Expected Content-Type: application/json.")
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ListenError('no JSON object. Expected one such as {"annotator": …, "video": …}.')
        return told

    def _send_video(self, token: str) -> None:
        """The whole file, or the part that was asked for: browsers seek by it."""
        path = self.server.test.path(video_of(self.server.test, token))
        try:
            file = path.open("rb")
        except OSError as error:
            raise StorageError(f"{path.name} can't be read ({error.strerror}).") from None
        with file:
            size = path.stat().st_size
            asked = self.headers.get("Range")
            part = byte_range(asked, size)
            if asked and part is None:
                self._begin(
                    "text/plain",
                    0,
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    {"Content-Range": f"bytes */{size}"},
                )
                return
            first, last = part or (0, size - 1)
            more = {"Content-Range": f"bytes {first}-{last}/{size}"} if part else {}
            status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
            self._begin("video/mp4", last - first + 1, status, {"Accept-Ranges": "bytes", **more})
            file.seek(first)
            self.wfile.write(file.read(last - first + 1))

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send("application/json", json.dumps(value).encode(), status)

    def _send(self, kind: str, content: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._begin(kind, len(content), status, {})
        self.wfile.write(content)

    def _begin(self, kind: str, length: int, status: HTTPStatus, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length), **more}.items():
            self.send_header(name, value)
        self.end_headers()


def byte_range(asked: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header; None where there is none that can be served.

    Example:
        >>> byte_range("bytes=2-", 10), byte_range("bytes=-3", 10), byte_range("bytes=2-50", 10)
        ((2, 9), (7, 9), (2, 9))
        >>> byte_range("bytes=10-", 10), byte_range("bytes=5-2", 10), byte_range("lines=1-2", 10)
        (None, None, None)
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if match is None or match[0] == "bytes=-":
        return None
    if match[1]:
        first, last = int(match[1]), int(match[2] or size - 1)
    else:
        first, last = max(0, size - int(match[2])), size - 1
    return (first, min(last, size - 1)) if first <= min(last, size - 1) else None
