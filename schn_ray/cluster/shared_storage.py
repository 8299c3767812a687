"""Check before the work, not at its end, that all nodes see the output directory."""

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

_ANSWER_TIMEOUT_S = 120.0


def require_shared(out: Path | str) -> None:
    """Check that every node with CPUs sees a directory, by a probe file in it.

    The probe lies in the nearest existing parent if the directory does not exist yet. A URI is not
    checked.

    Args:
        out: the directory or URI that a job will write to.

    Raises:
        SchnRayError: a node does not see the probe; the message has its address.
    """
    with shared(out):
        pass


@contextmanager
def shared(out: Path | str) -> Iterator[Path | None]:
    """As ``require_shared``, and leave the probe until the end of the block, for later nodes.

    Args:
        out: the directory or URI that a job will write to.

    Yields:
        The probe's path, for ``require_seen``; None for a URI.

    Raises:
        SchnRayError: a node does not see the probe; the message has its address.
    """
    location = as_location(out)
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
    """Check that the node which runs this sees a probe file.

    Args:
        probe: the path that ``shared`` yielded.

    Raises:
        SchnRayError: the file does not exist on this node.
    """
    if not probe.exists():
        raise _not_shared(probe, [ray.util.get_node_ip_address()])


def _probe(directory: Path) -> Path:
    name = PROBE_PREFIX if directory.is_dir() else f".{directory.name}{PROBE_PREFIX}"
    parent = next(path for path in (directory, *directory.parents) if path.is_dir())
    for path in parent.iterdir():
        if path.name.startswith(name):
            path.unlink(missing_ok=True)  # left by a process that was killed
    return parent.resolve() / f"{name}{uuid.uuid4().hex}"


def _ask_all(probe: Path) -> None:
    this_node = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != this_node and _has_cpus(n)]
    answers = [_ask(node["NodeID"], probe) for node in others]
    try:
        seen = ray.get(answers, timeout=_ANSWER_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        raise SchnRayError(
            f"a node did not answer whether it sees {probe.parent} ({reason}): run the same "
            "command again, or run schn-ray doctor"
        ) from error
    blind = [n["NodeManagerAddress"] for n, sees in zip(others, seen, strict=True) if not sees]
    if blind:
        raise _not_shared(probe, blind)


def _has_cpus(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get("CPU"))


def _ask(node: str, probe: Path) -> ray.ObjectRef:
    on_node = NodeAffinitySchedulingStrategy(node, soft=False)
    # a function of the standard library: a node without this package can answer, too
    look = ray.remote(num_cpus=0, scheduling_strategy=on_node)(os.path.exists)
    return look.remote(str(probe))


def _not_shared(probe: Path, blind: list[str]) -> SchnRayError:
    return SchnRayError(
        f"{probe.parent} is not the same directory on all nodes: {', '.join(blind)} did not see "
        "a file that was written to it. Write to a directory that all nodes share, or to an "
        "s3:// or gs:// address"
    )
