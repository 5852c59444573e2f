"""Server of the pages that commands show in a browser: to this machine alone, unless a host is named.

The Host header is checked, so that a page of another site can't reach this one through a host name of its
own, and what is sent must come from this page.
"""

import asyncio
import json
import logging
import socket
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from stav2a.utils.errors import StaV2AError
from stav2a.utils.network import ANY_HOST, HOST

MAX_BODY = 4096  # bytes of JSON
REQUEST_S = 10.0  # for a request to arrive whole
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; media-src 'self'; "
    "img-src data:; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RequestError(StaV2AError):
    """A request to a page that can't be read."""


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


class LocalServer(uvicorn.Server):
    """Server of an application.

    Args:
        pages: The application.
        port: Port of this machine; 0 takes any that is free.
        host: Address to listen on; 0.0.0.0 for all of this machine's.
    """

    def __init__(self, pages: ASGIApp, port: int, host: str = HOST) -> None:
        self.pages, self.host, self.socket = pages, host, socket.create_server((host, port))
        self.port = self.socket.getsockname()[1]
        self.address = f"http://{HOST if host == ANY_HOST else host}:{self.port}/"
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
                access_log=False,  # what people send is private
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
        headers = Headers(scope=scope)
        named = headers.get("host", "")
        known = {f"{name}:{self.port}" for name in (HOST, "localhost", self.host)}
        if self.host == ANY_HOST:  # its names are not known
            known.add(named)
        ours = named in known and headers.get("origin") in {None, *(f"http://{each}" for each in known)}
        refusal = JSONResponse({"error": f"open {self.address}"}, 403)
        await (self.pages if ours else refusal)(scope, receive, send)


async def json_body(request: Request, example: str) -> dict[str, Any]:
    """The JSON object that a request carries.

    Args:
        request: The request.
        example: An object of the kind that is expected, for messages.

    Raises:
        RequestError: It carries something else.
        HTTPException: It does not arrive in time.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RequestError("not JSON. Expected Content-Type: application/json.")
    content = b""
    try:
        async with asyncio.timeout(REQUEST_S):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY:
                    raise RequestError(f"more than {MAX_BODY} bytes. Expected one such as {example}.")
    except TimeoutError:
        late = f"it did not arrive within {REQUEST_S:g} s. Send it again."
        raise HTTPException(408, late, {"Connection": "close"}) from None
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RequestError(f"no JSON object. Expected one such as {example}.")
    return body
