"""The JSON API over real HTTP: what it answers, and what it refuses."""

import hashlib
import html
import http.client
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openapi_spec_validator import validate
from PIL import Image
from support.image_files import encode_image
from support.models import write_model
from support.service import served, write_gallery

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.load import load
from schn_ray.retrieval.config import EncodeConfig, ServeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import open_index
from schn_ray.retrieval.search import SearchLimits
from schn_ray.retrieval.server.messages import ExampleOptions, Refused, ValueOptions
from schn_ray.retrieval.server.service import open_service

LIMITS = ServeConfig(
    max_bytes=12_000_000, max_pixels=1_000_000, max_results=30, hosts=("public.example",)
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def port(gallery: Path) -> Iterator[int]:
    with served(gallery, LIMITS) as port:
        yield port


class Client:
    """Speaks HTTP without tidying up what it is told to ask."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def search(self, asked: dict[str, Any]) -> tuple[int, Any]:
        body = json.dumps(asked).encode()
        status, answer, _ = self("POST", "/search", body, content_type="application/json")
        return status, json.loads(answer)


@pytest.fixture
def ask(port: int) -> Client:
    return Client(port)


def bomb() -> bytes:
    """Return a PNG of a few KB whose header says 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def test_an_image_finds_what_the_index_says(ask: Client, gallery: Path) -> None:
    photo = gallery / "photos" / "cat" / "003.png"
    status, body, headers = ask("POST", "/search?k=7", photo.read_bytes())
    found = json.loads(body)
    codes = load(gallery / "model").encode([photo])
    expected = open_index(gallery / "index").search(codes, 7)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert [hit["id"] for hit in found["hits"]] == expected.ids(0)
    assert [hit["distance"] for hit in found["hits"]] == expected.distances[0].tolist()
    assert (found["tied"], found["rows"], found["bits"]) == (int(expected.tied[0]), 40, 12)
    assert ask.search({"code": found["code"], "k": 7})[1]["hits"] == found["hits"]
    assert str(gallery) not in body.decode()  # where images lie is nobody's business


def test_more_like_an_id_leaves_itself_out(ask: Client, gallery: Path) -> None:
    status, found = ask.search({"id": "dog & co/001.png", "radius": 12, "k": 30})
    assert (status, found["within_radius"], len(found["hits"])) == (200, 39, 30)
    assert "dog & co/001.png" not in [hit["id"] for hit in found["hits"]]
    distances = [hit["distance"] for hit in found["hits"]]
    assert distances == sorted(distances)
    _, near = ask.search({"id": "dog & co/001.png", "radius": distances[3]})
    assert near["within_radius"] == sum(d <= distances[3] for d in distances)


def test_rescored_by_image_and_by_id(ask: Client, gallery: Path) -> None:
    photo = gallery / "photos" / "cat" / "003.png"
    _, body, _ = ask("POST", "/search?k=7&rescore=query", photo.read_bytes())
    expected = open_index(gallery / "index").scored(load(gallery / "model").relaxed_of([photo]), 30)
    _, scores, distances = expected.rows_of(0)
    found = json.loads(body)
    assert (
        found["hits"]
        == [
            {
                "id": id,
                "labels": [id.split()[0].split("/")[0]],
                "distance": distance,
                "score": score,
            }
            for id, distance, score in zip(expected.ids(0), distances.tolist(), scores, strict=True)
        ][:7]
    )
    assert found["tied"] == sum(scores == scores[6])
    status, like = ask.search({"id": "cat/003.png", "k": 29, "rescore": "query"})
    others = [id for id in expected.ids(0) if id != "cat/003.png"]
    assert (status, [hit["id"] for hit in like["hits"]]) == (200, others)


def test_rescored_by_vectors_of_the_index(ask: Client, gallery: Path) -> None:
    photo, index = gallery / "photos" / "cat" / "003.png", open_index(gallery / "index")
    hasher = load(gallery / "model")
    (F, _), codes = hasher.outputs_of([photo]), hasher.encode([photo])
    _, body, _ = ask("POST", "/search?k=4&rescore=features&oversample=3", photo.read_bytes())
    expected, found = index.rescored("features", codes, F, 4, 12), json.loads(body)
    assert [hit["id"] for hit in found["hits"]] == expected.ids(0)
    assert [hit["score"] for hit in found["hits"]] == expected.scores.tolist()
    assert (found["candidates"], found["proven"]) == (expected.candidates[0], False)  # type: ignore[index]
    status, like = ask.search({"id": "cat/003.png", "k": 29, "rescore": "relaxed"})
    assert (status, like["candidates"], like["proven"]) == (200, 39, True)
    status, refused = ask.search({"id": "cat/003.png", "oversample": 101, "rescore": "relaxed"})
    assert (status, "a whole number from 1 to 100" in refused["error"]) == (400, True)


def test_an_index_without_vectors_says_what_it_can(gallery: Path, tmp_path: Path) -> None:
    write_index(gallery / "codes", tmp_path / "index", None, ["relaxed"])
    service = open_service(tmp_path / "index", gallery / "model", LIMITS)
    assert service.rescorings == ("query", "relaxed")
    with pytest.raises(Refused, match="cannot rescore by features, only by query or relaxed"):
        service.search_id("cat/003.png", SearchLimits(3, None, "features"))


def test_a_filter_by_image_by_id_and_by_code(ask: Client, gallery: Path) -> None:
    view = open_index(gallery / "index").where("label = 'dog' and number >= 5")
    photo = gallery / "photos" / "cat" / "003.png"
    where = "label = 'dog' and number >= 5"
    code = load(gallery / "model").encode([photo])
    near = view.search(code, 7)
    _, body, _ = ask("POST", f"/search?k=7&where={quote(where)}", photo.read_bytes())
    answer = json.loads(body)
    assert [hit["id"] for hit in answer["hits"]] == near.ids(0)
    assert (answer["passing"], answer["rows"]) == (15, 40)
    for asked in ({"id": "cat/003.png"}, {"code": code[0].tobytes().hex()}):
        status, same = ask.search(asked | {"k": 7, "where": where})
        assert (status, same | {"sha256": answer["sha256"]} | {"labels": 0}) == (
            200,
            answer | {"labels": 0},
        )
    _, rescored, _ = ask(
        "POST", f"/search?k=7&rescore=query&where={quote(where)}", photo.read_bytes()
    )
    expected = view.scored(load(gallery / "model").relaxed_of([photo]), 7)
    assert [hit["id"] for hit in json.loads(rescored)["hits"]] == expected.ids(0)
    _, none = ask.search({"id": "cat/003.png", "where": "number < 0"})
    assert (none["hits"], none["passing"], none["tied"]) == ([], 0, 0)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("label =", "label =\n         ^"),
        ("lable = 'cat'", "did you mean 'label'?"),
        ("number = 'cat'", "cannot be compared"),
        ("label = '\ud800'", "not Unicode"),
        ("(" * 2000, "nested more than 50 deep"),
        ("x" * 2001, "2,001 characters; 2,000 are the most"),
        (7, "where is '7'; send a text"),
        (["label"], "send a text"),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_bad_filters(ask: Client, where: Any, why: str) -> None:
    status, answer = ask.search({"id": "cat/003.png", "where": where})
    assert (status, why in answer["error"]) == (400, True), answer


def test_thumbnails_are_of_indexed_images(ask: Client, gallery: Path) -> None:
    status, body, headers = ask("GET", f"/image/{quote('dog & co/001.png')}")
    assert (status, headers["content-type"]) == (200, "image/png")
    shown = np.asarray(Image.open(io.BytesIO(body)))
    photo = np.asarray(Image.open(gallery / "photos" / "dog & co" / "001.png"))
    np.testing.assert_array_equal(shown, photo)


@pytest.mark.parametrize(
    "id",
    [
        "none.png",
        "../model/hasher.yaml",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "cat/../cat/001.png",
        "cat/../../columns.csv",
        "..%5c..%5cmodel%5chasher.yaml",
        "%252e%252e/%252e%252e/etc/passwd",
        "cat/001.png%00",
        "file:///etc/passwd",
        "http://127.0.0.1/",
        "%ff%fe",
        "",
    ],
)
@pytest.mark.parametrize("what", ["image", "original"])
def test_no_other_file_is_shown(ask: Client, what: str, id: str) -> None:
    status, body, headers = ask("GET", f"/{what}/{id}")
    assert (status, headers["content-type"]) == (404, "application/json")
    assert b"root:" not in body


def test_an_image_that_went_away(ask: Client, gallery: Path) -> None:
    photo = gallery / "photos" / "cat" / "019.png"
    kept = photo.read_bytes()
    photo.unlink()
    try:
        status, body, _ = ask("GET", "/image/cat/019.png")
    finally:
        photo.write_bytes(kept)
    assert (status, b"cannot be read any more" in body) == (404, True)


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("/search", b"x" * 10_000_000, 415, "not an image"),
        ("/search", b"x" * 13_000_000, 413, "more than 12,000,000 bytes"),
        ("/search", bomb(), 415, "more than max_pixels = 1,000,000"),
        ("/search", encode_image()[:60], 415, "damaged"),
        ("/search", b"", 400, "empty"),
        ("/search?k=0", encode_image(), 400, "k is '0'"),
        ("/search?k=31", encode_image(), 400, "1 to 30"),
        ("/search?k=9999999999999999999", encode_image(), 400, "k is"),
        ("/search?radius=-1", encode_image(), 400, "radius is '-1'"),
        (
            "/search?radius=two",
            encode_image(),
            400,
            "radius is 'two'; send a whole number from 0 to",
        ),
        (
            "/search?radius=13",
            encode_image(),
            400,
            "radius is '13'; send a whole number from 0 to 12",
        ),
        (
            "/search?raduis=3",
            encode_image(),
            400,
            "unknown parameter 'raduis'; did you mean 'radius'?",
        ),
        ("/search?x=3", encode_image(), 400, "unknown parameter 'x'; known are k, radius, rescore"),
        ("/search?k=3&k=4", encode_image(), 400, "'k' is given more than once"),
        ("/search?oversample=3", encode_image(), 400, "goes with rescore=relaxed or features only"),
        ("/search?rescore=finely", encode_image(), 400, "send query or relaxed or features"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_bad_images_and_numbers(ask: Client, path: str, body: bytes, status: int, why: str) -> None:
    found, answer, _ = ask("POST", path, body)
    assert (found, why in json.loads(answer)["error"]) == (status, True), answer


def test_a_long_body_without_a_length(ask: Client) -> None:
    pieces = (b"x" * 1_000_000 for _ in range(20))
    try:
        status, _, _ = ask("POST", "/search", pieces, transfer_encoding="chunked")
    except (BrokenPipeError, ConnectionResetError):
        return  # hung up before all was sent: as good
    assert status == 413


@pytest.mark.parametrize(
    "asked",
    [
        {},
        [],
        {"id": 3},
        {"id": "cat/001.png", "code": "0000"},
        {"id": "cat/001.png", "url": "http://127.0.0.1/"},
        {"id": "cat/001.png", "k": True},
        {"id": "cat/001.png", "k": None},
        {"id": "cat/001.png", "k": 2.5},
        {"code": "00"},
        {"code": "zzzz"},
        {"code": "00ff"},
        {"code": "0000", "rescore": "query"},
        {"id": "cat/001.png", "rescore": "finely"},
        {"id": "cat/001.png", "rescore": ["query"]},
        {"id": "cat/001.png", "sha256": "0" * 64},
        {"code": "0000", "sha256": "0" * 63},
        {"code": "0000", "sha256": "G" * 64},
        {"code": "0000", "sha256": 7},
    ],
    ids=str,
)
def test_bad_requests(ask: Client, asked: Any) -> None:
    status, answer = ask.search(asked)
    assert (status, bool(answer["error"])) == (400, True)


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/serach", 404, "no such path '/serach'; did you mean '/search'?"),
        ("/search", 405, "GET is not what /search answers"),
        ("/healthz?verbose=1", 400, "unknown parameter 'verbose'; there are none"),
        ("/image/cat/001.png?size=9", 400, "unknown parameter 'size'"),
        ("/original/cat/001.png?size=9", 400, "unknown parameter 'size'"),
        ("/examples?n=3", 400, "unknown parameter 'n'; known are k"),
        ("/examples?k=31", 400, "k is '31'; send a whole number from 1 to 30"),
    ],
)
def test_paths_and_parameters_that_are_not_there(
    ask: Client, path: str, status: int, why: str
) -> None:
    code, body, _ = ask("GET", path)
    assert (code, why in json.loads(body)["error"]) == (status, True), body


