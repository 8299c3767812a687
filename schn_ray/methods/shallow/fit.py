"""What all fits of a shallow method have: settings, the prepared rows, and the head so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schn_ray.core.settings import Searched, Weight
from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.base import Labels, MethodConfig, Paper
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows
from schn_ray.methods.shallow.hash_function import HashFunction
from schn_ray.methods.shallow.kernel_features import AnchorGraph, Kernel, random_kernel
from schn_ray.methods.shallow.preparation import Moments, mean_of_rows, moments, prepared_rows
from schn_ray.methods.shallow.ridge import regress


class ShallowConfig(MethodConfig):
    """Settings of all shallow methods.

    Attributes:
        unit: divide centred rows by their length.
    """

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "alexnet", "weights": "DEFAULT", "frozen": True}
    }
    unit: bool = True


C = TypeVar("C", bound=ShallowConfig)


class ShallowFit(ABC, Generic[C]):
    """A fit in rounds. All of its state is in its attributes.

    Args:
        config: settings of the method.
        bits: K.
        seed: decides all that is drawn.

    Attributes:
        Config: class of its settings.
        paper: where it was published; None for what no paper is about.
        labels: what labels it needs, see ``Method``.
        head: what the rounds so far have learned.
        objective: what the method minimises or maximises, after the last round; None without one.
    """

    Config: ClassVar[type[ShallowConfig]]
    paper: ClassVar[Paper | None] = None
    labels: ClassVar[Labels] = "none"
    head: HashFunction
    mean: Array

    def __init__(self, config: C, bits: int, seed: int = 0) -> None:
        self.config, self.bits, self.seed = config, bits, seed
        self.objective: float | None = None

    @abstractmethod
    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round.

        Args:
            rows: features of the training rows, as they come.
            labels: of the rows; None for a method without labels.
            round: 1, 2, ...

        Returns:
            Whether further rounds would change nothing.
        """

    def row_codes(self, numbers: Rows, labels: LabelSets) -> NDArray[np.number]:
        """Return the codes that the rounds have solved of the rows of one shard [m, K], as signs.

        They are apart from those that the head encodes. A fit that solves none does not define
        this.

        Args:
            numbers: row numbers [m] of one of this worker's shards.
            labels: of all rows.
        """
        raise NotImplementedError

    def prepared(self, rows: FeatureRows, round: int) -> FeatureRows:
        """Return the prepared rows; in round 1 the mean is computed.

        Args:
            rows: features as they come.
            round: 1, 2, ...
        """
        if round == 1:
            self.mean = mean_of_rows(rows)
        return prepared_rows(rows, self.mean, self.config.unit)

    def linear_head(
        self, W: Array, t: Array, map: Kernel | AnchorGraph | None = None
    ) -> HashFunction:
        """Return the head sign(map(x) W - t).

        Args:
            W: [d', K].
            t: [K].
            map: of prepared features.
        """
        return HashFunction(self.mean, self.config.unit, map, W, t, self.bits)


class FeatureConfig(ShallowConfig):
    """Settings of a method that regresses codes on features.

    Attributes:
        features: kernel features at random anchors (``rbf``), or the prepared rows (``linear``).
        anchors: m, random rows of the kernel features.
        ridge: lambda of the regression.
    """

    features: Annotated[Literal["linear", "rbf"], Searched()] = "rbf"
    anchors: Annotated[int, Field(ge=2), Searched(integer=(200, 1000))] = 1000
    ridge: Annotated[Weight, Searched(log=(1e-4, 1.0))] = 0.01


F = TypeVar("F", bound=FeatureConfig)


class FeatureFit(ShallowFit[F]):
    """A fit on kernel features, or on the prepared rows; the head is a regression of codes.

    Attributes:
        kernel: of the features; None for the prepared rows.
        moments: of the features, not centred.
    """

    kernel: Kernel | None = None
    moments: Moments
    _features: FeatureRows | None = None

    def features(self, rows: FeatureRows, round: int) -> FeatureRows:
        """Return the features; in round 1, anchors are drawn and the moments computed.

        Args:
            rows: features as they come.
            round: 1, 2, ...
        """
        prepared = self.prepared(rows, round)
        if round == 1 and self.config.features == "rbf":
            self.kernel = random_kernel(prepared, self.config.anchors, self.seed)
        if round == 1 or self._features is None:  # not state: made again after a restart
            self._features = self.kernel.of(prepared) if self.kernel else prepared
        if round == 1:
            self.moments = moments(self._features)
        return self._features

    def regressed(self, products: Array, total: Array) -> HashFunction:
        """Return the head that a regression of targets B on the features gives.

        Args:
            products: F^T B [d', K], not centred.
            total: sum of the rows of B [K].
        """
        regression = regress(self.moments, products, total, self.config.ridge)
        return self.linear_head(regression.W, regression.t, self.kernel)


def fit_all(
    method: ShallowFit[C], rows: FeatureRows, labels: LabelSets | None = None
) -> HashFunction:
    """Do rounds until one says that it was the last.

    Args:
        method: a fit that has not begun.
        rows: features of the training rows.
        labels: of the rows.
    """
    round = 1
    while not method.fit(rows, labels, round):
        round += 1
    return method.head
