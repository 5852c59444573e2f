"""The page of a listening test, served to this machine alone.

No path of a request is ever a path on disk: the addresses are a fixed list, and videos are looked up by their
token. Ratings must be JSON, and sent by this page (`LocalServer`).
"""

import hashlib
import reprlib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from stav2a.listening.database import HIGHEST, LOWEST, NAMES, SCALES, ListenError, StorageError, Video
from stav2a.listening.setup import ListeningTest
from stav2a.reports.html import TEMPLATES, render
from stav2a.utils.local_server import LocalServer, RequestError, json_body

MAX_NAME = 40  # characters
EXAMPLE = '{"annotator": …, "video": …}'


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


class PageServer(LocalServer):
    """Server of one test.

    Args:
        test: The test.
        port: Port of this machine; 0 takes any that is free.
    """

    def __init__(self, test: ListeningTest, port: int) -> None:
        self.test = test
        super().__init__(pages(test), port)


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
        await run_in_threadpool(saving, test, await json_body(request, EXAMPLE))
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
        exception_handlers={
            ListenError: refused,
            RequestError: refused,
            ClientDisconnect: refused,
            HTTPException: refused,
        },
    )
