"""Controls: what a figure has to beat before it means that similarity was learned.

``classifier``: a linear classifier on the network's features, and an image's code is its predicted
class's codeword. It knows classes and nothing else; a method that does not beat it has learned
classes, not similarity. ``cosine``: the features themselves, unquantised: what a code of so few
bits costs. ``random``: codes of coin tosses, the floor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from schn_ray.core.bits import pack
from schn_ray.core.storage.files import as_location
from schn_ray.data.images import evaluation_view
from schn_ray.data.labels import label_sets, share_a_label
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import ControlsConfig
from schn_ray.evaluation.metrics.average_precision import average_precision
from schn_ray.evaluation.metrics.bootstrap import interval, paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import Histograms, distance_histograms
from schn_ray.methods.code_table import initial_codes
from schn_ray.models.hasher import Hasher, load

Floats = NDArray[np.float32]
_PART_ROWS, _PARTS_HERE = 2_048, 2


@dataclass(frozen=True, eq=False)
class Sides:
    """What the controls look at: features and labels of training rows, queries and gallery rows."""

    train_features: Floats
    train_labels: csr_array
    query_features: Floats
    gallery_features: Floats
    queries: LabelledCodes
    gallery: LabelledCodes
    bits: int


def measure_controls(
    run: Path | str,
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    bits: int,
    config: ControlsConfig,
    map_shards: MapShards,
) -> dict[str, Any]:
    """Measure every control, and the model on the very same rows.

    Returns:
        ``queries`` and ``gallery``: rows; ``model``, ``classifier``, ``cosine``, ``random``: mAP
        with its interval; ``model_less_classifier``: the paired difference. Plain values.
    """
    generator = np.random.default_rng([config.seed, bits])
    queries = queries[_some(len(queries), config.queries, generator)]
    gallery = gallery[_some(len(gallery), config.gallery_rows, generator)]
    trained = store.rows("train")
    trained = trained[_some(len(trained), config.train_rows, generator)]
    rows = [trained, queries.rows, gallery.rows]
    features = features_of(run, store, np.concatenate(rows), map_shards)
    train, asked, ranked = np.split(features, np.cumsum([len(part) for part in rows])[:-1])
    sides = Sides(train, store.labels[trained], asked, ranked, queries, gallery, bits)
    figures = {
        "model": _ap(queries.codes, gallery.codes, sides),
        "classifier": classifier_ap(sides, config.seed),
        "cosine": cosine_ap(sides),
        "random": random_ap(sides, generator),
    }
    found: dict[str, Any] = {"queries": len(queries), "gallery": len(gallery)}
    found["train_rows"] = len(trained)
    for name, values in figures.items():
        known = interval(values)
        found[name] = None if known is None else asdict(known)
    gap = paired_difference(figures["classifier"], figures["model"])
    found["model_less_classifier"] = None if gap is None else asdict(gap)
    return found


def classifier_ap(sides: Sides, seed: int) -> NDArray[np.float64]:
    """Average precision [Q] of codes that are the codeword of the predicted class."""
    predict = linear_classifier(sides.train_features, sides.train_labels)
    predicted = vstack([predict(sides.query_features), predict(sides.gallery_features)]).tocsr()
    codes = codewords(csr_array(predicted), sides.bits, seed)
    asked = len(sides.queries)
    return _ap(codes[:asked], codes[asked:], sides)


def codewords(labels: csr_array, bits: int, seed: int) -> NDArray[np.uint8]:
    """Give each label set [n, C] its codeword, packed [n, ceil(K / 8)].

    Far apart where there are as many codes as classes; at random otherwise.
    """
    enough = bits >= 63 or labels.shape[1] <= 2**bits
    table = initial_codes("hadamard" if enough else "random", label_sets(labels), bits, seed)
    return np.asarray(table.packed)


def linear_classifier(features: Floats, labels: csr_array) -> Callable[[Floats], csr_array]:
    """Fit logistic regression on features [n, d] and labels [n, C].

    Returns:
        Features [m, d] -> predicted labels [m, C]: one where no row had several; else each class
        by itself, and the likeliest one where none is likely.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    single = bool(np.all(np.diff(labels.indptr) == 1))
    logistic = LogisticRegression(max_iter=300)
    known = np.unique(labels.indices)
    classes = labels.shape[1]
    if single and len(known) == 1:
        return lambda some: _as_labels(np.full(len(some), known[0]), classes)
    if single:
        model = make_pipeline(StandardScaler(), logistic).fit(features, labels.indices)
        return lambda some: _as_labels(model.predict(some), classes)
    targets = labels[:, known].toarray()
    often = targets.any(axis=0) & ~targets.all(axis=0)  # the others have nothing to tell apart
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(logistic))
    model.fit(features, targets[:, often])
    return lambda some: _likely(np.atleast_2d(model.predict_proba(some)), known[often], classes)