def test_misspelt_queries_and_forms_are_told_what_to_send(ask: Client) -> None:
    assert "did you mean 'id'" in ask.search({"ids": "cat/001.png"})[1]["error"]
    _, body, _ = ask("POST", "/search?k=3", b"{}", content_type="application/json")
    assert "stand in its body" in json.loads(body)["error"]
    status, body, _ = ask("POST", "/search", b"--x", content_type="multipart/form-data; boundary=x")
    assert (status, b"--data-binary" in body) == (415, True)


def test_a_code_with_the_hash_of_its_image_gets_own_bytes_first_as_the_image_does(
    gallery: Path, tmp_path: Path
) -> None:
    """The page sends this when its slider is moved: the answer must stay that of the image."""
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = Image.open(gallery / "photos" / "cat" / "003.png")
    pixels.save(photos / "a.png")  # the same pixels, and so the same code; other bytes
    pixels.save(photos / "b.png", compress_level=1)
    source = open_source(str(photos), SourceConfig())
    encode_source(source, gallery / "model", tmp_path / "codes", EncodeConfig())
    write_index(tmp_path / "codes", tmp_path / "index")
    service = open_service(tmp_path / "index", gallery / "model", LIMITS)
    image, limits = (photos / "b.png").read_bytes(), SearchLimits(2, 5)
    by_image = service.search_image(image, limits)
    assert by_image.sha256 == hashlib.sha256(image).hexdigest()
    assert [hit.id for hit in by_image.hits] == ["b.png", "a.png"]
    assert service.search_code(by_image.code, limits, by_image.sha256).hits == by_image.hits
    plain = service.search_code(by_image.code, limits)
    assert [hit.id for hit in plain.hits] == ["a.png", "b.png"]


