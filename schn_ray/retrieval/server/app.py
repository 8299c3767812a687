"""The search page and its JSON API as a web application (ASGI); ``local`` and
``cluster.serve`` run it.

A request can search for an image that it sends, for an id of the index or for a code, and read
indexed images. Nothing else:

- no address or path that a request names is ever read: only where the index says that an id lies;
- bytes and pixels are limited before anything is decoded;
- requests for another host name, or sent by another site, are refused.
"""

from __future__ import annotations

import importlib.resources
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.index.vectors import VECTORS
from schn_ray.retrieval.search import SearchLimits
from schn_ray.retrieval.server.description import (
    Operation,
    api_page,
    openapi_document,
    operations,
)
from schn_ray.retrieval.server.messages import (
    NoOptions,
    Refused,
    Requests,
    SearchAnswer,
    SearchByCode,
    SearchOptions,
    bounded_requests,
    parsed,
)
from schn_ray.retrieval.server.request_metrics import RequestMetrics
from schn_ray.retrieval.server.service import Service

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ALL_INTERFACES = ("0.0.0.0", "::")
_API_PAGE = "/api"
_FILES = {
    "/": "search.html",
    "/search.css": "search.css",
    "/search.js": "search.js",
    "/viewer.js": "viewer.js",
}
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
    """Build the web application.

    Args:
        service: searches, makes thumbnails, and reads originals.
    """
    requests = bounded_requests(service.config, service.index.bits, service.rescorings)
    known = operations(requests)
    document = openapi_document(known)
    gauges = {"index_rows": len(service.index), "index_codes": service.index.unique_codes}
    paths = [*(operation.path for operation in known), _API_PAGE, *_FILES]
    request_metrics = RequestMetrics(gauges)

    async def search(request: Request) -> Response:
        return _json(await _search(service, requests, request))

    async def examples(request: Request) -> Response:
        options = parsed(requests.examples, _parameters(request))
        return _json(await run_in_threadpool(service.examples, options))

    async def values(request: Request) -> Response:
        options = parsed(requests.values, _parameters(request))
        return _json(await run_in_threadpool(service.values, options))

    async def image(request: Request) -> Response:
        content, kind = await run_in_threadpool(service.thumbnail, request.path_params["id"])
        return Response(content, media_type=kind, headers={"cache-control": "max-age=3600"})

    async def original(request: Request) -> Response:
        id = request.path_params["id"]
        content, kind = await run_in_threadpool(service.original, id)
        name = quote(id.rsplit("/", 1)[-1], safe="")
        headers = {
            "cache-control": "no-cache",  # so that a file that is gone is said
            "content-disposition": f"inline; filename*=UTF-8''{name}",
        }
        return Response(content, media_type=kind, headers=headers)

    async def healthz(_: Request) -> Response:
        return _json(service.health())

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(request_metrics.text())

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    async def api(request: Request) -> Response:
        server = str(request.base_url).rstrip("/")
        return HTMLResponse(api_page(document, known, server))

    async def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path[:80]
        why = f"{request.method} is not what {path} answers"
        if error.status_code == 404:
            why = f"no such path {path!r}{nearest(path, paths)}"
        return JSONResponse({"error": why}, error.status_code, error.headers)

    answers = {each.__name__: each for each in (examples, image, original, healthz, metrics)}
    answers |= {"search": search, "openapi": openapi, "values": values}
    return Starlette(
        routes=[
            *(_route_of(operation, answers[operation.name]) for operation in known),
            Route(_API_PAGE, api),
            *(Route(path, _file(name)) for path, name in _FILES.items()),
        ],
        exception_handlers={
            Refused: _refusal,
            SchnRayError: _broken,
            HTTPException: missing,
        },
        middleware=[
            Middleware(_CountRequests, request_metrics=request_metrics, paths=paths),
            Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(service.config)),
        ],
    )


def _route_of(operation: Operation, answer: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return the route of an operation; parameters that it does not have are refused."""

    async def checked(request: Request) -> Response:
        if operation.options is NoOptions:
            parsed(NoOptions, _parameters(request))
        return await answer(request)

    path = operation.path.replace("{id}", "{id:path}")
    return Route(path, checked, methods=[operation.method])


def _json(answer: BaseModel) -> JSONResponse:
    return JSONResponse(answer.model_dump(exclude_none=True))


def _parameters(request: Request) -> dict[str, str]:
    """Return the parameters of an address, each once."""
    parameters = request.query_params
    for name in parameters:
        if len(parameters.getlist(name)) > 1:
            raise Refused(400, f"{name[:40]!r} is given more than once")
    return dict(parameters)


async def _search(service: Service, requests: Requests, request: Request) -> SearchAnswer:
    if _is_from_another_site(request.headers, service.config.hosts):
        raise Refused(403, "another site sent this request")
    body = await _body(request, service.config.max_bytes)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        raise Refused(415, "send the image's bytes as the body: curl --data-binary @photo.jpg")
    if kind != "application/json":
        limits = _limits(parsed(requests.image, _parameters(request)))
        return await run_in_threadpool(service.search_image, body, limits)
    if request.query_params:
        raise Refused(400, "options of a JSON request stand in its body, not in the address")
    try:
        query = parse_json(body, "the body")
    except BadDocument as error:
        raise Refused(400, str(error)) from error
    if not isinstance(query, dict) or len({"id", "code"} & query.keys()) != 1:
        raise Refused(400, _what_to_send(query))
    if "id" in query:
        by_id = parsed(requests.id, query)
        return await run_in_threadpool(service.search_id, by_id.id, _limits(by_id))
    by_code = parsed(requests.code, query)
    return await run_in_threadpool(
        service.search_code, by_code.code, _limits(by_code), by_code.sha256
    )


def _what_to_send(query: Any) -> str:
    near = ""
    if isinstance(query, dict) and not {"id", "code"} & query.keys():
        unknown = [name for name in query if name not in SearchByCode.model_fields]
        near = nearest(unknown[0][:40], ["id", "code"]) if unknown else ""
    return f'send {{"id": ...}} or {{"code": ...}}, one of the two{near}'


def _limits(options: SearchOptions) -> SearchLimits:
    if options.oversample is not None and options.rescore not in VECTORS:
        raise Refused(400, f"oversample goes with rescore={' or '.join(VECTORS)} only")
    return SearchLimits(
        options.k, options.radius, options.rescore, options.oversample, options.where
    )


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

    def __init__(self, app: ASGIApp, request_metrics: RequestMetrics, paths: Sequence[str]) -> None:
        self._app, self._metrics, self._paths = app, request_metrics, paths

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
            seconds = time.perf_counter() - started
            self._metrics.count(self._route(scope["path"]), status, seconds)

    def _route(self, path: str) -> str:
        """Return the route of a path; "other" for all unknown ones, so that metrics stay few."""
        for known in self._paths:
            stem, has_id, _ = known.partition("/{id}")
            if path == known or (has_id and path.startswith(f"{stem}/")):
                return stem
        return "other"
