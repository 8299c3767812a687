"""The CPUs and GPUs that a cluster has now, and those that it can grow to.

A cluster with an autoscaler adds nodes when there is work for them, so its present size says
little. Ray has a field for the largest size, which Ray Train and Ray Data read, but the autoscaler
of open-source Ray (2.60) leaves it empty, in both its versions. Therefore the cluster's description
sets it, in the variable ``SCHN_RAY_GROWS_TO`` that every process on its nodes inherits: see
``cluster.yaml`` and ``deploy/raycluster.yaml``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import ray

from schn_ray.core.errors import SchnRayError

GROWS_TO = "SCHN_RAY_GROWS_TO"


def present(resource: str) -> float:
    """Return how much of a resource the cluster has now.

    Args:
        resource: Ray's name for it: ``"CPU"`` or ``"GPU"``.
    """
    return float(ray.cluster_resources().get(resource, 0))


def capacity(resource: str) -> float:
    """Return how much of a resource the cluster has at its largest.

    Args:
        resource: Ray's name for it: ``"CPU"`` or ``"GPU"``.

    Raises:
        SchnRayError: ``SCHN_RAY_GROWS_TO`` is not a JSON object of numbers.
    """
    return max(present(resource), _grown().get(resource, 0.0))


def grows() -> bool:
    """Tell whether the cluster can add nodes.

    Raises:
        SchnRayError: ``SCHN_RAY_GROWS_TO`` is not a JSON object of numbers.
    """
    return any(most > present(resource) for resource, most in _grown().items())


def fits_a_node(resources: Mapping[str, float]) -> bool:
    """Tell whether a node has all of these at once; Ray would wait for one for ever.

    Args:
        resources: Ray's name -> how much, of one worker. A cluster that grows may have such nodes.
    """
    return grows() or any(
        all(node["Resources"].get(name, 0.0) >= amount for name, amount in resources.items())
        for node in ray.nodes()
        if node["Alive"]
    )


def _grown() -> dict[str, float]:
    text = os.environ.get(GROWS_TO)
    if text is None:
        return dict(_known_to_ray() or {})
    try:
        return {str(resource): float(most) for resource, most in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise SchnRayError(
            f"{GROWS_TO}={text!r} cannot be read: expected the resources of the cluster at its "
            'largest as JSON, such as {"CPU": 256, "GPU": 8}'
        ) from error


def _known_to_ray() -> dict[str, float] | None:
    from ray._private.state import state  # as Ray Train does; None: not set

    if not ray.is_initialized():
        return None
    known: dict[str, float] | None = state.get_max_resources_from_cluster_config()
    return known