def test_an_original_is_the_file_with_the_type_of_its_bytes(ask: Client, gallery: Path) -> None:
    photo = gallery / "photos" / "dog & co" / "001.png"
    status, body, headers = ask("GET", f"/original/{quote('dog & co/001.png')}")
    assert (status, body, headers["content-type"]) == (200, photo.read_bytes(), "image/png")
    assert headers["content-disposition"] == "inline; filename*=UTF-8''001.png"
    content = photo.read_bytes()
    try:
        photo.write_bytes(encode_image(format="JPEG"))
        status, body, headers = ask("GET", f"/original/{quote('dog & co/001.png')}")
        assert (status, headers["content-type"]) == (200, "image/jpeg")  # whatever its name says
        photo.write_bytes(b"<html><script>alert(1)</script>")
        status, body, headers = ask("GET", f"/original/{quote('dog & co/001.png')}")
        assert (status, headers["content-type"]) == (404, "application/json")
        assert b"is no image any more" in body
        photo.unlink()
        status, body, _ = ask("GET", f"/original/{quote('dog & co/001.png')}")
        assert (status, b"is gone: moved or deleted" in body) == (404, True)
        assert str(gallery).encode() not in body
    finally:
        photo.write_bytes(content)


def test_originals_can_be_switched_off(gallery: Path) -> None:
    config = LIMITS.model_copy(update={"originals": False})
    service = open_service(gallery / "index", gallery / "model", config)
    assert not service.health().originals
    with pytest.raises(Refused, match="thumbnails only"):
        service.original("cat/001.png")


