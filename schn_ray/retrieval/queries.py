"""The queries of a search: what files hold, rows of the index, or codes.

Where a model encodes them, queries also have its relaxed output and the features, which rescored
searches need; so have rows of an index that was built with these vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.vectors import vector_sha256
from schn_ray.models.image_inputs import (
    GivenImage,
    Images,
    are_files,
    image_list,
    image_names,
    vector_array,
)
from schn_ray.retrieval.code_files import packed_codes
from schn_ray.retrieval.index.contents import DIGEST
from schn_ray.retrieval.index.index import bytes_per_code, check_codes
from schn_ray.retrieval.index.union import Searchable
from schn_ray.retrieval.index.vectors import VectorName

if TYPE_CHECKING:  # what reads images is not needed for ids and codes
    from schn_ray.models.base_hasher import BaseHasher


@dataclass(frozen=True, eq=False)
class Queries:
    """The q queries of a search.

    Attributes:
        names: [q], as the user wrote them.
        uris: [q], locations of their images; "" for a code.
        codes: uint8 [q, w], packed.
        rows: int64 [q], row numbers in the index, to be left out of the result; -1 for a query that
            is not in the index.
        relaxed: [q, K], what the codes are the signs of; None where only codes are known.
        features: [q, d], what the relaxed outputs are computed from; None where they are not known.
        contents: uint8 [q, 16], digests of their bytes (``content_digest``); zeros where they are
            not known, None if none is.
    """

    names: Sequence[str]
    uris: Sequence[str]
    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]
    relaxed: NDArray[Any] | None = None
    features: NDArray[Any] | None = None
    contents: NDArray[np.uint8] | None = None

    def digests(self, queries: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Return the digests of chosen queries, uint8 [c, 16], None if none is known."""
        return None if self.contents is None else self.contents[queries]


def file_queries(index: Searchable, hasher: BaseHasher, given: Images) -> Queries:
    """Encode images, or vectors where the model takes those.

    Args:
        index: the index to search.
        hasher: the model that encoded it.
        given: images as ``image_list`` takes them; or ``.npy`` files of one vector [d] or more
            [n, d], or such vectors.

    Raises:
        SchnRayError: one cannot be read, or the index was encoded by another model.
    """
    hasher = same_model(index, hasher)
    if hasher.input == "images":
        images = image_list(given)
        uris = [str(image) if isinstance(image, Path) else "" for image in images]
        F, U = hasher.outputs_of(images)
        queries = relaxed_queries(image_names(images), uris, U, F)
        return replace(queries, contents=np.stack([*map(_image_digest, images)]))
    if are_files(given):
        files = image_list(given)
        read = [(str(file), _read_vectors(file)) for file in files if isinstance(file, Path)]
        if len(read) < len(files):
            hasher.of_images()  # raises: it takes vectors
    else:
        read = [("vector", vector_array(given))]
    names = [name if len(X) == 1 else f"{name}#{row}" for name, X in read for row in range(len(X))]
    outputs = [hasher.outputs_of(X) for _, X in read]
    F, U = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    digests = [packed_codes(pa.table({"sha256": vector_sha256(X)}), "sha256") for _, X in read]
    queries = relaxed_queries(names, names, U, F)
    return replace(queries, contents=np.concatenate(digests)[:, :DIGEST])


def _image_digest(image: GivenImage) -> NDArray[np.uint8]:
    """Return the digest of an image's bytes; of pixels, zeros, which no row has."""
    if isinstance(image, Path):
        return content_digest(image.read_bytes())
    return content_digest(image) if isinstance(image, bytes) else np.zeros(DIGEST, np.uint8)


def content_digest(data: bytes) -> NDArray[np.uint8]:
    """Return the digest that an index has of a row of these bytes: uint8 [16].

    Args:
        data: the encoded image.
    """
    return np.frombuffer(hashlib.sha256(data).digest()[:DIGEST], np.uint8)


