"""The search page under load: 50 clients on loopback, errors, median and p99; and hostile requests.

    python -m benchmarks.retrieval.serve_load INDEX --model RUN IMAGE [--seconds 120] [--clients 50]

Starts Ray Serve itself. Each client keeps a connection and asks in turn for the image, for an id
that it was given, and for a thumbnail; what is not a 200 is an error. At the same time one more
client sends what must be refused. Clients run in two processes of their own, on the same machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import struct
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from schn_ray.cluster.serve import start
from schn_ray.cluster.session import ray_session
from schn_ray.retrieval.config import ServeConfig

_PROCESSES = 2


def client(port: int, image: bytes, until: float, times: dict[str, list[float]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers, like = {"content-type": "application/json"}, None
    while time.monotonic() < until:
        asked: list[tuple[str, str, str, Any, dict[str, str]]] = [
            ("image", "POST", "/search?k=20", image, {})
        ]
        if like:
            body = json.dumps({"id": like, "k": 20})
            asked.append(("id", "POST", "/search", body, headers))
            asked.append(("thumbnail", "GET", f"/image/{quote(like)}", None, {}))
        for name, method, path, body, some in asked:
            started = time.perf_counter()
            try:
                connection.request(method, path, body, some)
                answer = connection.getresponse()
                content, status = answer.read(), answer.status
            except OSError:
                content, status = b"", 0
                connection.close()
            times[name if status == 200 else f"error {status}"].append(
                time.perf_counter() - started
            )
            if name == "image" and status == 200:
                like = json.loads(content)["hits"][-1]["id"]


def clients(port: int, image: bytes, seconds: float, count: int, results: Any) -> None:
    times: dict[str, list[float]] = {n: [] for n in ("image", "id", "thumbnail")}
    times = {**times, **{f"error {s}": [] for s in (0, *range(400, 600))}}
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=client, args=(port, image, until, times)) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(times)


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def hostile(port: int, until: float, seen: Counter[tuple[str, int]]) -> None:
    asked = (
        ("10 MB that are no image", "POST", "/search", b"x" * 10_000_000),
        ("20 MB", "POST", "/search", b"x" * 20_000_000),
        ("a decompression bomb", "POST", "/search", bomb()),
        ("a wrong method", "DELETE", "/search", None),
        ("../ in an id", "GET", "/image/..%2f..%2fetc%2fpasswd", None),
    )
    while time.monotonic() < until:
        for name, method, path, body in asked:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request(method, path, body)
                seen[name, connection.getresponse().status] += 1
            except OSError:
                seen[name, 0] += 1  # hung up before all was sent
            finally:
                connection.close()
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--port", type=int, default=8017)
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    each = [len(part) for part in np.array_split(np.arange(asked.clients), _PROCESSES)]
    with ray_session():
        config = ServeConfig(port=asked.port)
        start(asked.index.resolve(), asked.model.resolve(), config)
        image = asked.image.read_bytes()
        processes = [
            context.Process(target=clients, args=(asked.port, image, asked.seconds, n, results))
            for n in each
        ]
        for process in processes:
            process.start()
        refused = Counter[tuple[str, int]]()
        hostile(asked.port, time.monotonic() + asked.seconds, refused)
        found = [results.get() for _ in processes]
        from ray import serve

        serve.shutdown()
    for name in found[0]:
        times = np.array([t for one in found for t in one[name]])
        if len(times):
            median, late = 1000 * np.median(times), 1000 * np.quantile(times, 0.99)
            print(f"{name}: {len(times):,} requests, median {median:.0f} ms, p99 {late:.0f} ms")
    for (name, status), count in sorted(refused.items()):
        print(f"{name}: {status or 'hung up'}, {count} times")


if __name__ == "__main__":
    main()
