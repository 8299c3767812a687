"""The search page and its JSON API as a web application (ASGI); ``cluster.serve`` runs it.

A request can search for an image that it sends, for an id of the index or for a code, and read
thumbnails of indexed images. Nothing else:

- no address that a request names is ever fetched;
- bytes and pixels are limited before anything is decoded;
- requests for another host name, or sent by another site, are refused.
"""

from __future__ import annotations

import importlib.resources
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.search import SearchLimits
from schn_ray.retrieval.server.request_metrics import RequestMetrics
from schn_ray.retrieval.server.service import Refused, Service

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ALL_INTERFACES = ("0.0.0.0", "::")
_FILES = {"/": "search.html", "/search.css": "search.css", "/search.js": "search.js"}
_MOST_OVERSAMPLE = 100
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_OPTIONS = ("k", "radius", "rescore", "oversample", "where")
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
    """Build the web application.

    Args:
        service: searches, and makes thumbnails.
    """
    gauges = {"index_rows": len(service.index), "index_codes": service.index.unique_codes}
    request_metrics = RequestMetrics(gauges)

    async def healthz(_: Request) -> Response:
        of_index = {"bits": service.index.bits, "columns": service.index.kinds}
        about = {"rescorings": service.rescorings}
        return JSONResponse({"status": "ok", **gauges, **of_index, **about})

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(request_metrics.text())

    async def image(request: Request) -> Response:
        content, kind = await run_in_threadpool(service.thumbnail, request.path_params["id"])
        return Response(content, media_type=kind, headers={"cache-control": "max-age=3600"})

    async def search(request: Request) -> Response:
        return JSONResponse(await _search(service, request))

    routes = [
        Route("/search", search, methods=["POST"]),
        Route("/image/{id:path}", image),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        *(Route(path, _file(name)) for path, name in _FILES.items()),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={Refused: _refusal, SchnRayError: _broken},
        middleware=[
            Middleware(_CountRequests, request_metrics=request_metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(service.config)),
        ],
    )


async def _search(service: Service, request: Request) -> dict[str, Any]:
    if _is_from_another_site(request.headers, service.config.hosts):
        raise Refused(403, "another site sent this request")
    body = await _body(request, service.config.max_bytes)
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        limits = _limits(dict(request.query_params), service)
        return await run_in_threadpool(service.search_image, body, limits)
    try:
        query = parse_json(body, "the body")
    except BadDocument as error:
        raise Refused(400, str(error)) from error
    searches = {"id": service.search_id, "code": service.search_code}
    named = [
        name for name in searches if isinstance(query, dict) and isinstance(query.get(name), str)
    ]
    if len(named) != 1 or query.keys() - {named[0], *_OPTIONS}:
        raise Refused(
            400,
            'send {"id": ...} or {"code": ...} with a string, and perhaps "k", "radius", '
            '"rescore", "oversample", "where"',
        )
    limits = _limits(query, service)
    return await run_in_threadpool(searches[named[0]], query[named[0]], limits)


def _is_from_another_site(headers: Headers, hosts: Sequence[str]) -> bool:
    """Tell whether a page of another origin sent a request, as far as a browser says.

    Browsers name the page's origin in every POST. One of another port of this machine is foreign,
    too. Behind a proxy that changes the host, ``ServeConfig.hosts`` names the page's.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("same-origin", "cross-site") or origin is None:
        return site == "cross-site"
    scheme, _, address = origin.lower().partition("://")
    host, port = headers.get("host", "").lower(), {"http": ":80", "https": ":443"}.get(scheme, ":")
    same = address.removesuffix(port) == host.removesuffix(port)
    return not address or not (same or re.sub(":[0-9]+$", "", address) in hosts)


def _limits(query: dict[str, Any], service: Service) -> SearchLimits:
    most = service.config.max_results

    def whole_number(name: str, least: int, default: int | None) -> int | None:
        given = query.get(name, default)
        text = str(given)
        if given is None or (text.isdecimal() and len(text) < 7 and int(text) >= least):
            return None if given is None else int(text)
        raise Refused(400, f"{name} is {text[:20]!r}; send a whole number from {least} on")

    k, radius = whole_number("k", 1, min(50, most)), whole_number("radius", 0, None)
    if k is None or k > most:
        raise Refused(400, f"k is {k}; send a number from 1 to {most}")
    oversample = whole_number("oversample", 1, None)
    if oversample is not None and oversample > _MOST_OVERSAMPLE:
        raise Refused(400, f"oversample is {oversample}; the most is {_MOST_OVERSAMPLE}")
    where = query.get("where")
    if where is not None and not isinstance(where, str):
        raise Refused(400, "where is no text")
    if where is not None and len(where) > (longest := service.config.max_filter):
        raise Refused(400, f"where has {len(where):,} characters; {longest:,} are the most")
    try:
        return SearchLimits(k, radius, query.get("rescore"), oversample, where)
    except SchnRayError as error:
        raise Refused(400, str(error)) from error


async def _body(request: Request, most: int) -> bytes:
    """Read a request's body; stop as soon as it is longer than ``most`` bytes."""
    length = request.headers.get("content-length", "0")
    content = bytearray()
    if not length.isdecimal() or int(length) <= most:
        async for piece in request.stream():
            content += piece
            if len(content) > most:
                break
        else:
            if content:
                return bytes(content)
            raise Refused(400, "the body is empty; send an image, or JSON")
    raise Refused(413, f"the body has more than {most:,} bytes")


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
    if config.host in _ALL_INTERFACES and not config.hosts:
        return ["*"]  # on all interfaces: the server's names are not known
    return [*_LOOPBACK, config.host, *config.hosts]


class _CountRequests:
    """Middleware: counts every request, and adds the headers that all responses have."""

    def __init__(self, app: ASGIApp, request_metrics: RequestMetrics) -> None:
        self._app, self._metrics = app, request_metrics

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
            self._metrics.count(_route(scope["path"]), status, time.perf_counter() - started)


def _route(path: str) -> str:
    """Return the route of a path; "other" for all unknown paths, so that metrics stay few."""
    routes = (*_FILES, "/search", "/healthz", "/metrics")
    return path if path in routes else "/image" if path.startswith("/image/") else "other"
