"""What every hasher is, whatever runs its network: images or vectors in, packed codes out."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.bits import pack_signs
from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import BadImage, Preprocessing, evaluation_view
from schn_ray.models.image_inputs import (
    GivenImage,
    Images,
    are_files,
    image_list,
    image_names,
    vector_array,
)
from schn_ray.models.model_files import HasherSpec


class BaseHasher(ABC):
    """Images or vectors in, packed binary codes out.

    Attributes:
        spec: what the network was built from, and how images are prepared.
        fingerprint: of the model's files, see ``model_files.fingerprint``; "" if it has none.
    """

    spec: HasherSpec
    fingerprint: str = ""

    @abstractmethod
    def relaxed_array(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Return relaxed codes [b, K] of evaluation views [b, 3, S, S] or vectors [b, d].

        Raises:
            SchnRayError: the model takes something else.
        """

    @abstractmethod
    def feature_array(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Return the backbone's features [b, d] of evaluation views [b, 3, S, S].

        Raises:
            SchnRayError: the network does not say them.
        """

    @abstractmethod
    def output_arrays(self, views: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features [b, d] and relaxed codes [b, K] of evaluation views, or of vectors.

        Where the network does not say its features, they are [b, 0].

        Raises:
            SchnRayError: the model takes something else.
        """

    @abstractmethod
    def of_features(self) -> BaseHasher:
        """Return the head alone as a hasher of the backbone's features.

        Raises:
            SchnRayError: the head cannot be run alone.
        """

    def first(self, bits: int) -> Self:
        """Return the hasher of shorter codes: the first bits of each, of a model of nested codes.

        Args:
            bits: one of ``spec.lengths``.

        Raises:
            SchnRayError: the model was not trained for this length; the message lists those that
                it was trained for.

        Example:
            >>> load("run").first(16).encode("query.jpg")  # doctest: +SKIP
            array([[ 93, 112]], dtype=uint8)
        """
        shorter = copy.copy(self)
        shorter.spec = self.spec.first(bits)
        return shorter

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.spec.bits

    @property
    def input(self) -> Literal["images", "vectors"]:
        """What the model takes."""
        return "vectors" if self.spec.preprocessing is None else "images"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a row as the network takes it: (3, S, S), or (d,)."""
        p = self.spec.preprocessing
        return (self.spec.width,) if p is None else (3, p.crop, p.crop)

    def encode(self, rows: Images, batch_size: int = 64) -> NDArray[np.uint8]:
        """Encode images or, where ``input`` is ``vectors``, vectors.

        Args:
            rows: one image or n of them: paths, bytes of image files, Pillow images, or pixels as
                arrays or tensors, see ``image_list``; or vectors [d] or [n, d].
            batch_size: rows that pass the network at once.

        Returns:
            Packed codes [n, ceil(K / 8)]: bit b is bit b % 8 of byte b // 8. Of one image, n is 1.

        Raises:
            SchnRayError: an image is missing or does not decode, a vector is not finite, or the
                model takes something else; the row's number or path is named.

        Example:
            >>> load("run").encode("query.jpg")  # doctest: +SKIP
            array([[ 93, 112,  18, 201]], dtype=uint8)
        """
        return self.encode_views(self._batches(rows, batch_size))

    def relaxed_of(self, rows: Images, batch_size: int = 64) -> NDArray[np.float32]:
        """Return the relaxed codes [n, K] of images or vectors: what ``encode`` takes the sign of.

        Args:
            rows: as for ``encode``.
            batch_size: rows that pass the network at once.

        Raises:
            SchnRayError: as for ``encode``.
        """
        relaxed = [self.relaxed_array(batch) for batch in self._batches(rows, batch_size)]
        return np.concatenate([np.zeros((0, self.bits), np.float32), *relaxed])

    def outputs_of(
        self, rows: Images, batch_size: int = 64
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the features [n, d] and the relaxed codes [n, K] of images or vectors.

        Args:
            rows: as for ``encode``.
            batch_size: rows that pass the network at once.

        Returns:
            Both; features are [n, 0] where the network does not say them.

        Raises:
            SchnRayError: as for ``encode``.
        """
        parts = [self.output_arrays(batch) for batch in self._batches(rows, batch_size)]
        if not parts:
            return np.zeros((0, self.spec.width), np.float32), np.zeros((0, self.bits), np.float32)
        F, U = zip(*parts, strict=True)
        return np.concatenate(F), np.concatenate(U)

    def encode_views(self, batches: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
        """Encode batches of evaluation views [b, 3, S, S] or vectors [b, d] -> [n, ceil(K / 8)]."""
        codes = [pack_signs(self.relaxed_array(batch)) for batch in batches]
        return np.concatenate(codes) if codes else np.zeros((0, -(-self.bits // 8)), np.uint8)

    def of_images(self) -> Preprocessing:
        """Return how images are prepared.

        Raises:
            SchnRayError: the model takes vectors.
        """
        if self.spec.preprocessing is None:
            raise SchnRayError(f"this model takes {self._expected()}, not images")
        return self.spec.preprocessing

    def _batches(self, rows: Images, batch_size: int) -> Iterator[NDArray[Any]]:
        if self.input == "vectors" and not are_files(rows):
            vectors = vector_array(rows)
            self._require_input(vectors)
            require_finite(vectors)
            for start in range(0, len(vectors), batch_size):
                yield vectors[start : start + batch_size]
            return
        preprocessing, images = self.of_images(), image_list(rows)
        named = zip(image_names(images), images, strict=True)
        views = (_view(name, image, preprocessing) for name, image in named)
        for batch in iter(lambda: list(islice(views, batch_size)), []):
            yield np.stack(batch)

    def _require_input(self, views: NDArray[Any]) -> None:
        if views.shape[1:] != self.input_shape:
            raise SchnRayError(
                f"this model takes {self._expected()}: batches of the shape "
                f"{('n', *self.input_shape)}, not {views.shape}"
            )

    def _expected(self) -> str:
        if self.spec.preprocessing is None:
            return f"vectors of {self.spec.width} numbers"
        side = self.spec.preprocessing.crop
        return f"images of {side} x {side} pixels"


def _view(name: str, image: GivenImage, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    try:
        data = image.read_bytes() if isinstance(image, Path) else image
        return evaluation_view(data, preprocessing)
    except BadImage as error:
        raise SchnRayError(f"{name} is not an image that can be read: {error}") from error
    except OSError as error:
        raise SchnRayError(f"cannot read {name}: {error.strerror}") from error


def require_finite(vectors: NDArray[Any]) -> None:
    """Check that vectors have neither NaN nor infinity: their codes would mean nothing.

    Args:
        vectors: [n, d].

    Raises:
        SchnRayError: one has; its number is named.
    """
    bad = ~np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim)))
    if bad.any():
        raise SchnRayError(f"vector {int(bad.argmax())} has numbers that are NaN or infinite")
