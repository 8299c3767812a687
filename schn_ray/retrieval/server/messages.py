"""What requests to the server may say, and what it answers, as typed models.

``description`` makes the OpenAPI document of them, ``app`` reads requests by them: so both agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from schn_ray.core.errors import nearest
from schn_ray.core.settings import Section
from schn_ray.retrieval.config import ServeConfig

RESULTS = 50  # unless k is named
_MOST_OVERSAMPLE = 100
_DIGITS = 6  # of a whole number
_SHOWN = 40  # characters of a bad value


class Refused(Exception):
    """A request that is refused.

    Args:
        status: HTTP status of the response.
        why: the error message.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def _whole_number(value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or len(text) > _DIGITS:
        raise ValueError("no whole number")
    return int(text)


Whole = Annotated[int, BeforeValidator(_whole_number)]


class SearchOptions(Section):
    """How many results, how near, in which order: what any search may say."""

    k: Whole = Field(RESULTS, description="How many results.")
    radius: Whole | None = Field(default=None, description="Only results within so many bits.")
    rescore: str | None = Field(
        default=None,
        description="What results are ordered by in place of bits: query, the image's own output "
        "before the sign; relaxed or features, vectors of the index.",
    )
    oversample: Whole | None = Field(
        default=None,
        description="How many times k are scored by relaxed or features; 10 by default.",
    )
    where: str | None = Field(
        default=None, description="A condition on the index's columns, such as label = 'cat'."
    )


class SearchById(SearchOptions):
    """Search for images like an indexed one, which is left out."""

    id: str = Field(description="Id of an indexed image.")


class SearchByCode(SearchOptions):
    """Search for a code, such as an earlier answer gave."""

    code: str = Field(description="The code in hexadecimal.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="SHA-256 of the image that has this code: images of the same bytes come first "
        "of their distance, as they do where the image itself is sent.",
    )


class NoOptions(Section):
    """A request without parameters."""


class ExampleOptions(Section):
    """Which examples."""

    k: Whole = Field(24, description="How many images.")
    where: str | None = Field(default=None, description="Only images that meet this condition.")


class ValueOptions(Section):
    """Values of which column."""

    column: str = Field(description="A column of the index, of texts, integers or booleans.")
    k: Whole = Field(100, description="How many values, the most frequent first.")


class Answer(BaseModel):
    """An answer as JSON; it has no other fields than these."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageAnswer(Answer):
    """An indexed image."""

    id: str = Field(description="Of the image: in a folder, its path there.")
    labels: list[str] | None = Field(default=None, description="Its classes, where they are known.")


class HitAnswer(ImageAnswer):
    """An image among the results."""

    distance: int = Field(description="Hamming distance to the query, in bits.")
    score: float | None = Field(
        default=None, description="Of a rescored search; the results' order."
    )


class SearchAnswer(Answer):
    """The results of a search."""

    code: str = Field(description="Of the query, in hexadecimal.")
    bits: int = Field(description="Of a code.")
    rows: int = Field(description="Images of the index.")
    hits: list[HitAnswer] = Field(description="The results, best first.")
    sha256: str | None = Field(default=None, description="Of the image that was sent.")
    labels: list[str] | None = Field(
        default=None, description="Classes of the query, if it is indexed."
    )
    tied: int | None = Field(
        default=None,
        description="Images at the last distance, or with the last score; without radius.",
    )
    within_radius: int | None = Field(default=None, description="Images within the radius.")
    candidates: int | None = Field(
        default=None, description="Images that were scored; only of relaxed and features."
    )
    proven: bool | None = Field(
        default=None, description="Whether those were all that could score."
    )
    passing: int | None = Field(default=None, description="Images that pass the filter.")


class Examples(Answer):
    """Indexed images to begin with."""

    images: list[ImageAnswer] = Field(description="Evenly spaced over the index.")


class ValueAnswer(Answer):
    """A value of a column."""

    value: str = Field(description="As a text.")
    rows: int = Field(description="Images that have it.")


class ColumnValues(Answer):
    """The values of a column."""

    values: list[ValueAnswer] = Field(description="The most frequent first.")
    distinct: int = Field(description="How many there are.")


class Health(Answer):
    """What is served."""

    status: str = Field(description="ok")
    index_rows: int = Field(description="Images of the index.")
    index_codes: int = Field(description="Distinct codes among them.")
    bits: int = Field(description="Of a code.")
    columns: dict[str, str] = Field(description="Columns that a filter may name: name to kind.")
    rescorings: list[str] = Field(description="What rescore may be.")
    max_results: int = Field(description="The largest k.")
    originals: bool = Field(description="Whether originals are shown, or thumbnails only.")
    listed_column: str | None = Field(
        description="The column with the classes, or folders, to choose from."
    )


class Refusal(Answer):
    """Why a request is refused."""

    error: str = Field(description="What came, what was expected.")


@dataclass(frozen=True)
class Requests:
    """The models of requests with the bounds of a server.

    Attributes:
        image: parameters beside an image that is sent.
        id: a search for an id.
        code: a search for a code.
        examples: parameters of the examples.
        values: parameters of the values of a column.
    """

    image: type[SearchOptions]
    id: type[SearchById]
    code: type[SearchByCode]
    examples: type[ExampleOptions]
    values: type[ValueOptions]


def bounded_requests(config: ServeConfig, bits: int, rescorings: tuple[str, ...]) -> Requests:
    """Return the models of requests with the bounds of a server.

    Args:
        config: limits of a request.
        bits: of the index.
        rescorings: what the index can order by, beside distance.
    """

    def one_of(value: str) -> str:
        if value not in rescorings:
            raise ValueError("no order of this index")
        return value

    def whole(name: str, least: int, most: int, default: int | None) -> Any:
        number = Annotated[int, Field(ge=least, le=most), BeforeValidator(_whole_number)]
        field = Field(default, description=SearchOptions.model_fields[name].description)
        return (number if default is not None else number | None, field)

    order = Annotated[
        str,
        AfterValidator(one_of),
        WithJsonSchema({"type": "string", "enum": list(rescorings)}),
    ]
    text = Annotated[str, Field(max_length=config.max_filter)]
    most = config.max_results
    fields: dict[str, Any] = {
        "k": whole("k", 1, most, min(RESULTS, most)),
        "radius": whole("radius", 0, bits, None),
        "rescore": (order | None, SearchOptions.model_fields["rescore"]),
        "oversample": whole("oversample", 1, _MOST_OVERSAMPLE, None),
        "where": (text | None, SearchOptions.model_fields["where"]),
    }
    image, by_id, by_code = (
        create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
        for base in (SearchOptions, SearchById, SearchByCode)
    )
    examples = create_model(
        "ExampleOptions",
        __base__=ExampleOptions,
        k=whole("k", 1, most, min(24, most)),
        where=(text | None, ExampleOptions.model_fields["where"]),
    )
    values = create_model(
        "ValueOptions", __base__=ValueOptions, k=whole("k", 1, most, min(100, most))
    )
    return Requests(image, by_id, by_code, examples, values)  # type: ignore[arg-type]


RequestT = TypeVar("RequestT", bound=Section)


def parsed(model: type[RequestT], values: Mapping[str, Any]) -> RequestT:
    """Read what a request says.

    Args:
        model: of the request.
        values: by name; in an address, all are texts.

    Raises:
        Refused: a parameter that the model does not have, with the nearest that it has; a value
            of another kind or out of bounds; or one that is missing.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise Refused(400, _complaint(model, first)) from error


def _complaint(model: type[BaseModel], error: Any) -> str:
    name, known = str(error["loc"][0]), list(model.model_fields)
    if error["type"] == "extra_forbidden":
        others = f"; known are {', '.join(known)}" if known else "; there are none"
        return f"unknown parameter {name[:_SHOWN]!r}{nearest(name[:_SHOWN], known) or others}"
    schema = _schema_of(model, name)
    if error["type"] == "missing":
        return f"{name} is missing: send {_expected(schema)}"
    value = error["input"]
    if error["type"] == "string_too_long":
        return f"{name} has {len(value):,} characters; {schema['maxLength']:,} are the most"
    if error["type"] == "string_unicode":
        return f"{name} is not Unicode"
    return f"{name} is {str(value)[:_SHOWN]!r}; send {_expected(schema)}"


def _schema_of(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the schema of a field, of an optional one that of its value."""
    schema: dict[str, Any] = model.model_json_schema()["properties"][name]
    inner = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return schema | inner[0] if inner else schema


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if schema.get("type") == "integer":
        return f"a whole number from {schema['minimum']} to {schema['maximum']}"
    return "64 hexadecimal digits in lower case" if "pattern" in schema else "a text"
