"""Whether all nodes see a directory: better asked before the work than found out at its end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from schn_ray.core.directories import PROBE_PREFIX
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import as_location, is_uri

_ANSWERS_WITHIN_S = 120.0


def require_shared(place: Path | str) -> None:
    """Have every node that works look for a file in a directory, there or just above.

    At a URI there is nothing to ask.

    Raises:
        SchnRayError: a node does not see it; its address is named.
    """
    with shared(place):
        pass


@contextmanager
def shared(place: Path | str) -> Iterator[Path | None]:
    """As ``require_shared``; the file stays for the block, for nodes that come later.

    Yields:
        The file, for ``require_seen``; None at a URI.
    """
    location = as_location(place)
    if is_uri(location):
        yield None
        return
    probe = _probe(Path(location))
    try:
        probe.touch()
        _ask_all(probe)
        yield probe
    finally:
        probe.unlink(missing_ok=True)


def require_seen(probe: Path) -> None:
    """Look for the file of ``shared`` from the node that this runs on.

    Raises:
        SchnRayError: it is not there.
    """
    if not probe.exists():
        raise _not_shared(probe, [ray.util.get_node_ip_address()])


def _probe(directory: Path) -> Path:
    name = PROBE_PREFIX if directory.is_dir() else f".{directory.name}{PROBE_PREFIX}"
    there = next(path for path in (directory, *directory.parents) if path.is_dir())
    for left in there.iterdir():
        if left.name.startswith(name):
            left.unlink(missing_ok=True)  # of a process that was killed
    return there.resolve() / f"{name}{uuid.uuid4().hex}"


def _ask_all(probe: Path) -> None:
    here = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != here and _works(n)]
    answers = [_ask(node["NodeID"], probe) for node in others]
    try:
        seen = ray.get(answers, timeout=_ANSWERS_WITHIN_S)
    except ray.exceptions.RayError as error:
        said = str(error).splitlines()[0]
        raise SchnRayError(
            f"a node did not answer whether it sees {probe.parent} ({said}): run the same command "
            "again, or ask schn-ray doctor"
        ) from error
    blind = [n["NodeManagerAddress"] for n, sees in zip(others, seen, strict=True) if not sees]
    if blind:
        raise _not_shared(probe, blind)


def _works(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get("CPU"))


def _ask(node: str, probe: Path) -> ray.ObjectRef:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    # not a function of ours: a node without this package answers too
    look = ray.remote(num_cpus=0, scheduling_strategy=there)(os.path.exists)
    return look.remote(str(probe))


def _not_shared(probe: Path, blind: list[str]) -> SchnRayError:
    return SchnRayError(
        f"{probe.parent} is not the same directory on all nodes: {', '.join(blind)} did not see "
        "what was written there. Write to a directory that all nodes share, or to an s3:// or "
        "gs:// address"
    )
