"""The search page and its JSON API as a web application; how it is run is not said here.

What a request may do is little: look for an image that it brings, for an id of the index or for a
code, and see thumbnails of indexed images. Nothing is fetched from an address that a request names,
bytes and pixels are capped before anything is decoded, and requests that name another host than
ours, or that another site sends, are refused.
"""

from __future__ import annotations

import importlib.resources
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.search import (
    SearchLimits,
)
from schn_ray.retrieval.server.request_metrics import RequestMetrics
from schn_ray.retrieval.server.service import Refused, Service

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANYWHERE = ("0.0.0.0", "::")
_FILES = {"/": "search.html", "/search.css": "search.css", "/search.js": "search.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


def application(service: Service) -> Starlette:
    """Return the web application."""
    traffic = RequestMetrics()
    gauges = {"index_rows": len(service.index), "index_codes": service.index.unique_codes}

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok", **gauges, "bits": service.index.bits})

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(traffic.text(gauges))

    async def image(request: Request) -> Response:
        content, kind = await run_in_threadpool(service.thumbnail, request.path_params["id"])
        return Response(content, media_type=kind, headers={"cache-control": "max-age=3600"})

    async def find(request: Request) -> Response:
        return JSONResponse(await _search(service, request))

    routes = [
        Route("/search", find, methods=["POST"]),
        Route("/image/{id:path}", image),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        *(Route(path, _file(name)) for path, name in _FILES.items()),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={Refused: _refusal, SchnRayError: _broken},
        middleware=[
            Middleware(_Counting, traffic=traffic),
            Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(service.config)),
        ],
    )


async def _search(service: Service, request: Request) -> dict[str, Any]:
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Refused(403, "another site sent this request")
    body = await _body(request, service.config.max_bytes)
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        wanted = _wanted(dict(request.query_params), service)
        return await run_in_threadpool(service.search_image, body, wanted)
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    work = {"id": service.search_id, "code": service.search_code}
    named = [name for name in work if isinstance(asked, dict) and isinstance(asked.get(name), str)]
    if len(named) != 1 or asked.keys() - {named[0], "k", "radius"}:
        raise Refused(400, 'wanted {"id": ...} or {"code": ...}, with "k" or "radius" or both')
    return await run_in_threadpool(work[named[0]], asked[named[0]], _wanted(asked, service))


def _wanted(asked: dict[str, Any], service: Service) -> SearchLimits:
    most = service.config.max_results

    def whole(name: str, least: int, default: int | None) -> int | None:
        given = asked.get(name, default)
        text = str(given)
        if given is None or (text.isdecimal() and len(text) < 7 and int(text) >= least):
            return None if given is None else int(text)
        raise Refused(400, f"{name} is {text[:20]!r}; wanted a whole number from {least} on")

    k, radius = whole("k", 1, min(50, most)), whole("radius", 0, None)
    if k is None or k > most:
        raise Refused(400, f"k is {k}; wanted 1 to {most}")
    return SearchLimits(k, radius)


async def _body(request: Request, most: int) -> bytes:
    """Read a body, no further than it may be long."""
    said = request.headers.get("content-length", "0")
    content = bytearray()
    if not said.isdecimal() or int(said) <= most:
        async for piece in request.stream():
            content += piece
            if len(content) > most:
                break
        else:
            if content:
                return bytes(content)
            raise Refused(400, "the body is empty; wanted an image, or JSON")
    raise Refused(413, f"more than {most:,} bytes")


def _file(name: str) -> Callable[[Request], Any]:
    content = (importlib.resources.files(__package__) / "pages" / name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=_TYPES[Path(name).suffix])

    return answer


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.why}, error.status)


async def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 500)


def _hosts(config: ServeConfig) -> list[str]:
    if config.host in _ANYWHERE and not config.hosts:
        return ["*"]  # whoever listens everywhere has names that we cannot know
    return [*_LOOPBACK, config.host, *config.hosts]


class _Counting:
    """Counts every request, and adds the headers that all answers have."""

    def __init__(self, app: ASGIApp, traffic: RequestMetrics) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._traffic.count(_route(scope["path"]), status, time.perf_counter() - started)


def _route(path: str) -> str:
    """Name a path's route; what is no route is one name, so that strangers cannot add more."""
    known = (*_FILES, "/search", "/healthz", "/metrics")
    return path if path in known else "/image" if path.startswith("/image/") else "other"