def test_classes_come_from_a_column_or_from_a_store(
    ask: Client, gallery: Path, tmp_path: Path
) -> None:
    _, answer = ask.search({"id": "cat/001.png", "k": 30})
    folders = {(hit["id"].split("/")[0], *hit["labels"]) for hit in answer["hits"]}
    assert folders == {("cat", "cat"), ("dog & co", "dog")}
    assert answer["labels"] == ["cat"]
    (gallery / "photos" / "cat" / "018.png").rename(tmp_path / "018.png")  # not in the store
    try:
        store = schn_ray.prepare(gallery / "photos", tmp_path / "store")
    finally:
        (tmp_path / "018.png").rename(gallery / "photos" / "cat" / "018.png")
    service = open_service(gallery / "index", gallery / "model", LIMITS, store)
    for limits in (
        SearchLimits(39),
        SearchLimits(39, where="number >= 1"),
        SearchLimits(39, radius=12),
        SearchLimits(39, rescore="query"),
    ):
        hits = service.search_id("cat/001.png", limits).hits
        expected = {hit.id: [hit.id.split("/")[0]] for hit in hits} | {"cat/018.png": []}
        assert {hit.id: hit.labels for hit in hits} == expected
    write_index(gallery / "codes", tmp_path / "index")
    plain = open_service(tmp_path / "index", gallery / "model", LIMITS)
    assert plain.search_id("cat/001.png", SearchLimits(3)).hits[0].labels is None


def test_examples_are_spread_over_the_index(ask: Client, gallery: Path) -> None:
    examples = json.loads(ask("GET", "/examples?k=4")[1])["images"]
    index = open_index(gallery / "index")
    assert [image["id"] for image in examples] == index.ids(np.array([0, 10, 20, 30]))
    assert examples[0]["labels"] == ["cat"]
    dogs = json.loads(ask("GET", "/examples?k=2&where=label%20=%20%27dog%27")[1])["images"]
    assert [image["id"] for image in dogs] == ["dog & co/000.png", "dog & co/010.png"]