def cosine_ap(sides: Sides) -> NDArray[np.float64]:
    """Average precision [Q] of the ranking by cosine of the features, exact under ties."""
    asked, ranked = (_normalised(side) for side in (sides.query_features, sides.gallery_features))
    query_sets, gallery_sets = label_sets(sides.queries.labels), label_sets(sides.gallery.labels)
    shared = share_a_label(query_sets.sets, gallery_sets.sets)
    values = np.full(len(asked), np.nan)
    for place, feature in enumerate(asked):
        relevant = shared[query_sets.set_of_row[place]][gallery_sets.set_of_row]
        values[place] = average_precision(ranked_by(ranked @ feature, relevant))[0]
    return values


def ranked_by(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Histograms:
    """Return the histograms of one query by any scores [G], high ones first: a level a value."""
    _, level = np.unique(-scores, return_inverse=True)
    everyone = np.bincount(level)
    return Histograms(everyone[None], np.bincount(level[relevant], minlength=len(everyone))[None])


def random_ap(sides: Sides, generator: np.random.Generator) -> NDArray[np.float64]:
    """Average precision [Q] of codes of coin tosses."""
    rows = len(sides.queries) + len(sides.gallery)
    codes = pack(generator.integers(0, 2, (rows, sides.bits), dtype=np.int8) * 2 - 1)
    return _ap(codes[: len(sides.queries)], codes[len(sides.queries) :], sides)


@dataclass(frozen=True, eq=False)
class RowsPart:
    """Rows of a store whose features are wanted."""

    number: int
    places: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.places)


def features_of(
    run: Path | str, store: Store, rows: NDArray[np.int64], map_shards: MapShards
) -> Floats:
    """Return the network's features F_v of rows of a store [m, d_v], computed by ``map_shards``."""
    starts = range(0, len(rows), _PART_ROWS)
    parts = [RowsPart(n, rows[start : start + _PART_ROWS]) for n, start in enumerate(starts)]
    function = functools.partial(part_features, store=store, run=as_location(run))
    # a pool of workers takes longer to start than a few thousand images to run through
    found = dict((map_locally if len(parts) <= _PARTS_HERE else map_shards)(function, parts))
    return np.concatenate([found[number] for number in range(len(parts))]).astype(np.float32)


def part_features(
    part: RowsPart, store: Store, run: str, batch_size: int = 64
) -> tuple[int, NDArray[np.float16]]:
    """Return the number of a part and its features; run by whoever ``map_shards`` chooses."""
    hasher = _loaded(run)
    batches = [part.places[start : start + batch_size] for start in range(0, part.rows, batch_size)]
    seen = [hasher.features(_views(store, batch, hasher)).numpy() for batch in batches]
    return part.number, np.concatenate(seen).astype(np.float16)


@functools.lru_cache(maxsize=1)
def _loaded(run: str) -> Hasher:
    return load(run)


def _views(store: Store, rows: NDArray[np.int64], hasher: Hasher) -> NDArray[np.uint8]:
    preprocessing = hasher.spec.preprocessing
    return np.stack([evaluation_view(store.image(int(row)), preprocessing) for row in rows])


def _some(rows: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return all places, or at most so many of them at random, ascending."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(generator.choice(rows, most, replace=False))


def _ap(
    queries: NDArray[np.uint8], gallery: NDArray[np.uint8], sides: Sides
) -> NDArray[np.float64]:
    labels = sides.queries.labels, sides.gallery.labels
    return average_precision(
        distance_histograms(queries, labels[0], gallery, labels[1], sides.bits)
    )


def _normalised(features: Floats) -> Floats:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, length, out=np.zeros_like(features), where=length > 0)


def _as_labels(predicted: NDArray[np.integer], classes: int) -> csr_array:
    rows = len(predicted)
    ones = np.ones(rows, np.uint8)
    return csr_array((ones, predicted, np.arange(rows + 1)), shape=(rows, classes))


def _likely(
    probability: NDArray[np.floating], known: NDArray[np.integer], classes: int
) -> csr_array:
    chosen = probability >= 0.5
    chosen[np.arange(len(chosen)), probability.argmax(axis=1)] = True
    dense = np.zeros((len(chosen), classes), np.uint8)
    dense[:, known] = chosen
    return csr_array(dense)
