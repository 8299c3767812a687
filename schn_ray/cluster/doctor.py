"""Check every node of a cluster for problems that would make a job fail hours later."""

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
from schn_ray.core.errors import few
from schn_ray.core.leftovers import Leftover, cache_leftovers, leftovers
from schn_ray.core.storage.cache import cache_folder
from schn_ray.core.storage.files import absolute, is_uri

Level = Literal["ok", "warning", "error"]
_PACKAGES = ("schn-ray", "ray", "torch", "torchvision", "numpy", "pyarrow")
_GIB = 2**30
_MIN_DISK = 10 * _GIB
_MIN_MEMORY_SHARE = 0.3  # of a machine's memory: what Ray takes of /dev/shm
_MAX_CLOCK_OFFSET_S = 2.0
_ANSWER_TIMEOUT_S = 60.0
_NAMED = 10  # leftovers in a message
_DASHBOARD_PORT = 8265  # Ray's default


@dataclass(frozen=True)
class NodeCheck:
    """The result of one check.

    Attributes:
        node: the node's address, or "cluster".
        what: the thing that was checked.
        level: ``error``: jobs will fail, or strangers can run code; ``warning``: jobs may fail.
        message: the result, and what to do.
    """

    node: str
    what: str
    level: Level
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the check as a JSON object."""
        values = asdict(self)
        return values | {"said": values.pop("message")}


@dataclass(frozen=True)
class NodeReport:
    """What one node reports of itself.

    Attributes:
        versions: package -> version, "python" included.
        gpus: name of each GPU.
        free_disk: bytes free in /tmp.
        shared_memory: bytes of /dev/shm.
        memory: bytes of main memory.
        clock: seconds since the epoch.
        storage: address -> what went wrong, or "".
        leftovers: folder -> what killed commands have left there.
    """

    versions: dict[str, str]
    gpus: list[str]
    free_disk: int
    shared_memory: int
    memory: int
    clock: float
    storage: dict[str, str]
    leftovers: dict[str, list[Leftover]]


def examine(storage: list[str]) -> list[NodeCheck]:
    """Check all nodes of the cluster of ``RAY_ADDRESS``, or this machine.

    Args:
        storage: directories or URIs that every node must read and write.

    Raises:
        SchnRayError: no cluster answers at ``RAY_ADDRESS``.
    """
    with ray_session():
        nodes = [node for node in ray.nodes() if node["Alive"]]
        probes = {address: f"doctor-{uuid.uuid4().hex}" for address in storage}
        checks, reports = list[NodeCheck](), dict[str, NodeReport]()
        for node in nodes:
            name = node["NodeManagerAddress"]
            sent = time.time()
            try:
                reports[name] = _report(node, probes)
            except ray.exceptions.RayError as error:
                reason = str(error).splitlines()[0]
                checks.append(NodeCheck(name, "node", "error", f"does not answer: {reason}"))
                continue
            clock = NodeCheck(name, "clock", *_clock(reports[name].clock, sent, time.time()))
            checks += [*_of_node(name, reports[name]), clock]
        return [*checks, *_versions(reports), *_dashboard(nodes)]


def doctor_text(checks: Iterable[NodeCheck]) -> str:
    """Return checks as a table to read, errors first.

    Args:
        checks: of any nodes, in any order.

    >>> print(doctor_text([NodeCheck("10.0.0.1", "clock", "ok", "in step")]))
    ok      10.0.0.1  clock  in step
    """
    order = {"error": 0, "warning": 1, "ok": 2}
    rows = sorted(checks, key=lambda f: (order[f.level], f.node))
    node, what = (max((len(getattr(f, k)) for f in rows), default=0) for k in ("node", "what"))
    return "\n".join(f"{f.level:8}{f.node:{node}}  {f.what:{what}}  {f.message}" for f in rows)


def _report(node: dict[str, Any], probes: dict[str, str]) -> NodeReport:
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    look = ray.remote(num_cpus=0, scheduling_strategy=on_node, max_retries=0)(_look)
    return ray.get(look.remote(probes), timeout=_ANSWER_TIMEOUT_S)


def _look(probes: dict[str, str]) -> NodeReport:
    """Report of the node that this runs on."""
    return NodeReport(
        versions={"python": platform.python_version()} | {n: _version(n) for n in _PACKAGES},
        gpus=_gpus(),
        free_disk=shutil.disk_usage("/tmp").free,
        shared_memory=_size_of("/dev/shm"),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        clock=time.time(),
        storage={address: _probe(address, name) for address, name in probes.items()},
        leftovers={a: leftovers(Path(absolute(a))) for a in probes if not is_uri(absolute(a))}
        | {str(cache_folder()): cache_leftovers()},
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
    """Write, read and remove a small file; return what went wrong, or ""."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(address)
        path = f"{root.rstrip('/')}/{name}-{uuid.uuid4().hex}"
        with system.open(path, "wb") as file:
            file.write(name.encode())
        with system.open(path, "rb") as file:
            same = file.read() == name.encode()
        system.rm(path)
        return "" if same else "the file that was read differs from the one that was written"
    except Exception as error:  # file systems raise errors of many classes; all are reported
        return f"{type(error).__name__}: {error}"


