"""OpenSearch and Elasticsearch: ``mapping.json``, and bulk requests in ``bulk-*.ndjson``.

Neither server runs in the tests: the files are compared with the documented formats.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import FileWriter, write_json
from schn_ray.retrieval.code_files import CODE
from schn_ray.retrieval.engines.engine import Engine, Target
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.index.scan import Bytes

MAPPING = "mapping.json"
_REQUEST_BYTES = 8 << 20  # of one file; servers refuse requests of more than 100 MB
_MOST_ROWS = (1 << 31) - 519  # documents of a shard of Lucene
_LONGEST_ID = 512  # bytes of _id
_STORED = {"type": "keyword", "index": False, "doc_values": False}
Values = Callable[[Bytes], Iterator[Any]]


def signed_bytes(codes: Bytes) -> Iterator[list[int]]:
    """Yield codes as OpenSearch takes them: lists of bytes from -128 to 127.

    Args:
        codes: uint8 [n, w].
    """
    yield from codes.view("int8").tolist()


def hexadecimal(codes: Bytes) -> Iterator[str]:
    """Yield codes as Elasticsearch takes them.

    Args:
        codes: uint8 [n, w].
    """
    yield from (code.tobytes().hex() for code in codes)


def opensearch_mapping(bits: int) -> dict[str, Any]:
    """Return the body that creates the index.

    Args:
        bits: of a code, a multiple of 8.
    """
    code = {
        "type": "knn_vector",
        "dimension": bits,
        "data_type": "binary",
        "space_type": "hamming",
        "method": {"name": "hnsw", "engine": "faiss"},
    }
    properties = {CODE: code, "uri": _STORED, "labels": {"type": "keyword"}}
    return {"settings": {"index": {"knn": True}}, "mappings": {"properties": properties}}


def elasticsearch_mapping(bits: int) -> dict[str, Any]:
    """Return the body that creates the index; ``flat`` searches exactly.

    Args:
        bits: of a code, a multiple of 8.
    """
    code = {
        "type": "dense_vector",
        "element_type": "bit",
        "dims": bits,
        "index_options": {"type": "flat"},
    }
    properties = {CODE: code, "uri": _STORED, "labels": {"type": "keyword"}}
    return {"mappings": {"properties": properties}}


def _documents(batch: RowBatch, values: Values) -> Iterator[bytes]:
    """Yield the two lines of each row: the action, and the document."""
    labels: list[dict[str, list[str]]] = [{}] * len(batch.ids)
    if batch.labels is not None:
        labels = [{"labels": names} for names in batch.labels.to_pylist()]
    rows = zip(
        batch.ids.to_pylist(), batch.uris.to_pylist(), values(batch.codes), labels, strict=True
    )
    for id, uri, code, named in rows:
        action, document = {"index": {"_id": id}}, {CODE: code, "uri": uri} | named
        yield f"{json.dumps(action)}\n{json.dumps(document)}\n".encode()


def _write(
    gallery: CodeGallery,
    batches: Iterator[RowBatch],
    folder: Path,
    mapping: Callable[[int], dict[str, Any]],
    values: Values,
) -> None:
    write_json(folder / MAPPING, mapping(-(-gallery.bits // 8) * 8))
    request, size, number = list[bytes](), 0, 0
    for batch in batches:
        for document in _documents(batch, values):
            request.append(document)
            size += len(document)
            if size >= _REQUEST_BYTES:
                _write_request(folder, number, request)
                request, size, number = [], 0, number + 1
    if request:
        _write_request(folder, number, request)


def _write_request(folder: Path, number: int, request: list[bytes]) -> None:
    with FileWriter(folder / f"bulk-{number:05}.ndjson") as file:
        file.write(b"".join(request))


def _requests(target: Target, search: str) -> str:
    return f"""TYPE='Content-Type: application/json'
curl -fX PUT $SERVER/codes -H "$TYPE" -d @{shlex.quote(target.out)}/{MAPPING}
for file in {shlex.quote(target.out)}/bulk-*.ndjson; do
  curl -fX POST $SERVER/codes/_bulk -H "$TYPE" --data-binary "@$file"
done
curl -fX POST $SERVER/codes/_refresh
curl -fX POST $SERVER/codes/_search -H "$TYPE" -d '{search}'"""


def _opensearch_recipe(target: Target) -> str:
    parameters = '"field": "code", "query_value": [\'"$QUERY"\'], "space_type": "hamming"'
    search = f"""{{
  "size": 10, "query": {{"script_score": {{"query": {{"match_all": {{}}}}, "script": {{
    "lang": "knn", "source": "knn_score", "params": {{
      {parameters}}}}}}}}}}}"""
    return f"""# SERVER=http://localhost:9200; a hit's distance is 1 / _score - 1
# QUERY, of query uint8 [n, {target.width}]: ",".join(map(str, query[0].view("int8")))
{_requests(target, search)}"""


def _elasticsearch_recipe(target: Target) -> str:
    search = """{
  "knn": {"field": "code", "query_vector": "'"$QUERY"'", "k": 10, "num_candidates": 10}}"""
    return f"""# SERVER=http://localhost:9200; a hit's distance is {target.width * 8} * (1 - _score)
# QUERY, of query uint8 [n, {target.width}]: query[0].tobytes().hex()
{_requests(target, search)}"""


OPENSEARCH = Engine(
    functools.partial(_write, mapping=opensearch_mapping, values=signed_bytes),
    _opensearch_recipe,
    language="bash",
    most_rows=_MOST_ROWS,
    most_bits=16_000,
    longest_id=_LONGEST_ID,
)
ELASTICSEARCH = Engine(
    functools.partial(_write, mapping=elasticsearch_mapping, values=hexadecimal),
    _elasticsearch_recipe,
    language="bash",
    most_rows=_MOST_ROWS,
    most_bits=4096,
    longest_id=_LONGEST_ID,
)