def test_values_of_a_column_are_counted(ask: Client, gallery: Path, tmp_path: Path) -> None:
    status, body, _ = ask("GET", "/values?column=number&k=2")
    values = [{"value": "0", "rows": 2}, {"value": "1", "rows": 2}]
    assert (status, json.loads(body)) == (200, {"values": values, "distinct": 20})
    status, body, _ = ask("GET", "/values?column=numbr")
    assert (status, json.loads(body)["error"]) == (400, "no column 'numbr'; did you mean 'number'?")
    tags = pa.table({"id": ["cat/000.png", "cat/001.png"], "labels": [["b", "a"], ["a"]]})
    pq.write_table(tags, tmp_path / "tags.parquet")
    index = schn_ray.build_index(
        gallery / "codes", tmp_path / "index", columns=tmp_path / "tags.parquet"
    )
    service = open_service(index, gallery / "model", LIMITS)
    counted = service.values(ValueOptions(column="labels", k=9)).values
    assert [(each.value, each.rows) for each in counted] == [("a", 2), ("b", 1)]
    assert service.health().listed_column == "labels"
    shown = service.examples(ExampleOptions(k=9, where="labels = 'b'")).images
    assert [(image.id, image.labels) for image in shown] == [("cat/000.png", ["b", "a"])]


IMAGE, PHOTO = "/image/cat/003.png", "/original/cat/003.png"
ANSWERED: dict[tuple[str, str], list[tuple[str, Any]]] = {
    ("/search", "post"): [
        ("/search", encode_image()),
        (
            "/search?k=3&radius=12&rescore=features&oversample=2&where=number%20%3E%203",
            encode_image(),
        ),
        ("/search", {"id": "cat/003.png", "k": 3, "rescore": "query"}),
        ("/search", {"code": "0f00", "sha256": "0" * 64, "radius": 3, "where": "number > 3"}),
    ],
    ("/examples", "get"): [("/examples?k=3&where=number%20%3E%203", None)],
    ("/values", "get"): [("/values?column=label&k=3", None)],
    ("/image/{id}", "get"): [(IMAGE, None)],
    ("/original/{id}", "get"): [(PHOTO, None)],
    ("/healthz", "get"): [("/healthz", None)],
    ("/metrics", "get"): [("/metrics", None)],
    ("/openapi.json", "get"): [("/openapi.json", None)],
}
REFUSED: dict[tuple[str, str], list[tuple[str, Any, dict[str, str]]]] = {
    ("/search", "post"): [
        ("/search?x=1", encode_image(), {}),
        ("/search", encode_image(), {"sec_fetch_site": "cross-site"}),
        ("/search", {"id": "none.png"}, {}),
        ("/search", b"x" * 13_000_000, {}),
        ("/search", b"x", {}),
    ],
    ("/examples", "get"): [("/examples?x=1", None, {})],
    ("/values", "get"): [("/values?column=lable", None, {})],
    ("/image/{id}", "get"): [(f"{IMAGE}?x=1", None, {}), ("/image/none", None, {})],
    ("/original/{id}", "get"): [(f"{PHOTO}?x=1", None, {}), ("/original/none", None, {})],
    ("/healthz", "get"): [("/healthz?x=1", None, {})],
    ("/metrics", "get"): [("/metrics?x=1", None, {})],
    ("/openapi.json", "get"): [("/openapi.json?x=1", None, {})],
}