def relaxed_queries(
    names: Sequence[str],
    uris: Sequence[str],
    relaxed: NDArray[np.float32],
    features: NDArray[np.float32] | None = None,
) -> Queries:
    """Return queries of what a model made of them.

    Args:
        names: [q].
        uris: [q].
        relaxed: [q, K], the model's output before the sign.
        features: [q, d], what the model's head read.
    """
    codes = np.packbits(relaxed >= 0, axis=1, bitorder="little")
    return Queries(names, uris, codes, np.full(len(names), -1), relaxed, features)


def _read_vectors(file: Path) -> NDArray[Any]:
    try:
        X = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SchnRayError(
            f"{file} has no vectors that can be read: {error}. The model takes vectors: give .npy "
            "files, of one vector [d] or more [n, d]"
        ) from error
    return np.atleast_2d(X)


def id_queries(index: Searchable, ids: Sequence[str]) -> Queries:
    """Take the codes of indexed images, to search for others like them.

    Args:
        index: the index to search.
        ids: ids that it has.

    Raises:
        UnknownId: an id is not in the index.
    """
    rows = np.array([index.find(id) for id in ids], np.int64)
    digests = index.contents(rows)
    return Queries(ids, index.uris(rows), index.codes(rows), rows, contents=digests)


def encoded_again(index: Searchable, hasher: BaseHasher, queries: Queries) -> Queries:
    """Read the images of indexed rows, and encode them: an index has their signs only.

    Args:
        index: the index to search.
        hasher: the model that encoded it.
        queries: with rows of the index.

    Raises:
        SchnRayError: an image cannot be read any more, or the model takes vectors.
    """
    hasher = same_model(index, hasher)
    if hasher.input != "images":
        raise SchnRayError(
            "the model takes vectors, and an index does not have those of its rows: give the "
            "query's vector as a .npy file"
        )
    from schn_ray.data.sources.fetch import fetch

    images = [fetch(uri) for uri in queries.uris]
    encoded = relaxed_queries(queries.names, queries.uris, hasher.relaxed_of(images))
    return replace(encoded, rows=queries.rows, contents=queries.contents)


def with_own_vectors(index: Searchable, queries: Queries, name: VectorName) -> Queries:
    """Add the vectors that the index has of its rows: no model and no image is needed.

    Args:
        index: the index to search.
        queries: with rows of the index.
        name: of the vectors.

    Raises:
        SchnRayError: the index was built without these vectors.
    """
    vectors = index.vectors(name, queries.rows)
    if name == "relaxed":
        return replace(queries, relaxed=vectors)
    return replace(queries, features=vectors)


def code_queries(index: Searchable, codes: Sequence[str]) -> Queries:
    """Read codes to search for.

    Args:
        index: the index to search.
        codes: each the hexadecimal digits of its bytes.

    Raises:
        SchnRayError: not hexadecimal, or not a code of the index's bits.
    """
    width = bytes_per_code(index.bits)
    try:
        packed = [bytes.fromhex(code) for code in codes]
    except ValueError as error:
        raise SchnRayError(
            f"a code is not hexadecimal: {error}; give {2 * width} digits 0 to 9, a to f"
        ) from error
    for code, content in zip(codes, packed, strict=True):
        if len(content) != width:
            raise SchnRayError(
                f"the code {code} has {len(content)} bytes; the index holds {index.bits} bits: "
                f"give a code that has {2 * width} hexadecimal digits"
            )
    table = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, width)
    check_codes(table, index.bits, "the codes")
    return Queries(codes, [""] * len(codes), table, np.full(len(codes), -1))


def same_model(index: Searchable, hasher: BaseHasher) -> BaseHasher:
    """Return the model that encoded an index, for codes of the index's length.

    Args:
        index: the index to search.
        hasher: the model that encodes the queries; of nested codes, all of its lengths will do.

    Raises:
        SchnRayError: other bits, or other weights.
    """
    if index.bits in hasher.spec.lengths:
        hasher = hasher.first(index.bits)
    if index.bits != hasher.bits:
        raise SchnRayError(
            f"the index holds codes of {index.bits} bits, the model makes {hasher.bits}: "
            "use the model that encoded the index"
        )
    if index.model != hasher.fingerprint:
        raise SchnRayError(
            "the index was encoded by another model of as many bits, so codes cannot be compared. "
            "Use that model, or encode and index the gallery with this one"
        )
    return hasher
