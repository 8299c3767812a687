"""A fit as a method: its result becomes the head of an encoder.

A fit knows features and label sets, and nothing of networks, so that its mathematics can be read
and tested alone.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from schn_ray.core.bits import pack
from schn_ray.methods.base import Activation, Problem, Round, ShallowMethod
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.hash_function import HashFunction
from schn_ray.methods.shallow.kernel_features import AnchorGraph, Kernel
from schn_ray.models.config import HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.fitted import FittedHead


class FittedMethod(ShallowMethod[ShallowConfig]):
    """A method that a ``ShallowFit`` makes.

    Attributes:
        Fit: its class.
    """

    Fit: ClassVar[type[ShallowFit[Any]]]
    activation: ClassVar[Activation] = "none"

    def __init__(self, config: ShallowConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self._fit = self.Fit(config, problem.bits, problem.seed)
        self._rounds = 0

    def fit(self, rows: FeatureRows, round: int) -> Round:
        """Do the rounds up to this one that are not done yet; leave the result in the head.

        Some fits have a head at their end only. If one of those solves no codes either, nothing
        could be said of its rounds: then all of them are one.
        """
        labels = None if self.labels == "none" else self.problem.label_sets
        converged = False
        # products of matrices have other bits on another number of threads
        with threadpool_limits(limits=1, user_api="blas"):
            while not converged and (self._rounds < round or not self._tells):
                self._rounds += 1
                converged = self._fit.fit(rows, labels, self._rounds)
        if encodes := hasattr(self._fit, "head"):
            self.head_spec, head = head_of(self._fit.head, rows.width)
            self.encoder.head = head.to(self.problem.precision.device)
        objective = self._fit.objective
        terms = {} if objective is None else {"objective": float(objective)}
        return Round(terms, converged, encodes)

    @property
    def _tells(self) -> bool:
        return hasattr(self._fit, "head") or self.solves_codes()

    @classmethod
    def solves_codes(cls) -> bool:
        """Tell whether the fit solves codes of the training rows."""
        return cls.Fit.row_codes is not ShallowFit.row_codes

    def solved_codes(self, rows: FeatureRows) -> NDArray[np.uint8]:
        """Return the solved codes of all training rows, packed [n, ceil(K/8)]."""
        labels = self.problem.label_sets
        return rows.without_features().gather(
            lambda _, numbers: pack(self._fit.row_codes(numbers, labels)), np.uint8
        )


def head_of(function: HashFunction, width: int) -> tuple[HeadSpec, FittedHead]:
    """Return what a fit has learned as a head, and what the head is built from.

    Args:
        function: in float64; the head rounds to float32.
        width: d, of the features.
    """
    map = function.map
    anchors = None if map is None else len(map.anchors)
    spec = HeadSpec(
        kind="fitted",
        unit=function.unit,
        map="identity" if map is None else "kernel" if isinstance(map, Kernel) else "anchor_graph",
        anchors=anchors,
        nearest=map.nearest if isinstance(map, AnchorGraph) else None,
        output=function.activation,
    )
    numbers: dict[str, Any] = {"mean": function.mean, "W": function.W, "t": function.t}
    if map is not None:
        numbers |= {"anchors": map.anchors, "kernel_width": map.width}
    if function.thresholds is not None:
        numbers["thresholds"] = function.thresholds
    head = FittedHead(spec, width, function.bits)
    head.fill(**numbers)
    return spec, head


@functools.cache
def as_method(fit: type[ShallowFit[Any]]) -> type[FittedMethod]:
    """Return the class of the method that a fit makes.

    Args:
        fit: its class; its module's docstring describes the method.
    """
    module = inspect.getmodule(fit)
    doc = f"{inspect.getdoc(module)}\n\n{inspect.getdoc(fit)}"
    names = {"Fit": fit, "Config": fit.Config, "labels": fit.labels, "paper": fit.paper}
    return type(fit.__name__, (FittedMethod,), names | {"__doc__": doc})
