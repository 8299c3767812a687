"""Who is query, gallery and training: the published protocols as data, and their draw.

Roles are ``query``, ``train``, ``validation`` (carved out of the training rows) and ``gallery``,
which holds training rows in some protocols. Unlabelled rows are in no role.
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

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.data.config import PrepareConfig
from schn_ray.data.splits.unseen_classes import of_unseen_classes, unseen_queries

ROLES = ("train", "validation", "query", "gallery")
JUNK = "junk"  # ranked for nobody, as re-identification has it
ALL_ROWS = "the data set"
RANDOM, GIVEN = "random", "given"

_AT_ONCE = 1 << 16  # rows, for memory that does not grow with them
Rows = NDArray[np.int64]
Numbers = NDArray[np.signedinteger]
Split = dict[str, Rows]
Counts = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Protocol:
    """How a split is drawn, and what it must come to.

    Attributes:
        draw: ``shares`` of the rows by the config, ``per-class`` counts, ``per-label`` counts where
            rows have several, ``counts`` of all rows, or what the data set itself says: its
            ``official`` training and test rows, or what it ``listed``; ``unseen``: a share of the
            classes is held out of training, and their rows are queries and gallery.
        gallery: ``rest``: neither query nor training; ``not-query``: all but the queries;
            ``train``: the training rows; ``listed``: what the data set says.
        query: queries, of each class or in all.
        train: training rows, of each class or in all.
        counts: rows that it must have, of query, train (validation included) and gallery; None
            where any number will do.
        classes: how many classes it must have.
        most_frequent: only this many classes count, those that most images have.
        unlabelled: whether rows without a label are in the gallery, as distractors are.
        metric: what published tables measure.
    """

    draw: Literal["shares", "unseen", "per-class", "per-label", "counts", "official", "listed"]
    gallery: Literal["rest", "not-query", "train", "listed"]
    query: int = 0
    train: int = 0
    counts: Counts | None = None
    classes: int | None = None
    most_frequent: int | None = None
    unlabelled: bool = False
    metric: str = "mAP over all"


_REID = "re-identification mAP, CMC"
PROTOCOLS = {
    RANDOM: Protocol("shares", "rest"),
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
_GIVEN = Protocol("listed", "listed")  # what --split-from names


def find_protocol(name: str) -> Protocol:
    """Look a protocol up by its name.

    Raises:
        SchnRayError: there is none of that name.
    """
    if name == GIVEN:
        return _GIVEN
    if name not in PROTOCOLS:
        raise SchnRayError(
            f"no protocol '{name}'{nearest(name, list(PROTOCOLS))} "
            f"There are: {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name]


def split(
    labels: csr_array[Any],
    classes: Sequence[str],
    official: pa.ChunkedArray,
    config: PrepareConfig,
) -> Split:
    """Draw a split; it depends on the order of the rows and on the seed alone.

    Where no row has several labels, ``random`` draws within each class, so that every class is in
    every role; otherwise it draws from all rows.

    Args:
        labels: [n, C] multi-hot.
        classes: C names, for messages.
        official: [n] ``train``, ``test`` or null, as the data set says.
        config: its protocol, seed and shares.

    Returns:
        role -> its rows, ascending.

    Raises:
        SchnRayError: an unknown protocol, shares that leave a role empty, or too few images.
    """
    protocol = find_protocol(config.protocol)
    _check_classes(config.protocol, protocol, classes)
    _check_shares(protocol, config)
    generator = np.random.default_rng([config.seed, 0])
    groups = _groups(labels, classes, protocol)
    query, train = _drawn(protocol, config, labels, official, groups, generator)
    rows, group, _ = groups
    held_out = _validation(group[train[rows]], config.validation_share, generator)
    gallery = _gallery(protocol, config, labels, official, query, train)
    _check_counts(config.protocol, protocol, query, train, gallery)
    junk = {JUNK: np.flatnonzero(said)} if (said := _says(official, JUNK)).any() else {}
    training = np.flatnonzero(train)
    return {
        "train": training[~held_out],
        "validation": training[held_out],
        "query": np.flatnonzero(query),
        "gallery": np.flatnonzero(gallery),
    } | junk


def most_frequent(labels: csr_array[Any], count: int) -> Rows:
    """Return the classes that most rows of labels [n, C] have, as many as asked for, ascending."""
    rows = np.bincount(labels.indices, minlength=labels.shape[1])
    return np.sort(np.argsort(-rows, kind="stable")[:count])


def check_given(name: str, split: Split, classes: Sequence[str]) -> None:
    """Refuse a split that was not drawn here and does not come to what its protocol says.

    Raises:
        SchnRayError: with the counts.
    """
    protocol = find_protocol(name)
    _check_classes(name, protocol, classes)
    if empty := [role for role in ("train", "query", "gallery") if not len(split[role])]:
        raise SchnRayError(f"the given split has no {empty[0]} rows; wanted some of each")
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
    """Return who is query and who is training: [n] each."""
    labelled = _labelled(labels)
    if protocol.draw in ("official", "listed"):
        return _says(official, "test") & labelled, _says(official, "train") & labelled
    if protocol.draw == "per-label":
        return _per_label(config.protocol, protocol, labels, generator)
    rows, group, names = groups
    query, train = np.zeros((2, len(labelled)), bool)
    if protocol.draw == "unseen":
        train[rows] = ~of_unseen_classes(labels[rows], config.unseen_share, generator)
        queries = unseen_queries(group[~train[rows]], len(names), config.query_share)
        # each group's seen rows are a group of their own
        rank = _ranks(2 * group + train[rows], generator)
        query[rows] = ~train[rows] & (rank < queries[group])
        return query, train
    queries, training = _wanted(protocol, config, group, names)
    rank = _ranks(group, generator)
    query[rows] = rank < queries[group]
    train[rows] = ~query[rows] & (rank < (queries + training)[group])
    return query, train


def _per_label(
    name: str, protocol: Protocol, labels: csr_array[Any], generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw queries, and then training rows, for each class among the rows that are not drawn yet.

    The rarest class is first, as others find rows that it cannot do without.
    """
    n = labels.shape[0]
    order, by_class = generator.permutation(n), labels.tocsc()
    query, train = np.zeros((2, n), bool)
    rarest_first = np.argsort(np.diff(by_class.indptr), kind="stable")
    for drawn, wanted in ((query, protocol.query), (train, protocol.train)):
        for c in rarest_first:
            has = np.zeros(n, bool)
            has[by_class.indices[by_class.indptr[c] : by_class.indptr[c + 1]]] = True
            free = order[(has & ~query & ~train)[order]]
            if len(free) < wanted:
                raise SchnRayError(
                    f"class number {c} has {len(free):,} images that are not drawn yet: {name} "
                    f"needs {wanted} of each"
                )
            drawn[free[:wanted]] = True
    return query, train


