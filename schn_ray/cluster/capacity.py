"""What a cluster has, and what it grows to when it is asked.

Nodes of a cluster that scales itself come when there is work for them, so what is there now says
little. Ray keeps a place for what a cluster may become, which Ray Train and Ray Data look at; but
the autoscaler of open-source Ray (2.60) leaves it empty, in both its versions. So the cluster's own
description says it, in a variable that every process on its nodes inherits: see ``cluster.yaml``
and ``deploy/raycluster.yaml``.
"""

from __future__ import annotations

import json
import os

import ray

from schn_ray.core.errors import SchnRayError

GROWS_TO = "SCHN_RAY_GROWS_TO"


def present(resource: str) -> float:
    """Return how much of a resource the cluster has now."""
    return float(ray.cluster_resources().get(resource, 0))


def capacity(resource: str) -> float:
    """Return how much of a resource the cluster has, or would have with all its nodes."""
    return max(present(resource), _grown().get(resource, 0.0))


def grows() -> bool:
    """Tell whether nodes come when there is work for them."""
    return any(most > present(resource) for resource, most in _grown().items())


def _grown() -> dict[str, float]:
    said = os.environ.get(GROWS_TO)
    if said is None:
        return dict(_known_to_ray() or {})
    try:
        return {str(resource): float(most) for resource, most in json.loads(said).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise SchnRayError(
            f"{GROWS_TO}={said!r}: wanted what the cluster has when all its nodes are there, as "
            '{"CPU": 256, "GPU": 8}'
        ) from error


def _known_to_ray() -> dict[str, float] | None:
    from ray._private.state import state  # as Ray Train does; None where nobody filled it

    if not ray.is_initialized():
        return None
    known: dict[str, float] | None = state.get_max_resources_from_cluster_config()
    return known
