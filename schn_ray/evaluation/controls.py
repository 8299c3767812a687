"""Controls: what a figure has to beat before it means that similarity was learned.

``classifier``: a linear classifier on the network's features; an image's code is the codeword of
its predicted class. It knows classes and nothing else, so a method that does not beat it has
learned classes, not similarity (Sablayrolles et al., ICASSP 2017). ``cosine``: the unquantised
features; the difference is what a short code costs. ``itq``, ``pca_rotation`` and ``lsh``: hashes
of the very features that need no labels (``evaluation.hash_controls``). ``random``: random codes,
the lower bound.

All are ranked by mean average precision, which needs labels, and by recall of the exact nearest
rows by cosine of the features, which needs none (``metrics.recall``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from schn_ray.core.bits import pack
from schn_ray.data.labels import label_sets, share_a_label
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import ControlsConfig
from schn_ray.evaluation.features import RowFeatures
from schn_ray.evaluation.figures import Controls, NeighbourRecall
from schn_ray.evaluation.hash_controls import hash_controls
from schn_ray.evaluation.metrics.average_precision import average_precision
from schn_ray.evaluation.metrics.bootstrap import Difference, interval, paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import Histograms, distance_histograms
from schn_ray.evaluation.metrics.recall import RecallRanks, neighbour_recalls
from schn_ray.methods.code_table import initial_codes

Floats = NDArray[np.float32]
Values = NDArray[np.float64]  # one a query
Codes = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # of the queries and of the gallery


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

    @property
    def labelled(self) -> bool:
        """Whether there are classes at all."""
        return self.train_labels.shape[1] > 0


@dataclass(frozen=True, eq=False)
class MeasuredControls:
    """The controls of an evaluation.

    Attributes:
        figures: of the model and of every control.
        recall: name of a column -> the model's recall of each query [Q]; NaN where a query was not
            drawn.
    """

    figures: Controls
    recall: dict[str, Values]


def measure_controls(
    features: RowFeatures,
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    bits: int,
    config: ControlsConfig,
    recall_at: Sequence[int],
) -> MeasuredControls:
    """Measure every control, and the model on the very same rows.

    Args:
        features: of the rows of the store.
        store: has the labels and the training rows.
        queries: Q of them, with the model's codes.
        gallery: G rows, with the model's codes.
        bits: bits of a code, K.
        config: how many rows are drawn at random, and the seed.
        recall_at: ranks of the recall of exact neighbours; see ``recall_ranks``.
    """
    drawn, ranked, chosen, generator = drawn_sides(queries, gallery, config)
    trained = store.rows("train")
    trained = trained[_sample(len(trained), config.train_rows, generator)]
    rows = [trained, drawn.rows, ranked.rows]
    F = features.of(np.concatenate(rows))
    train, query, other = np.split(F, np.cumsum([len(part) for part in rows])[:-1])
    sides = Sides(train, store.labels[trained], query, other, drawn, ranked, bits)
    return measure_sides(sides, chosen, len(queries), config.seed, recall_at)


def measure_sides(
    sides: Sides,
    chosen: NDArray[np.integer],
    queries: int,
    seed: int,
    recall_at: Sequence[int],
) -> MeasuredControls:
    """Measure every control of drawn rows.

    Args:
        sides: the rows.
        chosen: positions of its queries among all.
        queries: how many all are.
        seed: see ``control_codes``.
        recall_at: see ``recall_ranks``.
    """
    codes = control_codes(sides, seed)
    ranks = recall_ranks(recall_at, len(sides.gallery))
    features = sides.query_features, sides.gallery_features
    recalls = neighbour_recalls(*features, codes, sides.bits, ranks)
    figures = Controls(
        queries=len(chosen),
        gallery=len(sides.gallery),
        train_rows=len(sides.train_features),
        recall=tuple(_recall(at, {name: recalls[name][at] for name in codes}) for at in ranks),
        **_precision(sides, codes),
    )
    values = zip(figures.recall, recalls["model"].values(), strict=True)
    return MeasuredControls(
        figures, {each.column: _spread(own, chosen, queries) for each, own in values}
    )


def drawn_sides(
    queries: LabelledCodes, gallery: LabelledCodes, config: ControlsConfig
) -> tuple[LabelledCodes, LabelledCodes, NDArray[np.int64], np.random.Generator]:
    """Draw the queries and the gallery rows of the controls.

    Args:
        queries: Q of them.
        gallery: G rows.
        config: how many, and the seed.

    Returns:
        The drawn queries, the drawn rows, positions of the drawn queries, and the generator.
    """
    generator = np.random.default_rng([config.seed, 0])
    chosen = _sample(len(queries), config.queries, generator)
    ranked = gallery[_sample(len(gallery), config.gallery_rows, generator)]
    return queries[chosen], ranked, chosen, generator


def control_codes(sides: Sides, seed: int) -> dict[str, Codes]:
    """Return name -> codes of the queries and of the gallery: the model's and each control's.

    Args:
        sides: the rows. Without labels there is no classifier; without training rows there is
            nothing that is fitted.
        seed: of the codewords, of the projections and of the random codes.
    """
    codes: dict[str, Codes] = {"model": (sides.queries.codes, sides.gallery.codes)}
    if len(sides.train_features):
        if sides.labelled:
            codes["classifier"] = classifier_codes(sides, seed)
        fitted = hash_controls(sides.train_features, sides.bits, seed)
        for name, hash in fitted.items():
            codes[name] = (
                pack(hash.codes(sides.query_features)),
                pack(hash.codes(sides.gallery_features)),
            )
    return codes | {"random": random_bits(sides, seed)}


def recall_ranks(recall_at: Sequence[int], gallery_rows: int) -> list[RecallRanks]:
    """Return the pairs of k neighbours and first ranks: each k with every rank from k upwards.

    Args:
        recall_at: ranks; those that the gallery does not exceed are left out, as a list of the
            whole gallery has every neighbour.
        gallery_rows: G.
    """
    ks = sorted({k for k in recall_at if k < gallery_rows})
    return [RecallRanks(k, first) for k in ks for first in ks if first >= k]


def ranked_ap(codes: Codes, sides: Sides) -> Values:
    """Return average precision [Q] of the rows with other codes, exact under ties.

    Args:
        codes: of the queries and of the gallery.
        sides: has their labels; its codes are not used.
    """
    labels = sides.queries.labels, sides.gallery.labels
    return average_precision(
        distance_histograms(codes[0], labels[0], codes[1], labels[1], sides.bits)
    )


def classifier_codes(sides: Sides, seed: int) -> Codes:
    """Return the codeword of each row's predicted class.

    Args:
        sides: what is ranked.
        seed: of the codewords.
    """
    predict = linear_classifier(sides.train_features, sides.train_labels)
    predicted = vstack([predict(sides.query_features), predict(sides.gallery_features)]).tocsr()
    codes = codewords(csr_array(predicted), sides.bits, seed)
    return codes[: len(sides.queries)], codes[len(sides.queries) :]


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


def random_bits(sides: Sides, seed: int) -> Codes:
    """Return random bits for each row.

    Args:
        sides: the rows; its codes are not used.
        seed: of the draw.
    """
    rows = len(sides.queries) + len(sides.gallery)
    generator = np.random.default_rng([seed, sides.bits])
    codes = pack(generator.integers(0, 2, (rows, sides.bits), dtype=np.int8) * 2 - 1)
    return codes[: len(sides.queries)], codes[len(sides.queries) :]


def _precision(sides: Sides, codes: Mapping[str, Codes]) -> dict[str, Any]:
    """Return the fields of ``Controls`` that need labels."""
    if not sides.labelled:
        return {}
    ap = {name: ranked_ap(each, sides) for name, each in codes.items()}
    intervals = {name: interval(values) for name, values in ap.items()}
    return intervals | {
        "cosine": interval(cosine_ap(sides)),
        "model_less_classifier": _model_less("classifier", ap),
        "model_less_itq": _model_less("itq", ap),
    }


def _recall(at: RecallRanks, values: Mapping[str, Values]) -> NeighbourRecall:
    fields: dict[str, Any] = {name: interval(each) for name, each in values.items()}
    gap = _model_less("itq", values)
    return NeighbourRecall(k=at.k, first=at.first, model_less_itq=gap, **fields)


def _model_less(control: str, values: Mapping[str, Values]) -> Difference | None:
    if control not in values:
        return None
    return paired_difference(values[control], values["model"])


def _spread(values: Values, chosen: NDArray[np.integer], queries: int) -> Values:
    """Return the values of the drawn queries among all [Q], NaN elsewhere."""
    spread = np.full(queries, np.nan)
    spread[chosen] = values
    return spread


def _sample(rows: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return all positions 0..rows-1, or ``most`` of them at random, ascending."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(generator.choice(rows, most, replace=False))


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
