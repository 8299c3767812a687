"""Controls: what a figure has to beat before it means that similarity was learned.

``classifier``: a linear classifier on the network's features; an image's code is the codeword of
its predicted class. It knows classes and nothing else, so a method that does not beat it has
learned classes, not similarity (Sablayrolles et al., ICASSP 2017). ``cosine``: the unquantised
features; the difference is what a short code costs. ``random``: random codes, the lower bound.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from schn_ray.evaluation.figures import Controls
from schn_ray.evaluation.metrics.average_precision import average_precision
from schn_ray.evaluation.metrics.bootstrap import interval, paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import Histograms, distance_histograms
from schn_ray.methods.code_table import initial_codes
from schn_ray.models.hasher import Hasher, load

Floats = NDArray[np.float32]
_PART_ROWS = 2_048
_LOCAL_PARTS = 2  # up to so many, a pool of workers takes longer to start than the work


@dataclass(frozen=True, eq=False)
class Sides:
    """What the controls rank: features, codes and labels of one sample of rows.

    Attributes:
        train_features: of the training rows [n, d].
        train_labels: of the training rows [n, C].
        query_features: of the queries [Q, d].
        gallery_features: of the gallery rows [G, d].
        queries: codes and labels of the queries.
        gallery: codes and labels of the gallery rows.
        bits: bits of a code, K.
    """

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
) -> Controls:
    """Measure every control, and the model on the very same rows.

    Args:
        run: a finished run; its network computes the features.
        store: has the images.
        queries: Q of them, with the model's codes.
        gallery: G rows, with the model's codes.
        bits: bits of a code, K.
        config: how many rows are drawn at random, and the seed.
        map_shards: computes features, on whatever machines.
    """
    generator = np.random.default_rng([config.seed, bits])
    queries = queries[_sample(len(queries), config.queries, generator)]
    gallery = gallery[_sample(len(gallery), config.gallery_rows, generator)]
    trained = store.rows("train")
    trained = trained[_sample(len(trained), config.train_rows, generator)]
    rows = [trained, queries.rows, gallery.rows]
    features = features_of(run, store, np.concatenate(rows), map_shards)
    bounds = np.cumsum([len(part) for part in rows])[:-1]
    train, query, ranked = np.split(features, bounds)
    sides = Sides(train, store.labels[trained], query, ranked, queries, gallery, bits)
    model = _ap(queries.codes, gallery.codes, sides)
    classifier = classifier_ap(sides, config.seed)
    return Controls(
        queries=len(queries),
        gallery=len(gallery),
        train_rows=len(trained),
        model=interval(model),
        classifier=interval(classifier),
        cosine=interval(cosine_ap(sides)),
        random=interval(random_ap(sides, generator)),
        model_less_classifier=paired_difference(classifier, model),
    )


def classifier_ap(sides: Sides, seed: int) -> NDArray[np.float64]:
    """Return average precision [Q] of codes that are the codeword of the predicted class.

    Args:
        sides: what is ranked.
        seed: of the codewords.
    """
    predict = linear_classifier(sides.train_features, sides.train_labels)
    predicted = vstack([predict(sides.query_features), predict(sides.gallery_features)]).tocsr()
    codes = codewords(csr_array(predicted), sides.bits, seed)
    queries = len(sides.queries)
    return _ap(codes[:queries], codes[queries:], sides)


def codewords(labels: csr_array, bits: int, seed: int) -> NDArray[np.uint8]:
    """Return the codeword of each row's label set, packed [n, ceil(K / 8)].

    Codewords are far apart where K bits have as many codes as there are classes, else random.

    Args:
        labels: [n, C].
        bits: bits of a code, K.
        seed: of the codewords.
    """
    enough = bits >= 63 or labels.shape[1] <= 2**bits
    table = initial_codes("hadamard" if enough else "random", label_sets(labels), bits, seed)
    return np.asarray(table.packed)


def linear_classifier(features: Floats, labels: csr_array) -> Callable[[Floats], csr_array]:
    """Fit logistic regression.

    Args:
        features: [n, d].
        labels: [n, C].

    Returns:
        A function of features [m, d] that predicts labels [m, C]. Where each row has one label, it
        predicts one. Otherwise it predicts each class with probability 0.5 or more, and always
        the most probable one.
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
        return lambda rows: _as_labels(np.full(len(rows), known[0]), classes)
    if single:
        model = make_pipeline(StandardScaler(), logistic).fit(features, labels.indices)
        return lambda rows: _as_labels(model.predict(rows), classes)
    targets = labels[:, known].toarray()
    varies = targets.any(axis=0) & ~targets.all(axis=0)  # else there is nothing to learn
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(logistic))
    model.fit(features, targets[:, varies])
    return lambda rows: _likely(np.atleast_2d(model.predict_proba(rows)), known[varies], classes)