def _gallery(
    protocol: Protocol,
    config: PrepareConfig,
    labels: csr_array[Any],
    official: pa.ChunkedArray,
    query: NDArray[np.bool_],
    train: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return who is in the gallery: [n]."""
    allowed = np.ones(len(query), bool)
    if not (protocol.unlabelled or config.keep_unlabelled):
        allowed = _labelled(labels)
    found = {
        "rest": ~query & ~train,
        "not-query": ~query,
        "train": train,
        "listed": _says(official, "database"),
    }[protocol.gallery]
    return np.asarray(found & allowed & ~_says(official, JUNK), bool)


def _labelled(labels: csr_array[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.diff(labels.indptr) > 0, bool)


def _says(official: pa.ChunkedArray, word: str) -> NDArray[np.bool_]:
    """Tell of each row whether the data set names this use: [n]."""
    said = [name for name in pc.unique(official).to_pylist() if word in (name or "").split()]
    return pc.is_in(official, value_set=pa.array(said, pa.string())).to_numpy()


def _groups(
    labels: csr_array[Any], classes: Sequence[str], protocol: Protocol
) -> tuple[Rows, Numbers, list[str]]:
    """Return labelled rows, the group that each is drawn within, and the groups' names."""
    per_row = np.diff(labels.indptr)
    rows = np.flatnonzero(per_row)
    if protocol.draw == "counts" or per_row.max(initial=0) > 1:
        return rows, np.zeros(len(rows), np.int64), [ALL_ROWS]
    return rows, labels.indices, [f"class '{name}'" for name in classes]


def _ranks(group: Numbers, generator: np.random.Generator) -> Rows:
    """Return each row's place, from 0, in a random order of its group."""
    order = generator.permutation(len(group))
    ranks, before = np.empty(len(group), np.int64), np.zeros(group.max(initial=-1) + 1, np.int64)
    for start in range(0, len(order), _AT_ONCE):
        rows = order[start : start + _AT_ONCE]
        rows = rows[np.argsort(group[rows], kind="stable")]
        sizes = np.bincount(group[rows], minlength=len(before))
        first = np.cumsum(sizes) - sizes
        ranks[rows] = np.arange(len(rows)) + (before - first)[group[rows]]
        before += sizes
    return ranks


def _wanted(
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
    """Choose among training rows; each group keeps one for training, and gives one if it can."""
    if not share or not len(group):
        return np.zeros(len(group), bool)
    sizes = np.bincount(group)
    held_out = np.minimum(np.maximum(np.rint(sizes * share), 1), sizes - 1)
    return _ranks(group, generator) < held_out[group]


def _check_classes(name: str, protocol: Protocol, classes: Sequence[str]) -> None:
    """Refuse fewer than two classes, or another number than the protocol's.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    if len(classes) < 2:
        raise SchnRayError(
            f"wanted at least two classes, got {len(classes)} ({', '.join(classes) or 'none'}): "
            "hashing learns from which images differ"
        )
    if protocol.classes not in (None, len(classes)):
        raise SchnRayError(f"{name} wants {protocol.classes} classes, got {len(classes)}")


def _check_shares(protocol: Protocol, config: PrepareConfig) -> None:
    """Refuse shares that leave a role empty.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    query, train = config.query_share, config.train_share
    if protocol.draw == "shares" and not (query > 0 and train > 0 and query + train < 1):
        raise SchnRayError(
            f"query_share {query:g} and train_share {train:g}: both must be above 0, and together "
            "below 1, as the gallery is what they leave"
        )
    if config.validation_share >= 1:
        raise SchnRayError("validation_share 1 leaves no rows to train on; 0.1 is usual")


def _check_sizes(sizes: Rows, names: list[str], wanted: int, config: PrepareConfig) -> None:
    """Refuse groups with too few images.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    small = np.flatnonzero(sizes < wanted)
    if len(small):
        shown = ", ".join(f"{names[i]} has {sizes[i]}" for i in small[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise SchnRayError(
            f"{shown}{more}: {config.protocol} needs at least {wanted} images of each, so that "
            "each can be in every role; add images, or leave these out"
        )


def _check_counts(name: str, protocol: Protocol, *drawn: NDArray[np.bool_]) -> None:
    """Refuse rows drawn [n] each that are not as many as the protocol says, or none.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    query, train, gallery = (int(mask.sum()) for mask in drawn)
    _check_numbers(name, protocol, (query, train, gallery))
    if not query or not gallery or not train:
        words = "train and test" if protocol.draw == "official" else "train, test and database"
        raise SchnRayError(
            f"{name}: the data set itself has to say which rows are {words}; these rows give "
            f"{_counted((query, train, gallery))}"
        )


def _check_numbers(name: str, protocol: Protocol, got: tuple[int, int, int]) -> None:
    """Refuse numbers of rows that are not the protocol's.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    wanted = protocol.counts or (None, None, None)
    if any(want not in (None, number) for want, number in zip(wanted, got, strict=True)):
        raise SchnRayError(f"{name} wants {_counted(wanted)}; these rows give {_counted(got)}")


def _counted(counts: Counts) -> str:
    query, train, gallery = ("any" if count is None else f"{count:,}" for count in counts)
    return f"{query} query, {train} training and {gallery} gallery rows"
