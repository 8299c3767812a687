"""The published protocols, and how they split rows into queries, gallery and training rows.

Roles are ``query``, ``train``, ``validation`` (taken from the training rows) and ``gallery``, which
contains the training rows in some protocols. Rows without a label have no role, unless a protocol
or a setting puts them into the gallery. Rows of the role ``junk`` are never ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError, few, nearest
from schn_ray.data.config import PrepareConfig
from schn_ray.data.splits.unseen_classes import of_unseen_classes, unseen_queries

ROLES = ("train", "validation", "query", "gallery")
JUNK = "junk"  # rows that re-identification leaves out of every ranking
ALL_ROWS = "the data set"
RANDOM, GIVEN, UNLABELLED, STABLE = "random", "given", "unlabelled", "stable"

_CHUNK_ROWS = 1 << 16  # at a time, so that memory does not grow with the rows
Rows = NDArray[np.int64]
Numbers = NDArray[np.signedinteger]
Split = dict[str, Rows]
Counts = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Protocol:
    """How a split is drawn, and what its result must be.

    Attributes:
        draw: how queries and training rows are chosen. ``shares``: the config's shares of the rows;
            ``per-class``: so many rows of each class; ``per-label``: the same for rows with more
            than one label; ``counts``: so many of all rows; ``official``: the training and test
            rows of the data set; ``listed``: the training, test and database rows of the data set;
            ``unseen``: a share of the classes is held out of training, and their rows are queries
            and gallery; ``unlabelled``: the config's shares of all rows, whatever their labels;
            ``stable``: by each row's id and bytes, see ``splits/stable``.
        gallery: ``rest``: neither query nor training; ``not-query``: all but the queries;
            ``train``: the training rows; ``listed``: the database rows of the data set.
        query: number of queries, of each class or in total.
        train: number of training rows, of each class or in total.
        counts: required number of query, training (with validation) and gallery rows; None: any
            number.
        classes: required number of classes.
        most_frequent: use only this many classes, those with the most images.
        unlabelled: whether rows without a label are in the gallery, as distractors.
        metric: the metric of published tables.
    """

    draw: Literal[
        "shares",
        "unseen",
        "per-class",
        "per-label",
        "counts",
        "official",
        "listed",
        "unlabelled",
        "stable",
    ]
    gallery: Literal["rest", "not-query", "train", "listed"]
    query: int = 0
    train: int = 0
    counts: Counts | None = None
    classes: int | None = None
    most_frequent: int | None = None
    unlabelled: bool = False
    metric: str = "mAP over all"

    @property
    def published_rank(self) -> int | None:
        """The k of a metric mAP@k; None where all ranks count."""
        rank = self.metric.partition("mAP@")[2]
        return int(rank) if rank else None


_REID = "re-identification mAP, CMC"
PROTOCOLS = {
    RANDOM: Protocol("shares", "rest"),
    UNLABELLED: Protocol("unlabelled", "not-query", unlabelled=True, metric="recall"),
    STABLE: Protocol("stable", "rest"),
    "unseen-classes": Protocol("unseen", "rest"),
    "official": Protocol("official", "train"),
    "listed": Protocol("listed", "listed"),
    "cifar10-54k": Protocol("per-class", "rest", 100, 500, (1_000, 5_000, 54_000), 10),
    "cifar10-59k": Protocol("per-class", "not-query", 100, 500, (1_000, 5_000, 59_000), 10),
    "cifar10-full": Protocol("official", "train", counts=(10_000, 50_000, 50_000), classes=10),
    "nuswide-21": Protocol(
        "per-label", "not-query", 100, 500, (2_100, 10_500, 193_734), 21, 21, metric="mAP@5000"
    ),
    # 24,000 with the 419 images that have no concept, which are left out
    "mirflickr": Protocol(
        "counts", "not-query", 1_000, 5_000, (1_000, 5_000, None), 38, metric="mAP@5000"
    ),
    "imagenet100": Protocol(
        "listed", "listed", counts=(5_000, 13_000, 128_503), classes=100, metric="mAP@1000"
    ),
    "coco": Protocol(
        "counts", "not-query", 5_000, 10_000, (5_000, 10_000, 117_218), 80, metric="mAP@5000"
    ),
    # 19,732 with the 3,819 junk images
    "market1501": Protocol(
        "listed", "listed", 0, 0, (3_368, 12_936, 15_913), 1_501, unlabelled=True, metric=_REID
    ),
    "veri776": Protocol(
        "listed", "listed", 0, 0, (1_678, 37_778, 11_579), 776, unlabelled=True, metric=_REID
    ),
}
_GIVEN = Protocol("listed", "listed")  # for --split-from


def find_protocol(name: str) -> Protocol:
    """Return the protocol with a name.

    Args:
        name: a key of ``PROTOCOLS``, or ``given``.

    Raises:
        SchnRayError: there is no protocol with this name; the error lists all.
    """
    if name == GIVEN:
        return _GIVEN
    if name not in PROTOCOLS:
        raise SchnRayError(
            f"no protocol '{name}'{nearest(name, list(PROTOCOLS)) or '.'} "
            f"There are: {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name]


def split(
    labels: csr_array[Any],
    classes: Sequence[str],
    official: pa.ChunkedArray,
    config: PrepareConfig,
) -> Split:
    """Split rows into roles. The result depends only on the rows, their order and the config.

    ``unlabelled`` draws from all rows, and has no validation rows: nothing tells which of them are
    similar. If no row has more than one label, ``random`` draws within each class, so that every
    role has every class. Otherwise it draws from all rows.

    Args:
        labels: [n, C] label matrix.
        classes: C names, for messages.
        official: [n] roles that the data set gives a row: null or words such as ``train``,
            ``test``, ``database`` and ``junk``, separated by spaces.
        config: protocol, seed and shares.

    Returns:
        role -> its rows, ascending.

    Raises:
        SchnRayError: an unknown protocol, shares that leave a role empty, or too few images.
    """
    protocol = find_protocol(config.protocol)
    _check_classes(config.protocol, protocol, classes)
    _check_shares(protocol, config)
    generator = np.random.default_rng([config.seed, 0])
    if protocol.draw == "unlabelled":
        return _of_all_rows(_has_role(official, JUNK), config, generator)
    groups = _groups(labels, classes, protocol)
    query, train = _drawn(protocol, config, labels, official, groups, generator)
    rows, group, _ = groups
    held_out = _validation(group[train[rows]], config.validation_share, generator)
    gallery = _gallery(protocol, config, labels, official, query, train)
    _check_counts(config.protocol, protocol, query, train, gallery)
    is_junk = _has_role(official, JUNK)
    junk = {JUNK: np.flatnonzero(is_junk)} if is_junk.any() else {}
    training = np.flatnonzero(train)
    return {
        "train": training[~held_out],
        "validation": training[held_out],
        "query": np.flatnonzero(query),
        "gallery": np.flatnonzero(gallery),
    } | junk


def held_out_rows(labels: csr_array[Any], share: float, seed: int) -> NDArray[np.bool_]:
    """Tell which training rows [n] can judge settings, because nothing is trained on them.

    If no row has more than one label, they are drawn within each class; otherwise, of all labelled
    rows. Rows without a label are never drawn.

    Args:
        labels: [n, C] of the training rows.
        share: of the labelled rows.
        seed: of the draw.
    """
    per_row = np.diff(labels.indptr)
    labelled = np.flatnonzero(per_row)
    one_each = per_row.max(initial=0) <= 1
    group = labels.indices if one_each else np.zeros(len(labelled), np.int64)
    chosen = _validation(group, share, np.random.default_rng([seed, 1]))
    return np.isin(np.arange(len(per_row)), labelled[chosen])


def _of_all_rows(
    is_junk: NDArray[np.bool_], config: PrepareConfig, generator: np.random.Generator
) -> Split:
    """Draw queries and training rows; the gallery is all that are not queries."""
    rows = generator.permutation(np.flatnonzero(~is_junk))
    if len(rows) < 2:
        raise SchnRayError(f"{len(rows)} rows: a query and a gallery need at least two")
    queries = int(np.clip(round(len(rows) * config.query_share), 1, len(rows) - 1))
    training = int(np.clip(round(len(rows) * config.train_share), 1, len(rows) - queries))
    junk = {JUNK: np.flatnonzero(is_junk)} if is_junk.any() else {}
    return {
        "train": np.sort(rows[queries : queries + training]),
        "validation": rows[:0],
        "query": np.sort(rows[:queries]),
        "gallery": np.sort(rows[queries:]),
    } | junk


def most_frequent(labels: csr_array[Any], count: int) -> Rows:
    """Return the classes with the most rows.

    Args:
        labels: [n, C] label matrix.
        count: how many classes to return.

    Returns:
        [count] class numbers, ascending; of classes with equally many rows, the first ones.
    """
    rows = np.bincount(labels.indices, minlength=labels.shape[1])
    return np.sort(np.argsort(-rows, kind="stable")[:count])


def check_given(name: str, split: Split, classes: Sequence[str]) -> None:
    """Check that a given split has the classes and numbers of rows of its protocol.

    Args:
        name: of the protocol.
        split: role -> rows.
        classes: names of the classes.

    Raises:
        SchnRayError: it has not, or a role is empty; the error has both counts.
    """
    protocol = find_protocol(name)
    if classes or name != GIVEN:
        _check_classes(name, protocol, classes)
    if empty := [role for role in ("train", "query", "gallery") if not len(split[role])]:
        raise SchnRayError(f"the given split has no {empty[0]} rows; it needs at least one")
    train = np.concatenate([split["train"], split["validation"]])
    _check_numbers(name, protocol, (len(split["query"]), len(train), len(split["gallery"])))


def _drawn(
    protocol: Protocol,
    config: PrepareConfig,
    labels: csr_array[Any],
    official: pa.ChunkedArray,
    groups: tuple[Rows, Numbers, list[str]],
    generator: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which rows are queries, and which are training rows: [n] each."""
    labelled = _labelled(labels)
    if protocol.draw in ("official", "listed"):
        return _has_role(official, "test") & labelled, _has_role(official, "train") & labelled
    if protocol.draw == "per-label":
        return _per_label(config.protocol, protocol, labels, generator)
    rows, group, names = groups
    query, train = np.zeros((2, len(labelled)), bool)
    if protocol.draw == "unseen":
        train[rows] = ~of_unseen_classes(labels[rows], config.unseen_share, generator)
        queries = unseen_queries(group[~train[rows]], len(names), config.query_share)
        # rank the seen and the unseen rows of each group separately
        rank = _ranks(2 * group + train[rows], generator)
        query[rows] = ~train[rows] & (rank < queries[group])
        return query, train
    queries, training = _group_counts(protocol, config, group, names)
    rank = _ranks(group, generator)
    query[rows] = rank < queries[group]
    train[rows] = ~query[rows] & (rank < (queries + training)[group])
    return query, train