def _of_node(name: str, report: NodeReport) -> list[NodeCheck]:
    checks = [
        NodeCheck(name, "GPUs", "ok", ", ".join(report.gpus) or "none"),
        _enough(name, "free disk in /tmp", report.free_disk, _MIN_DISK, "Ray spills objects to it"),
        _enough(
            name,
            "/dev/shm",
            report.shared_memory,
            int(_MIN_MEMORY_SHARE * report.memory),
            "Ray's object store falls back to a disk: start the container with --shm-size",
        ),
    ]
    for address, wrong in report.storage.items():
        level: Level = "error" if wrong else "ok"
        checks.append(NodeCheck(name, address, level, wrong or "written, read, removed"))
    for folder, left in report.leftovers.items():
        if left:
            checks.append(NodeCheck(name, f"leftovers in {folder}", "warning", _listed(left)))
    return checks


def _listed(left: list[Leftover]) -> str:
    """Describe leftovers.

    >>> print(_listed([Leftover(Path("/a/.codes.partial"), 2**30)]))
    killed commands left 1.0 GiB: run them again, or remove /a/.codes.partial
    """
    names = few([str(item.path) for item in left], _NAMED)
    size = sum(item.size for item in left) / _GIB
    return f"killed commands left {size:.1f} GiB: run them again, or remove {names}"


def _enough(name: str, what: str, size: int, minimum: int, why: str) -> NodeCheck:
    text = f"{size / _GIB:.1f} GiB"
    if size >= minimum:
        return NodeCheck(name, what, "ok", text)
    message = f"{text}, expected at least {minimum / _GIB:.1f}: {why}"
    return NodeCheck(name, what, "warning", message)


def _clock(clock: float, sent: float, answered: float) -> tuple[Level, str]:
    offset = max(sent - clock, clock - answered, 0.0)
    if offset <= _MAX_CLOCK_OFFSET_S:
        return "ok", "in step with this machine's"
    return (
        "warning",
        f"{offset:.0f} s off this machine's: --update compares times of files; set the clock",
    )


def _versions(reports: dict[str, NodeReport]) -> list[NodeCheck]:
    checks = []
    for package in next(iter(reports.values())).versions if reports else ():
        installed = {name: report.versions[package] for name, report in reports.items()}
        if len(set(installed.values())) == 1:
            checks.append(NodeCheck("cluster", package, "ok", next(iter(installed.values()))))
        else:
            text = ", ".join(f"{v} on {name}" for name, v in installed.items())
            message = f"{text}: install the same version on all nodes"
            checks.append(NodeCheck("cluster", package, "error", message))
    return checks


def _dashboard(nodes: list[dict[str, Any]]) -> list[NodeCheck]:
    """Ask each node's outward address for its jobs without a token, as a stranger would."""
    hosts = {n["NodeManagerAddress"] for n in nodes if not _is_loopback(n["NodeManagerAddress"])}
    return [NodeCheck(host, "dashboard", *_strangers_answer(host)) for host in sorted(hosts)]


def _is_loopback(host: str) -> bool:
    return host.startswith("127.")


def _strangers_answer(host: str, port: int = _DASHBOARD_PORT) -> tuple[Level, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/api/jobs/", timeout=5):
            return (
                "error",
                "answers without a token: everyone who reaches it can run code on the cluster. "
                "Start Ray with RAY_AUTH_MODE=token, and the dashboard on 127.0.0.1",
            )
    except urllib.error.HTTPError as error:
        return ("ok", f"asks for a token ({error.code})")
    except OSError:
        return ("ok", "not reachable from outside")
