"""Verbs on a cluster: doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schn_ray.cli.verbs.arguments import location_of, require_ray
from schn_ray.cli.verbs.results import NodeChecks


def doctor(storage: Sequence[Path | str] = ()) -> NodeChecks:
    """Check every node of the cluster: versions, GPUs, storage, disk, clock, dashboard.

    Args:
        storage: directories or URIs that every node must read and write.

    Returns:
        A list of checks; ``.healthy`` is False if one is an error.

    Raises:
        SchnRayError: no cluster answers at ``RAY_ADDRESS``, or Ray is not installed.

    Example:
        >>> doctor(["s3://bucket/work"]).healthy  # doctest: +SKIP
        True
    """
    require_ray("looking at the nodes")
    from schn_ray.cluster.doctor import examine

    return NodeChecks(examine([location_of(path) for path in storage]))
