"""Look at every node of a cluster for what would spoil a job there hours later."""

from __future__ import annotations

import os
import platform
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from schn_ray.cluster.session import ray_session

Level = Literal["ok", "warning", "error"]
_COMPARED = ("schn-ray", "ray", "torch", "torchvision", "numpy", "pyarrow")
_GIB = 2**30
_LITTLE_DISK = 10 * _GIB
_LITTLE_MEMORY_SHARE = 0.3  # of a machine's memory, as Ray asks for /dev/shm
_CLOCKS_APART_S = 2.0
_ANSWERS_WITHIN_S = 60.0
_DASHBOARD_PORT = 8265  # Ray's, where nobody chose another


@dataclass(frozen=True)
class NodeCheck:
    """One thing that was looked at.

    Attributes:
        node: its address, or "cluster".
        what: the thing.
        level: ``error``: jobs would fail, or anyone could run code; ``warning``: they may.
        said: what was found, and what to do.
    """

    node: str
    what: str
    level: Level
    said: str

    def to_json(self) -> dict[str, str]:
        """Return the finding as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class NodeReport:
    """What one node says of itself."""

    versions: dict[str, str]
    gpus: list[str]
    free_disk: int
    shared_memory: int
    memory: int
    clock: float
    storage: dict[str, str]  # address -> what went wrong, or ""


def examine(storage: list[str]) -> list[NodeCheck]:
    """Look at all nodes of the cluster of ``RAY_ADDRESS``, or at this machine.

    Args:
        storage: directories or addresses that every node must read and write.
    """
    with ray_session():
        nodes = [node for node in ray.nodes() if node["Alive"]]
        probes = {address: f"doctor-{uuid.uuid4().hex}" for address in storage}
        findings, seen = [], {}
        for node in nodes:
            name = node["NodeManagerAddress"]
            asked = time.time()
            try:
                seen[name] = _ask(node, probes)
            except ray.exceptions.RayError as error:
                said = str(error).splitlines()[0]
                findings.append(NodeCheck(name, "node", "error", f"does not answer: {said}"))
                continue
            clock = NodeCheck(name, "clock", *_clock(seen[name].clock, asked, time.time()))
            findings += [*_of_node(name, seen[name]), clock]
        return [*findings, *_versions(seen), *_dashboard(nodes)]


def doctor_text(findings: Iterable[NodeCheck]) -> str:
    """Return the findings as a table to read, the worst first."""
    order = {"error": 0, "warning": 1, "ok": 2}
    rows = sorted(findings, key=lambda f: (order[f.level], f.node))
    node, what = (max((len(getattr(f, k)) for f in rows), default=0) for k in ("node", "what"))
    return "\n".join(f"{f.level:8}{f.node:{node}}  {f.what:{what}}  {f.said}" for f in rows)


def _ask(node: dict[str, Any], probes: dict[str, str]) -> NodeReport:
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    look = ray.remote(num_cpus=0, scheduling_strategy=here, max_retries=0)(_look)
    return ray.get(look.remote(probes), timeout=_ANSWERS_WITHIN_S)


def _look(probes: dict[str, str]) -> NodeReport:
    """Run on the node that is looked at."""
    return NodeReport(
        versions={"python": platform.python_version()} | {n: _version(n) for n in _COMPARED},
        gpus=_gpus(),
        free_disk=shutil.disk_usage("/tmp").free,
        shared_memory=_size_of("/dev/shm"),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        clock=time.time(),
        storage={address: _probe(address, name) for address, name in probes.items()},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _size_of(folder: str) -> int:
    return shutil.disk_usage(folder).total if Path(folder).is_dir() else 0


def _probe(address: str, name: str) -> str:
    """Write, read and remove a small file; return what went wrong."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(address)
        path = f"{root.rstrip('/')}/{name}-{uuid.uuid4().hex}"
        with system.open(path, "wb") as file:
            file.write(name.encode())
        with system.open(path, "rb") as file:
            same = file.read() == name.encode()
        system.rm(path)
        return "" if same else "what was written is not what is read"
    except Exception as error:  # file systems raise nearly anything, and each is a finding
        return f"{type(error).__name__}: {error}"


def _of_node(name: str, seen: NodeReport) -> list[NodeCheck]:
    findings = [
        NodeCheck(name, "GPUs", "ok", ", ".join(seen.gpus) or "none"),
        _enough(name, "free disk in /tmp", seen.free_disk, _LITTLE_DISK, "Ray spills there"),
        _enough(
            name,
            "/dev/shm",
            seen.shared_memory,
            int(_LITTLE_MEMORY_SHARE * seen.memory),
            "Ray's object store falls back to a disk: start the container with --shm-size",
        ),
    ]
    for address, wrong in seen.storage.items():
        level: Level = "error" if wrong else "ok"
        findings.append(NodeCheck(name, address, level, wrong or "written, read, removed"))
    return findings


def _enough(name: str, what: str, have: int, want: int, why: str) -> NodeCheck:
    there = f"{have / _GIB:.1f} GiB"
    if have >= want:
        return NodeCheck(name, what, "ok", there)
    return NodeCheck(name, what, "warning", f"{there}, wanted {want / _GIB:.1f}: {why}")


def _clock(theirs: float, asked: float, answered: float) -> tuple[Level, str]:
    apart = max(asked - theirs, theirs - answered, 0.0)
    if apart <= _CLOCKS_APART_S:
        return "ok", "as here"
    return "warning", f"{apart:.0f} s apart from here: times of files are compared by --update"


def _versions(seen: dict[str, NodeReport]) -> list[NodeCheck]:
    findings = []
    for package in next(iter(seen.values())).versions if seen else ():
        found = {name: node.versions[package] for name, node in seen.items()}
        if len(set(found.values())) == 1:
            findings.append(NodeCheck("cluster", package, "ok", next(iter(found.values()))))
        else:
            said = ", ".join(f"{v} on {name}" for name, v in found.items())
            findings.append(NodeCheck("cluster", package, "error", f"{said}: install one"))
    return findings


def _dashboard(nodes: list[dict[str, Any]]) -> list[NodeCheck]:
    """Ask each node's outward address for its jobs, as a stranger would, without a token."""
    hosts = {n["NodeManagerAddress"] for n in nodes if not _is_loopback(n["NodeManagerAddress"])}
    return [NodeCheck(host, "dashboard", *_strangers_answer(host)) for host in sorted(hosts)]


def _is_loopback(host: str) -> bool:
    return host.startswith("127.")


def _strangers_answer(host: str, port: int = _DASHBOARD_PORT) -> tuple[Level, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/api/jobs/", timeout=5):
            return (
                "error",
                "answers without a token: whoever reaches it runs code here. Start Ray with "
                "RAY_AUTH_MODE=token, and the dashboard on 127.0.0.1",
            )
    except urllib.error.HTTPError as error:
        return ("ok", f"asks for a token ({error.code})")
    except OSError:
        return ("ok", "not reachable from outside")
