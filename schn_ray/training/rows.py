"""The rows that a run trains on and validates with: images of the store, or vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.workers import Workers
from schn_ray.data.images import Preprocessing, evaluation_view
from schn_ray.data.sources.stored import format_of_rows, map_rows
from schn_ray.data.store.reader import Store
from schn_ray.methods.base import Method, View
from schn_ray.models.stored_features import StoredFeatures
from schn_ray.training.batches import Rows, TrainingImages, TrainingRows, TrainingVectors
from schn_ray.training.config import AugmentConfig
from schn_ray.training.state import ValidationRows


class RowVectors(Protocol):
    """A feature vector for each row of a store."""

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """Return the vectors of store rows [m] -> [m, d]."""


def read_rows(
    store: Store,
    augment: AugmentConfig,
    preprocessing: Preprocessing | None,
    workers: Workers,
    features: RowVectors | None = None,
    views: tuple[View, ...] = ("plain",),
) -> tuple[TrainingRows, ValidationRows]:
    """Return the training rows, and this worker's part of the validation rows.

    Args:
        store: has the rows.
        augment: random views of training images.
        preprocessing: of images; None where the model takes the store's own vectors.
        workers: who shares the rows.
        features: of a frozen backbone, in place of the store's images or vectors.
        views: of each training row in a batch, see ``DeepMethod.views``.

    Raises:
        SchnRayError: the store has no such rows, or ``augment`` leaves rows one view only where two
            are compared.
    """
    train, validation = store.rows("train"), store.rows("validation")
    own = validation[workers.own(len(validation))]
    labels = store.labels[train]
    data: TrainingRows
    read: Callable[[], NDArray[Any]]
    if features is None and preprocessing is not None:
        if not store.has_images:
            raise SchnRayError(
                f"{store.location} has vectors and no images: the backbone is features:"
                f"{store.vector_width}"
            )
        if len(views) > 1 and not augment.changes_images:
            raise SchnRayError(
                "this method compares two views of an image, and these settings change nothing: "
                "leave out --set augment.area=1, or colour, grey or blur of 0"
            )
        data = TrainingImages(store.image, train, labels, preprocessing, augment, views)
        images = preprocessing  # for the closure, which mypy cannot narrow
        read = lambda: _evaluation_views(store, own, images)  # noqa: E731
    else:
        if len(views) > 1 and not augment.drop:
            raise SchnRayError(
                "this method compares two views of a row, and a vector has one only with "
                "augment.drop=0: set the share of its numbers that a view lacks, as "
                "--set augment.drop=0.2"
            )
        source = features or store
        width = source.vectors(train[:1]).shape[1]
        data = TrainingVectors(source.vectors, train, labels, width, augment.drop, views)
        read = lambda: source.vectors(own)  # noqa: E731
    return data, ValidationRows(read, store.labels[validation])


def require_labels(method: type[Method[Any]], name: str, labels: csr_array) -> None:
    """Check that a method can use the labels of the training rows.

    Args:
        method: says what labels it needs.
        name: of the method, for the error.
        labels: [n, C] of the training rows.

    Raises:
        SchnRayError: rows without labels for a method that needs them, or with several for one
            that can use one a row only.
    """
    of_row = np.diff(labels.indptr)
    if method.labels != "none" and not of_row.any():
        raise SchnRayError(
            f"method {name} learns from labels, and the training rows have none. Without labels: "
            "--method itq, or another one that 'schn-ray methods' lists as unlabelled"
        )
    if method.labels == "single" and of_row.max() > 1:
        raise SchnRayError(
            f"method {name} uses one label a row, and a training row has {of_row.max()}"
        )


def _evaluation_views(store: Store, rows: Rows, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    side = preprocessing.crop
    views = np.zeros((len(rows), 3, side, side), np.uint8)
    for view, row in zip(views, rows, strict=True):
        view[:] = evaluation_view(store.image(int(row)), preprocessing)
    return views


def settings_of_inputs(location: str, features: str | None = None) -> dict[str, Any]:
    """Return settings of ``train`` that follow from its inputs.

    The backbone is that of the features. Vectors of a store without images are taken as they are.

    Args:
        location: of the store; a directory or URI.
        features: of the store's images; None: they are not given.
    """
    if features is not None:
        config = StoredFeatures(features).backbone_config
        keys = {"name", "base_channels", "frozen", "weights"}
        return {"backbone": config.model_dump(include=keys)}
    path = local_copy(location)
    # training opens the store and compares its files
    vectors = format_of_rows(map_rows(open_artefact(path, "store")))
    if vectors is None or vectors.images:
        return {}
    return {"backbone": {"name": f"features:{vectors.width}", "weights": None}}