def _per_label(
    name: str, protocol: Protocol, labels: csr_array[Any], generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw queries and then training rows of each class, from the rows that are not drawn yet.

    The rarest class is drawn first, because other classes could take the few rows that it has.
    """
    n = labels.shape[0]
    order, by_class = generator.permutation(n), labels.tocsc()
    query, train = np.zeros((2, n), bool)
    rarest_first = np.argsort(np.diff(by_class.indptr), kind="stable")
    for drawn, count in ((query, protocol.query), (train, protocol.train)):
        for c in rarest_first:
            has = np.zeros(n, bool)
            has[by_class.indices[by_class.indptr[c] : by_class.indptr[c + 1]]] = True
            free = order[(has & ~query & ~train)[order]]
            if len(free) < count:
                raise SchnRayError(
                    f"class number {c} has {len(free):,} images that are not drawn yet: {name} "
                    f"needs {count} of each"
                )
            drawn[free[:count]] = True
    return query, train


def _gallery(
    protocol: Protocol,
    config: PrepareConfig,
    labels: csr_array[Any],
    official: pa.ChunkedArray,
    query: NDArray[np.bool_],
    train: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Tell which rows are in the gallery: [n]."""
    allowed = np.ones(len(query), bool)
    if not (protocol.unlabelled or config.keep_unlabelled):
        allowed = _labelled(labels)
    chosen = {
        "rest": ~query & ~train,
        "not-query": ~query,
        "train": train,
        "listed": _has_role(official, "database"),
    }[protocol.gallery]
    return np.asarray(chosen & allowed & ~_has_role(official, JUNK), bool)


def _labelled(labels: csr_array[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.diff(labels.indptr) > 0, bool)


def _has_role(official: pa.ChunkedArray, role: str) -> NDArray[np.bool_]:
    """Tell which rows have this role in the data set: [n]."""
    values = [text for text in pc.unique(official).to_pylist() if role in (text or "").split()]
    return pc.is_in(official, value_set=pa.array(values, pa.string())).to_numpy()


def _groups(
    labels: csr_array[Any], classes: Sequence[str], protocol: Protocol
) -> tuple[Rows, Numbers, list[str]]:
    """Return the labelled rows, the group in which each is drawn, and the groups' names."""
    per_row = np.diff(labels.indptr)
    rows = np.flatnonzero(per_row)
    if protocol.draw == "counts" or per_row.max(initial=0) > 1:
        return rows, np.zeros(len(rows), np.int64), [ALL_ROWS]
    return rows, labels.indices, [f"class '{name}'" for name in classes]


def _ranks(group: Numbers, generator: np.random.Generator) -> Rows:
    """Return each row's rank, from 0, in a random order of its group."""
    order = generator.permutation(len(group))
    ranks, before = np.empty(len(group), np.int64), np.zeros(group.max(initial=-1) + 1, np.int64)
    for start in range(0, len(order), _CHUNK_ROWS):
        rows = order[start : start + _CHUNK_ROWS]
        rows = rows[np.argsort(group[rows], kind="stable")]
        sizes = np.bincount(group[rows], minlength=len(before))
        first = np.cumsum(sizes) - sizes
        ranks[rows] = np.arange(len(rows)) + (before - first)[group[rows]]
        before += sizes
    return ranks


def _group_counts(
    protocol: Protocol, config: PrepareConfig, group: Numbers, names: list[str]
) -> tuple[Rows, Rows]:
    """Return how many queries and training rows to draw from each group."""
    sizes = np.bincount(group, minlength=len(names))
    if protocol.draw in ("per-class", "counts"):
        if protocol.draw == "per-class" and names == [ALL_ROWS]:
            raise SchnRayError(f"{config.protocol} draws by class, but some rows have two labels")
        _check_sizes(sizes, names, protocol.query + protocol.train + 1, config)
        return np.full_like(sizes, protocol.query), np.full_like(sizes, protocol.train)
    _check_sizes(sizes, names, 4 if config.validation_share else 3, config)
    at_least = 2 if config.validation_share else 1
    queries = np.clip(np.rint(sizes * config.query_share), 1, sizes - at_least - 1)
    training = np.clip(np.rint(sizes * config.train_share), at_least, sizes - queries - 1)
    return queries.astype(np.int64), training.astype(np.int64)


def _validation(group: Numbers, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Tell which training rows are for validation.

    Each group keeps at least one row for training; a group of two or more gives at least one.
    """
    if not share or not len(group):
        return np.zeros(len(group), bool)
    sizes = np.bincount(group)
    held_out = np.minimum(np.maximum(np.rint(sizes * share), 1), sizes - 1)
    return _ranks(group, generator) < held_out[group]


def _check_classes(name: str, protocol: Protocol, classes: Sequence[str]) -> None:
    """Check that there are at least two classes, and as many as the protocol has.

    Raises:
        SchnRayError: with both numbers.
    """
    if protocol.draw == UNLABELLED:
        return
    if len(classes) < 2:
        raise SchnRayError(
            f"wanted at least two classes, got {len(classes)} ({', '.join(classes) or 'none'}): "
            "hashing learns from which images differ. Without labels, split by "
            f"--protocol {UNLABELLED}"
        )
    if protocol.classes not in (None, len(classes)):
        raise SchnRayError(f"{name} wants {protocol.classes} classes, got {len(classes)}")


def _check_shares(protocol: Protocol, config: PrepareConfig) -> None:
    """Check that the config's shares leave no role empty.

    Raises:
        SchnRayError: with the shares.
    """
    query, train = config.query_share, config.train_share
    if protocol.draw == "shares" and not (query > 0 and train > 0 and query + train < 1):
        raise SchnRayError(
            f"query_share {query:g} and train_share {train:g}: both must be above 0, and together "
            "below 1, as the gallery is what they leave"
        )
    if protocol.draw == UNLABELLED and not (query > 0 and train > 0 and query + train <= 1):
        raise SchnRayError(
            f"query_share {query:g} and train_share {train:g}: both must be above 0, and together "
            "at most 1"
        )
    if config.validation_share >= 1:
        raise SchnRayError("validation_share 1 leaves no rows to train on; 0.1 is usual")


def _check_sizes(sizes: Rows, names: list[str], least: int, config: PrepareConfig) -> None:
    """Check that every group has at least ``least`` rows.

    Raises:
        SchnRayError: with the groups that are too small.
    """
    small = np.flatnonzero(sizes < least)
    if len(small):
        shown = few([f"{names[i]} has {sizes[i]}" for i in small], 5)
        raise SchnRayError(
            f"{shown}: {config.protocol} needs at least {least} images of each, so that "
            "each can be in every role; add images, or leave these out"
        )


def _check_counts(name: str, protocol: Protocol, *drawn: NDArray[np.bool_]) -> None:
    """Check that the drawn rows [n] each are as many as the protocol has, and no role is empty.

    Raises:
        SchnRayError: with both counts.
    """
    query, train, gallery = (int(mask.sum()) for mask in drawn)
    _check_numbers(name, protocol, (query, train, gallery))
    if not query or not gallery or not train:
        words = "train and test" if protocol.draw == "official" else "train, test and database"
        raise SchnRayError(
            f"{name}: the data set itself has to say which rows are {words}; these rows give "
            f"{_counts_text((query, train, gallery))}"
        )


def _check_numbers(name: str, protocol: Protocol, got: tuple[int, int, int]) -> None:
    """Check that the numbers of rows are the protocol's.

    Raises:
        SchnRayError: with both counts.
    """
    expected = protocol.counts or (None, None, None)
    if any(count not in (None, number) for count, number in zip(expected, got, strict=True)):
        raise SchnRayError(
            f"{name} wants {_counts_text(expected)}; these rows give {_counts_text(got)}"
        )


def _counts_text(counts: Counts) -> str:
    query, train, gallery = ("any" if count is None else f"{count:,}" for count in counts)
    return f"{query} query, {train} training and {gallery} gallery rows"
