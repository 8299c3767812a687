"""The server's API, described: the table of what it answers, and OpenAPI and a page made of it.

``app`` makes its routes of the same table, so that no path is missing in the description.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schn_ray.core.settings import Section
from schn_ray.core.version import __version__
from schn_ray.retrieval.server.messages import (
    ColumnValues,
    Examples,
    Health,
    NoOptions,
    Refusal,
    Requests,
    SearchAnswer,
)

_SCHEMAS = "#/components/schemas/"
_WHY = {
    400: "A parameter or value that is unknown, missing or out of bounds; the nearest is named.",
    403: "Another site sent the request, or originals are not shown.",
    404: "No such id in the index, or its image cannot be read any more.",
    413: "The body is too long.",
    415: "The body is not an image that can be used.",
}


@dataclass(frozen=True)
class Operation:
    """One thing that the API does.

    Attributes:
        name: of the function that answers.
        method: of HTTP.
        path: with ``{id}`` where an id stands.
        summary: a line.
        options: parameters of the address.
        bodies: models of a JSON body, in place of an image; none for a request without a body.
        answer: model of the answer; None for another media type.
        media: media type of the answer.
        refusals: statuses of refusals.
        example: the rest of a curl command after the server's address; before it, ``curl``.
    """

    name: str
    method: str
    path: str
    summary: str
    options: type[Section]
    example: str
    bodies: tuple[type[Section], ...] = ()
    answer: type[BaseModel] | None = None
    media: str = "application/json"
    refusals: tuple[int, ...] = (400,)


def operations(requests: Requests) -> list[Operation]:
    """Return all that the API does.

    Args:
        requests: models of requests with the bounds of the server.
    """
    return [
        Operation(
            "search",
            "POST",
            "/search",
            "Search for an image (the body is its file), or as JSON for an id or a code; the "
            "options of an image stand in the address, those of JSON in the body.",
            requests.image,
            "--data-binary @photo.jpg '{server}/search?k=5'",
            (requests.id, requests.code),
            SearchAnswer,
            refusals=(400, 403, 404, 413, 415),
        ),
        Operation(
            "examples",
            "GET",
            "/examples",
            "Some indexed images to begin with.",
            requests.examples,
            "'{server}/examples?k=5'",
            answer=Examples,
        ),
        Operation(
            "values",
            "GET",
            "/values",
            "The values of a column, such as the classes, and how many images have each.",
            requests.values,
            "'{server}/values?column=label'",
            answer=ColumnValues,
        ),
        Operation(
            "image",
            "GET",
            "/image/{id}",
            "A thumbnail of an indexed image; its id may have slashes.",
            NoOptions,
            "-o thumbnail.jpg '{server}/image/cats/001.jpg'",
            media="image/*",
            refusals=(400, 404),
        ),
        Operation(
            "original",
            "GET",
            "/original/{id}",
            "The file of an indexed image, as it is now.",
            NoOptions,
            "-o 001.jpg '{server}/original/cats/001.jpg'",
            media="image/*",
            refusals=(400, 403, 404),
        ),
        Operation(
            "healthz",
            "GET",
            "/healthz",
            "What is served, for probes and for the page.",
            NoOptions,
            "'{server}/healthz'",
            answer=Health,
        ),
        Operation(
            "metrics",
            "GET",
            "/metrics",
            "Counts and times of requests, for Prometheus; of one replica.",
            NoOptions,
            "'{server}/metrics'",
            media="text/plain",
        ),
        Operation(
            "openapi",
            "GET",
            "/openapi.json",
            "This description, as OpenAPI 3.1.",
            NoOptions,
            "'{server}/openapi.json'",
        ),
    ]


def openapi_document(known: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        known: of ``operations``.
    """
    models: list[type[BaseModel]] = [Refusal]
    for operation in known:
        models += [*operation.bodies, *([operation.answer] if operation.answer else [])]
    both = {model: model for model in models}
    _, schemas = models_json_schema(
        [(model, "validation") for model in both], ref_template=_SCHEMAS + "{model}"
    )
    paths: dict[str, Any] = {}
    for operation in known:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "schn-ray serve",
            "version": __version__,
            "description": "Exact search among the binary codes of images.",
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _described(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if operation.answer is not None:
        answer = {"schema": {"$ref": _SCHEMAS + operation.answer.__name__}}
    refused = {"application/json": {"schema": {"$ref": _SCHEMAS + Refusal.__name__}}}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {
            "200": {"description": "The answer.", "content": {operation.media: answer}},
            **{
                str(status): {"description": _WHY[status], "content": refused}
                for status in operation.refusals
            },
        },
    }
    if operation.bodies:
        either = [{"$ref": _SCHEMAS + body.__name__} for body in operation.bodies]
        described["requestBody"] = {
            "required": True,
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "application/json": {"schema": {"anyOf": either}},
            },
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = operation.options.model_json_schema()
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.pop("description", ""),
            "schema": field,
        }
        for name, field in schema.get("properties", {}).items()
    ]
    if "{id}" in operation.path:
        what = "Of the image; slashes may stay, other special characters are percent-encoded."
        first = {"name": "id", "in": "path", "required": True, "description": what}
        parameters.insert(0, first | {"schema": {"type": "string"}})
    return parameters


def api_page(document: dict[str, Any], known: Sequence[Operation], server: str) -> str:
    """Return the description as a page.

    Args:
        document: of ``openapi_document``.
        known: of ``operations``.
        server: address of the server, for the examples.
    """
    template = (importlib.resources.files(__package__) / "pages" / "api.html.jinja").read_text()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = schema_text
    examples = {each.name: "curl " + each.example.replace("{server}", server) for each in known}
    return environment.from_string(template).render(document=document, examples=examples)


def schema_text(schema: dict[str, Any]) -> str:
    """Say in a few words what a value may be.

    Args:
        schema: of JSON Schema.

    Example:
        >>> schema_text({"type": "integer", "minimum": 1, "maximum": 50, "default": 10})
        'integer, 1 to 50, default 10'
    """
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            schema = each | {"default": schema.get("default")}
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_SCHEMAS)
    kind = str(schema.get("type", "any"))
    if "items" in schema:
        kind = f"list of {schema_text(schema['items'])}"
    elif "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        kind = f"object of {schema_text(schema['additionalProperties'])}"
    parts = [" or ".join(map(json.dumps, schema["enum"])) if "enum" in schema else kind]
    if "minimum" in schema:
        parts.append(f"{schema['minimum']} to {schema['maximum']}")
    if "maxLength" in schema:
        parts.append(f"at most {schema['maxLength']:,} characters")
    if "pattern" in schema:
        parts.append("64 hexadecimal digits")
    if schema.get("default") is not None:
        parts.append(f"default {schema['default']}")
    return ", ".join(parts)