def cosine_ap(sides: Sides) -> NDArray[np.float64]:
    """Return average precision [Q] of the ranking by cosine of the features, exact under ties.

    Args:
        sides: what is ranked.
    """
    query_side, ranked = (
        _normalised(features) for features in (sides.query_features, sides.gallery_features)
    )
    query_sets, gallery_sets = label_sets(sides.queries.labels), label_sets(sides.gallery.labels)
    shared = share_a_label(query_sets.sets, gallery_sets.sets)
    values = np.full(len(query_side), np.nan)
    for query, feature in enumerate(query_side):
        relevant = shared[query_sets.set_of_row[query]][gallery_sets.set_of_row]
        values[query] = average_precision(ranked_by(ranked @ feature, relevant))[0]
    return values


def ranked_by(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Histograms:
    """Return the histograms of one query that ranks by scores, high ones first.

    Each distinct score is a level, as a Hamming distance is elsewhere.

    Args:
        scores: of the gallery rows [G].
        relevant: of the gallery rows [G].
    """
    _, level = np.unique(-scores, return_inverse=True)
    rows = np.bincount(level)
    return Histograms(rows[None], np.bincount(level[relevant], minlength=len(rows))[None])


def random_ap(sides: Sides, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return average precision [Q] of random codes.

    Args:
        sides: what is ranked; its codes are not used.
        generator: draws the codes.
    """
    rows = len(sides.queries) + len(sides.gallery)
    codes = pack(generator.integers(0, 2, (rows, sides.bits), dtype=np.int8) * 2 - 1)
    return _ap(codes[: len(sides.queries)], codes[len(sides.queries) :], sides)


@dataclass(frozen=True, eq=False)
class RowsPart:
    """Rows of a store whose features are to be computed.

    Attributes:
        number: of the part, from 0.
        store_rows: numbers of the rows in the store.
    """

    number: int
    store_rows: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.store_rows)


def features_of(
    run: Path | str, store: Store, rows: NDArray[np.int64], map_shards: MapShards
) -> Floats:
    """Return the network's features F_v of rows of a store [m, d_v].

    Args:
        run: a finished run.
        store: has the images.
        rows: numbers of the rows [m].
        map_shards: computes parts of the rows, on whatever machines.
    """
    starts = range(0, len(rows), _PART_ROWS)
    parts = [RowsPart(n, rows[start : start + _PART_ROWS]) for n, start in enumerate(starts)]
    function = functools.partial(part_features, store=store, run=as_location(run))
    features = dict((map_locally if len(parts) <= _LOCAL_PARTS else map_shards)(function, parts))
    return np.concatenate([features[number] for number in range(len(parts))]).astype(np.float32)


def part_features(
    part: RowsPart, store: Store, run: str, batch_size: int = 64
) -> tuple[int, NDArray[np.float16]]:
    """Compute the features of a part, on the worker that ``map_shards`` chooses.

    Args:
        part: the rows.
        store: has the images.
        run: a finished run.
        batch_size: images that go through the network at a time.

    Returns:
        The number of the part, and its features [rows, d_v].
    """
    hasher = _loaded(run)
    starts = range(0, part.rows, batch_size)
    batches = [part.store_rows[start : start + batch_size] for start in starts]
    features = [hasher.features(_views(store, batch, hasher)).numpy() for batch in batches]
    return part.number, np.concatenate(features).astype(np.float16)


@functools.lru_cache(maxsize=1)
def _loaded(run: str) -> Hasher:
    return load(run)


def _views(store: Store, rows: NDArray[np.int64], hasher: Hasher) -> NDArray[np.uint8]:
    preprocessing = hasher.spec.preprocessing
    return np.stack([evaluation_view(store.image(int(row)), preprocessing) for row in rows])


def _sample(rows: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return all positions 0..rows-1, or ``most`` of them at random, ascending."""
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
