"""The page of a listening test, served to this machine alone.

No path of a request is ever a path on disk: the addresses are a fixed list, and videos are looked up by their
token. The Host header is checked, so that a page of another site can't reach this one through a host name of
its own; ratings must be JSON, and sent by this page.
"""

import asyncio
import hashlib
import json
import logging
import reprlib
import socket
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from stav2a.listening.database import HIGHEST, LOWEST, NAMES, SCALES, ListenError, StorageError, Video
from stav2a.listening.setup import ListeningTest
from stav2a.reports.html import TEMPLATES, render
from stav2a.utils.network import HOST

MAX_NAME = 40  # characters
MAX_BODY = 4096  # bytes; a rating has a hundred
REQUEST_S = 10.0  # for a request to arrive whole
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; media-src 'self'; "
    "img-src data:; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def playlist(test: ListeningTest, annotator: str) -> list[Video]:
    """An annotator's videos: all versions of a clip one after another, clips in random order.

    The versions of a clip are next to each other so that they are rated against one another; which of them
    comes first is drawn anew for every clip, so that no system gains by its place. The order depends on the
    test's seed and the annotator's name alone.
    """
    digest = hashlib.sha256(f"{test.options['--seed']}\n{annotator}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    videos = {(video.clip, video.system): video for video in test.videos}
    return [
        videos[test.clips[clip], test.systems[system]]
        for clip in rng.permutation(len(test.clips))
        for system in rng.permutation(len(test.systems))
    ]


def session(test: ListeningTest, name: str) -> dict[str, Any]:
    """An annotator's videos in their order, and what is rated already.

    Raises:
        ListenError: The name can't be used.
    """
    annotator = annotator_of(name)
    played = test.database.played(annotator)
    ratings: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for rating in test.database.ratings(annotator):
        ratings[rating.clip, rating.system][rating.scale] = rating.value
    videos = [
        {
            "video": video.token,
            "seconds": video.seconds,
            "played": video.token in played,
            "ratings": ratings[video.clip, video.system],
        }
        for video in playlist(test, annotator)
    ]
    return {"annotator": annotator, "versions": len(test.systems), "videos": videos}


def rate(test: ListeningTest, body: Mapping[str, Any]) -> None:
    """Save a rating: annotator, video, scale, value.

    Raises:
        ListenError: One of them is not valid; nothing is saved.
    """
    annotator, video = annotator_of(body.get("annotator")), video_of(test, body.get("video"))
    scale, value = body.get("scale"), body.get("value")
    if scale not in NAMES:
        raise ListenError(f"scale is {reprlib.repr(scale)}. Expected one of {', '.join(NAMES)}.")
    if type(value) is not int or not LOWEST <= value <= HIGHEST:  # True is no rating
        raise ListenError(
            f"value is {reprlib.repr(value)}. Expected a whole number from {LOWEST} to {HIGHEST}."
        )
    test.database.rate(annotator, video.token, scale, value)


def mark_played(test: ListeningTest, body: Mapping[str, Any]) -> None:
    """Save that an annotator has played a video to its end: annotator, video."""
    test.database.mark_played(annotator_of(body.get("annotator")), video_of(test, body.get("video")).token)


def video_of(test: ListeningTest, token: Any) -> Video:
    """The video with this token.

    Raises:
        HTTPException: There is none.
    """
    for video in test.videos:
        if video.token == token:
            return video
    raise HTTPException(404, "there is no such video in this test. Load the page again.")


def annotator_of(name: Any) -> str:
    """A name in the form that is saved: spaces, capitals and the form of accents make no difference.

    Raises:
        ListenError: It is empty, too long, or no text.

    Example:
        >>> annotator_of("  Ada   Lovelace "), annotator_of("Zoe\u0308")
        ('ada lovelace', 'zoë')
    """
    words = unicodedata.normalize("NFC", " ".join(name.split()).casefold()) if isinstance(name, str) else ""
    if not words or len(words) > MAX_NAME or not words.isprintable():
        raise ListenError(f"the name is {reprlib.repr(name)}. Expected 1 to {MAX_NAME} characters.")
    return words


class TimedConnection(H11Protocol):
    """A connection that is closed where no request comes in time; uvicorn bounds the time between two."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._closing = self.loop.call_later(REQUEST_S, self._close_unasked)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._closing.cancel()
        self._closing = self.loop.call_later(REQUEST_S, self._close_unasked)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.cancel()
        super().connection_lost(exc)

    def _close_unasked(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class PageServer(uvicorn.Server):
    """Server of one test.

    Args:
        test: The test.
        port: Port of this machine; 0 takes any that is free.
    """

    def __init__(self, test: ListeningTest, port: int) -> None:
        self.test, self.socket = test, socket.create_server((HOST, port))
        self.port = self.socket.getsockname()[1]
        self.address = f"http://{HOST}:{self.port}/"
        self.pages = pages(test)
        super().__init__(
            uvicorn.Config(
                self._answer,
                interface="asgi3",
                proxy_headers=False,
                http=TimedConnection,
                ws="none",
                lifespan="off",
                headers=list(HEADERS.items()),
                server_header=False,
                access_log=False,  # names are private, and ratings are in the database
                log_config=None,
                log_level="error",
                limit_concurrency=64,
                timeout_graceful_shutdown=1,  # a video that is paused is never sent to its end
            )
        )

    def serve_forever(self) -> None:
        """Serve until Ctrl-C, or until `should_exit` is set."""
        self.run(sockets=[self.socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; a video that is cut off on its way is no error."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        origins = {None, *(f"http://{host}" for host in hosts)}
        headers = Headers(scope=scope)
        ours = headers.get("host") in hosts and headers.get("origin") in origins
        refusal = JSONResponse({"error": f"open {self.address}"}, 403)
        await (self.pages if ours else refusal)(scope, receive, send)


def pages(test: ListeningTest) -> Starlette:
    """Application with the page, its script, the annotators' sessions, the videos, and what they send."""

    def page(request: Request) -> Response:
        counts = {"clips": len(test.clips), "versions": len(test.systems), "videos": len(test.videos)}
        seconds = round(max(video.seconds for video in test.videos))
        scales = {"scales": SCALES, "lowest": LOWEST, "highest": HIGHEST}
        frame: dict[str, Any] = {"title": "Listening test", "facts": {}, "curves": None, "details": {}}
        return HTMLResponse(render("listen.html", seconds=seconds, **counts, **scales, **frame))

    def script(request: Request) -> Response:
        return FileResponse(TEMPLATES / "listen.js", media_type="text/javascript")

    def own_session(request: Request) -> Response:
        return JSONResponse(session(test, request.query_params.get("annotator", "")))

    def video(request: Request) -> Response:
        path = test.path(video_of(test, request.path_params["token"]))
        try:
            return FileResponse(path, media_type="video/mp4", stat_result=path.stat())
        except OSError as error:
            raise StorageError(f"{path.name} can't be read ({error.strerror}).") from None

    async def save(request: Request) -> Response:
        saving = {"/rating": rate, "/played": mark_played}[request.url.path]
        await run_in_threadpool(saving, test, await _body(request))
        return JSONResponse({"saved": True})

    def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        return JSONResponse({"error": str(error)}, 500 if isinstance(error, StorageError) else 400)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/listen.js", script),
            Route("/session", own_session),
            Route("/videos/{token}.mp4", video),
            Route("/rating", save, methods=["POST"]),
            Route("/played", save, methods=["POST"]),
        ],
        exception_handlers={ListenError: refused, ClientDisconnect: refused, HTTPException: refused},
    )


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ListenError("not JSON. Expected Content-Type: application/json.")
    content = b""
    try:
        async with asyncio.timeout(REQUEST_S):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY:
                    raise ListenError(f"more than {MAX_BODY} bytes. Expected a rating.")
    except TimeoutError:
        late = f"it did not arrive within {REQUEST_S:g} s. Send it again."
        raise HTTPException(408, late, {"Connection": "close"}) from None
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ListenError('no JSON object. Expected one such as {"annotator": …, "video": …}.')
    return body
