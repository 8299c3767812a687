"""A suite: data sets x methods x code lengths x seeds, and what all of them have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import Count, Section, load_settings
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location, join
from schn_ray.data.sources.kinds import is_gone
from schn_ray.methods.registry import METHODS, find_method

DATA, STORE = "data", "store"
_DATA_NAME = re.compile(r"[^./\\][^/\\]*")
SHIPPED = Path(__file__).parent / "shipped"


class DataSet(Section):
    """One data set of a suite.

    Attributes:
        source: as ``prepare`` takes it; None: the user gives it, or leaves the data set out.
        description: what it is and what ``source`` has to be.
        prepare: settings of ``prepare``, such as the protocol of the split.
        embed: settings of ``embed``; None: no features are computed, and the networks read the rows
            themselves.
        images_of: name of another data set, whose source and features this one has, too; only the
            split differs.
    """

    source: str | None = None
    description: str = ""
    prepare: dict[str, Any] = Field(default_factory=dict)
    embed: dict[str, Any] | None = None
    images_of: str | None = None


class Budget(Section):
    """How many settings each method may try; the best are trained and measured, too.

    Attributes:
        trials: of each method, on each data set, at each length: the published settings, and random
            draws from the method's own search space. 1: the published ones alone.
        seed: of the draws, of the trials' trainings, and of the rows that are held out.
        held_out: share of the training rows that judges the trials, where the data set has no
            validation rows. The best settings are then trained on all of them.
    """

    trials: Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Suite(Section):
    """What is trained and measured: every combination of the first four attributes.

    Attributes:
        data: name -> data set.
        methods: names; empty: all.
        bits: code lengths.
        seeds: of training; each method is trained once with each.
        preset: of ``train``, for all methods.
        settings: further settings of ``train``, nested.
        evaluate: settings of ``evaluate``, nested.
        budget: how many settings each method may try.
    """

    data: dict[str, DataSet]
    methods: tuple[str, ...] = ()
    bits: tuple[Count, ...] = (16, 32, 64)
    seeds: tuple[int, ...] = (0, 1, 2)
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    budget: Budget = Budget()

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods, by name."""
        return self.methods or tuple(METHODS)

    @property
    def placed(self) -> dict[str, DataSet]:
        """The data sets that have a source."""
        return {name: data for name, data in self.data.items() if data.source is not None}

    @property
    def left_out(self) -> list[str]:
        """Names of the data sets that have none, and are not measured."""
        return [name for name in self.data if name not in self.placed]


def suite_names() -> list[str]:
    """List the suites that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_suite(
    name: str,
    sources: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    out: Path | str | None = None,
) -> Suite:
    """Read a suite, and check what can be checked before any work.

    Data sets without a source are left out, if another has one. What is prepared in the suite's
    directory is the source of a data set that has no other at hand: the directory may be copied to
    a machine without it.

    Args:
        name: a name that ``suite_names`` lists, or a YAML file.
        sources: name of a data set -> where it lies.
        settings: such as ``"bits=[32]"``; they override the file.
        out: directory or URI of the suite.

    Raises:
        SchnRayError: no such suite, data set or method; no data set has a source; a bad value.

    Example:
        >>> read_suite("quick").bits
        (16, 32)
    """
    file = SHIPPED / f"{name}.yaml" if name in suite_names() else Path(name)
    if not file.is_file():
        hint = nearest(name, suite_names()) or "."
        raise SchnRayError(
            f"no suite '{name}'{hint} Expected {', '.join(suite_names())} or a YAML file"
        )
    suite = load_settings(Suite, file, tuple(settings))
    data = dict(suite.data)
    for key, source in (sources or {}).items():
        if key not in data:
            raise SchnRayError(f"suite {name} has no data set '{key}', but {', '.join(data)}")
        data[key] = data[key].model_copy(update={"source": source})
    data = _with_images(data, name)
    if out is not None:
        stores = {key: store_location(key, out) for key in data if key not in (sources or {})}
        data |= {key: _with_store(data[key], store) for key, store in stores.items()}
    suite = suite.model_copy(update={"data": data})
    if data and not suite.placed:
        lines = [f"--data {k}=PATH: {one.description}" for k, one in data.items() if _is_own(one)]
        raise SchnRayError(
            f"suite {name} needs the place of a data set, or of several:\n  " + "\n  ".join(lines)
        )
    for method in suite.method_names:
        find_method(method)
    for key in ("data", "bits", "seeds"):
        if not getattr(suite, key):
            raise SchnRayError(f"suite {name} has no {key}: there is nothing to measure")
    for key in ("methods", "bits", "seeds"):
        if twice := [one for one, count in Counter(getattr(suite, key)).items() if count > 1]:
            raise SchnRayError(
                f"suite {name} has {key} more than once: {', '.join(map(str, twice))}"
            )
    for key in data:
        if not _DATA_NAME.fullmatch(key):
            raise SchnRayError(
                f"suite {name} has a data set '{key}': expected a name that a directory can have"
            )
    return suite


def store_location(data: str, out: Path | str) -> str:
    """Return where the store of a data set lies.

    Args:
        data: name of the data set.
        out: directory or URI of the suite.

    Example:
        >>> store_location("digits", "s3://bucket/suite")
        's3://bucket/suite/data/digits/store'
    """
    return join(as_location(out), f"{DATA}/{data}/{STORE}")


def _with_store(data: DataSet, store: str) -> DataSet:
    if directory_kind(store) == STORE and (data.source is None or is_gone(data.source)):
        return data.model_copy(update={"source": store})
    return data


def _is_own(data: DataSet) -> bool:
    return data.images_of is None


def _with_images(data: Mapping[str, DataSet], suite: str) -> dict[str, DataSet]:
    """Give the data sets of the same images the source and the features of the first."""
    shared = {}
    for name, one in data.items():
        shared[name] = one
        if one.images_of is None:
            continue
        other = data.get(one.images_of)
        if other is None or other.images_of is not None:
            raise SchnRayError(
                f"suite {suite}: {name} has the images of '{one.images_of}'. Expected a data set "
                "of the suite with images of its own"
            )
        shared[name] = one.model_copy(update={"source": other.source, "embed": other.embed})
    return shared
