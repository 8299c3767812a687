"""Who is query, gallery and training: the published protocols as data, and their draw.

Roles are ``query``, ``train``, ``validation`` (carved out of the training rows) and ``gallery``,
which holds training rows in some protocols. Unlabelled rows are in no role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.config import PrepareConfig
from schn_ray.errors import SchnRayError, nearest
from schn_ray.unseen import of_unseen_classes, unseen_queries

ROLES = ("train", "validation", "query", "gallery")
ALL_ROWS = "the data set"

Rows = NDArray[np.int64]
Split = dict[str, Rows]


@dataclass(frozen=True)
class Protocol:
    """How a split is drawn, and what it must come to.

    Attributes:
        draw: ``shares`` of the rows by the config, ``per-class`` counts, or the data set's
            ``official`` split; ``unseen``: a share of the classes is held out of training, and
            their rows are queries and gallery.
        gallery: ``rest``: neither query nor training; ``not-query``: all but the queries;
            ``train``: the training rows.
        query: queries a class, for ``per-class``.
        train: training rows a class, for ``per-class``.
        counts: rows that it must have, of query, train (validation included) and gallery.
        classes: how many classes it must have.
    """

    draw: Literal["shares", "per-class", "official", "unseen"]
    gallery: Literal["rest", "not-query", "train"]
    query: int = 0
    train: int = 0
    counts: tuple[int, int, int] | None = None
    classes: int | None = None


PROTOCOLS = {
    "random": Protocol("shares", "rest"),
    "unseen-classes": Protocol("unseen", "rest"),
    "cifar10-54k": Protocol("per-class", "rest", 100, 500, (1_000, 5_000, 54_000), 10),
    "cifar10-59k": Protocol("per-class", "not-query", 100, 500, (1_000, 5_000, 59_000), 10),
    "cifar10-full": Protocol("official", "train", counts=(10_000, 50_000, 50_000), classes=10),
}


def find_protocol(name: str) -> Protocol:
    """Look a protocol up by its name.

    Raises:
        SchnRayError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise SchnRayError(
            f"no protocol '{name}'{nearest(name, list(PROTOCOLS))} "
            f"There are: {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name]


def split(
    labels: csr_array[Any],
    classes: Sequence[str],
    official: NDArray[np.object_],
    config: PrepareConfig,
) -> Split:
    """Draw a split; it depends on the order of the rows and on the seed alone.

    Where no row has several labels, ``random`` draws within each class, so that every class is in
    every role; otherwise it draws from all rows.

    Args:
        labels: [n, C] multi-hot.
        classes: C names, for messages.
        official: [n] ``train``, ``test`` or None, as the data set says.
        config: its protocol, seed and shares.

    Returns:
        role -> its rows, ascending.

    Raises:
        SchnRayError: an unknown protocol, shares that leave a role empty, or too few images.
    """
    protocol = find_protocol(config.protocol)
    _check_classes(config.protocol, protocol, classes)
    _check_shares(protocol, config)
    rows, group, names = _groups(labels, classes)
    generator = np.random.default_rng([config.seed, 0])
    if protocol.draw == "unseen":
        train = ~of_unseen_classes(labels[rows], config.unseen_share, generator)
        queries = unseen_queries(group[~train], len(names), config.query_share)
        # each group's seen rows are a group of their own
        query = ~train & (_ranks(2 * group + train, generator) < queries[group])
    elif protocol.draw == "official":
        query, train = official[rows] == "test", official[rows] == "train"
    else:
        queries, training = _wanted(protocol, config, group, names)
        rank = _ranks(group, generator)
        query = rank < queries[group]
        train = ~query & (rank < (queries + training)[group])
    gallery = {"rest": ~query & ~train, "not-query": ~query, "train": train}[protocol.gallery]
    _check_counts(config.protocol, protocol, query, train, gallery)
    held_out = _validation(group[train], config.validation_share, generator)
    return {
        "train": rows[train][~held_out],
        "validation": rows[train][held_out],
        "query": rows[query],
        "gallery": rows[gallery],
    }


def _groups(labels: csr_array[Any], classes: Sequence[str]) -> tuple[Rows, Rows, list[str]]:
    """Return labelled rows, the group that each is drawn within, and the groups' names."""
    per_row = np.diff(labels.indptr)
    rows = np.flatnonzero(per_row)
    if per_row.max(initial=0) > 1:
        return rows, np.zeros(len(rows), np.int64), [ALL_ROWS]
    return rows, labels.indices.astype(np.int64), [f"class '{name}'" for name in classes]


def _ranks(group: Rows, generator: np.random.Generator) -> Rows:
    """Return each row's place, from 0, in a random order of its group."""
    order = generator.permutation(len(group))
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    first = np.cumsum(sizes) - sizes
    ranks = np.empty(len(group), np.int64)
    ranks[by_group] = np.arange(len(group)) - first[group[by_group]]
    return ranks


def _wanted(
    protocol: Protocol, config: PrepareConfig, group: Rows, names: list[str]
) -> tuple[Rows, Rows]:
    """Return how many queries and training rows to draw from each group."""
    sizes = np.bincount(group, minlength=len(names))
    if protocol.draw == "per-class":
        if names == [ALL_ROWS]:
            raise SchnRayError(f"{config.protocol} draws by class, but some rows have two labels")
        _check_sizes(sizes, names, protocol.query + protocol.train + 1, config)
        return np.full_like(sizes, protocol.query), np.full_like(sizes, protocol.train)
    _check_sizes(sizes, names, 4 if config.validation_share else 3, config)
    at_least = 2 if config.validation_share else 1
    queries = np.clip(np.rint(sizes * config.query_share), 1, sizes - at_least - 1)
    training = np.clip(np.rint(sizes * config.train_share), at_least, sizes - queries - 1)
    return queries.astype(np.int64), training.astype(np.int64)


def _validation(group: Rows, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Choose among training rows; each group keeps one for training, and gives one if it can."""
    if not share or not len(group):
        return np.zeros(len(group), bool)
    sizes = np.bincount(group)
    held_out = np.minimum(np.maximum(np.rint(sizes * share), 1), sizes - 1)
    return _ranks(group, generator) < held_out[group]


def _check_classes(name: str, protocol: Protocol, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise SchnRayError(
            f"wanted at least two classes, got {len(classes)} ({', '.join(classes) or 'none'}): "
            "hashing learns from which images differ"
        )
    if protocol.classes not in (None, len(classes)):
        raise SchnRayError(f"{name} wants {protocol.classes} classes, got {len(classes)}")


def _check_shares(protocol: Protocol, config: PrepareConfig) -> None:
    query, train = config.query_share, config.train_share
    if protocol.draw == "shares" and not (query > 0 and train > 0 and query + train < 1):
        raise SchnRayError(
            f"query_share {query:g} and train_share {train:g}: both must be above 0, and together "
            "below 1, as the gallery is what they leave"
        )
    if config.validation_share >= 1:
        raise SchnRayError("validation_share 1 leaves no rows to train on; 0.1 is usual")


def _check_sizes(sizes: Rows, names: list[str], wanted: int, config: PrepareConfig) -> None:
    small = np.flatnonzero(sizes < wanted)
    if len(small):
        shown = ", ".join(f"{names[i]} has {sizes[i]}" for i in small[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise SchnRayError(
            f"{shown}{more}: {config.protocol} needs at least {wanted} images of each, so that "
            "each can be in every role; add images, or leave these out"
        )


def _check_counts(name: str, protocol: Protocol, *drawn: NDArray[np.bool_]) -> None:
    got = tuple(int(mask.sum()) for mask in drawn)
    if protocol.counts not in (None, got):
        wanted, had = (
            f"{query:,} query, {train:,} training and {gallery:,} gallery rows"
            for query, train, gallery in (protocol.counts, got)
        )
        raise SchnRayError(f"{name} wants {wanted}; these rows give {had}")