def test_the_description_is_true_of_every_path(ask: Client) -> None:
    document = json.loads(ask("GET", "/openapi.json")[1])
    validate(document)  # as OpenAPI itself says
    operations = {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == ANSWERED.keys() == REFUSED.keys()

    def check(schema: dict[str, Any], value: Any) -> None:
        whole = schema | {"components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def send(method: str, path: str, body: Any, **headers: str) -> tuple[int, bytes, str]:
        if isinstance(body, dict):
            check(operation["requestBody"]["content"]["application/json"]["schema"], body)
            body, headers = json.dumps(body), headers | {"content_type": "application/json"}
        status, answer, given = ask(method.upper(), path, body, **headers)
        return status, answer, given["content-type"].split(";")[0]

    for (path, method), operation in operations.items():
        used = set()
        for address, body in ANSWERED[path, method]:
            status, answer, kind = send(method, address, body)
            assert status == 200, answer
            ((media, content),) = operation["responses"]["200"]["content"].items()
            assert fnmatch(kind, media)
            if "schema" in content:
                check(content["schema"], json.loads(answer))
            used |= {name for name, _ in parse_qsl(address.partition("?")[2])}
        named = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
        assert named == used  # each is taken by its name
        statuses = {"200"}
        for address, body, headers in REFUSED[path, method]:
            status, answer, _ = send(method, address, body, **headers)
            check(
                operation["responses"][str(status)]["content"]["application/json"]["schema"],
                json.loads(answer),
            )
            statuses.add(str(status))
        switched_off = {"403"} if path == "/original/{id}" else set()
        assert statuses | switched_off == operation["responses"].keys()


def test_a_page_of_the_description_names_everything_and_fetches_nothing(ask: Client) -> None:
    status, body, headers = ask("GET", "/api")
    document = json.loads(ask("GET", "/openapi.json")[1])
    text = html.unescape(body.decode())
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/html")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"<code>{method.upper()} {path}</code>" in text
            assert all(f"<code>{each['name']}</code>" in text for each in operation["parameters"])
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in text
        assert all(f"<code>{field}</code>" in text for field in schema["properties"])
    assert f"'http://127.0.0.1:{ask.port}/search?k=5'" in text
    assert re.findall(r'(?:src|href)="(?!/|#|data:)[^"]*"', text) == []
    _, body, _ = ask("GET", "/api", host='localhost"><script>')
    assert b"<script" not in body


def test_an_unknown_id_and_a_body_that_is_no_json(ask: Client) -> None:
    assert ask.search({"id": "../cat/001.png"})[0] == 404
    assert ask("POST", "/search", b"{", content_type="application/json")[0] == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_methods(ask: Client, method: str) -> None:
    assert ask(method, "/search")[0] == 405


def test_other_hosts_and_other_sites(ask: Client) -> None:
    assert ask("GET", "/healthz", host="evil.example:80")[0] == 400
    assert ask("POST", "/search", encode_image(), sec_fetch_site="cross-site")[0] == 403
    assert ask("GET", "/healthz", host="localhost:80")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:{port}"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://evil.example", "sec_fetch_site": "same-site"}, 403),
        ({"origin": "https://public.example", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "https://Public.example:8443"}, 200),
        ({"origin": "https://localhost", "host": "localhost"}, 200),
        ({"origin": "https://localhost:443", "host": "localhost"}, 200),
        ({"origin": "https://localhost:8443", "host": "localhost"}, 403),
    ],
    ids=str,
)
def test_a_page_of_another_origin_gets_no_answer(
    port: int, ask: Client, headers: dict[str, str], status: int
) -> None:
    headers = {name: value.replace("{port}", str(port)) for name, value in headers.items()}
    assert ask("POST", "/search?k=1", encode_image(), **headers)[0] == status


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"id":' * 100_000, b'{"id": "\\ud800"}'])
def test_json_that_no_page_sends(ask: Client, body: bytes) -> None:
    status, answer, _ = ask("POST", "/search", body, content_type="application/json")
    assert (status in (400, 404), bool(json.loads(answer)["error"])) == (True, True)


def test_health_page_and_headers(ask: Client) -> None:
    status, body, headers = ask("GET", "/healthz")
    assert (status, json.loads(body)["index_rows"]) == (200, 40)
    for path, kind in (("/", "text/html"), ("/search.js", "text/javascript")):
        status, body, headers = ask("GET", path)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert b"http" not in body.replace(b"<!doctype html>", b"")  # nothing from elsewhere


def test_metrics_count_by_route_and_status(gallery: Path) -> None:
    with served(gallery, ServeConfig()) as port:
        ask = Client(port)
        for _ in range(3):
            ask("GET", "/image/none")
        ask("GET", "/elsewhere/of/any/name")
        lines = ask("GET", "/metrics")[1].decode().splitlines()
    assert 'schn_ray_requests_total{route="/image",status="404"} 3.0' in lines
    assert 'schn_ray_requests_total{route="other",status="404"} 1.0' in lines
    assert 'schn_ray_request_seconds_bucket{le="+Inf",route="/image"} 3.0' in lines
    assert "schn_ray_index_rows 40.0" in lines


def test_another_model_is_refused(gallery: Path, tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="another model"):
        open_service(gallery / "index", write_model(tmp_path / "m", seed=1), ServeConfig())
