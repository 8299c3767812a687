"""Verbs on codes: encode, build_index, change_index, search, serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, overload

from schn_ray.cli.album.parts import model_of, part_of
from schn_ray.cli.verbs.arguments import (
    Settings,
    Workers,
    finish,
    listed,
    location_of,
    require_ray,
    setting_lines,
    shards_mapper,
    source_of,
)
from schn_ray.cli.verbs.results import Codes, MatchTable, Output, SearchResults

if TYPE_CHECKING:
    from schn_ray.data.shards.rows import Source
    from schn_ray.models.image_inputs import Images
    from schn_ray.retrieval.index.index import Index


def encode(
    source: Path | str | Source,
    model: Path | str,
    out: Path | str,
    *,
    bits: int | None = None,
    update: bool = False,
    retry_failed: bool = False,
    config: Path | str | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> Codes:
    """Encode every image of a source as a binary code.

    Interrupted at any moment, the same call does only the rest.

    Args:
        source: see ``check``; labels are not needed. Vectors, if the model takes those; a model
            with a frozen backbone also takes what ``embed`` computed with it.
        model: a finished run, or its model directory.
        out: the directory or URI of the codes.
        bits: of a code, where ``train`` had the setting ``nested``: one of its lengths.
        update: take in what is new, changed or gone in the source.
        retry_failed: try the quarantined images again.
        config: a YAML file of settings.
        settings: such as ``{"batch_size": 256}``; they override the file.
        workers: None: in this process. ``4``, ``"2:16"`` or ``"all"``: so many on Ray.

    Returns:
        The codes: their path, with ``counts`` of rows encoded and quarantined, ``to_arrow`` and
        ``to_pandas``.

    Raises:
        SchnRayError: no images, a source that changes meanwhile, or ``out`` holds something else.
        TooManyBadRows: more images are bad than ``source.max_bad_share`` allows.

    Example:
        >>> codes = encode("photos", "run", "codes", workers="all")  # doctest: +SKIP
    """
    from schn_ray.core.settings import load_settings
    from schn_ray.retrieval.config import EncodeConfig

    file = None if config is None else Path(config)
    loaded = load_settings(EncodeConfig, file, setting_lines(settings, {"bits": bits}))

    from schn_ray.retrieval.encode import encode_source

    target = location_of(out)
    shards = shards_mapper("encoding", workers, gpus=True, writes=target)
    opened = source_of(source, loaded.source)
    output = finish(
        out,
        lambda: encode_source(
            opened, model, target, loaded, shards, update=update, retry_failed=retry_failed
        ),
    )
    return Codes(output, output.manifest, output.note)


def build_index(
    codes: Path | str,
    out: Path | str,
    *,
    columns: Path | str | None = None,
    columns_of: Sequence[str] | None = None,
    vectors: Sequence[str] = (),
    update: bool = False,
) -> Output:
    """Build an exact search index over codes; ``schn-ray index CODES --out INDEX``.

    Args:
        codes: what ``encode`` wrote; or a file of another program's codes, ``.npy``, ``.npz`` or
            Parquet: -1 and +1, 0 and 1, or packed in bytes; its column ``id``, or the row's number.
        out: the index's directory or URI.
        columns: what ``search(where=...)`` filters by: a Parquet or CSV file with ``id`` and other
            columns, such as label and year; or a store of the same images, for their label (their
            folder, where none has a label).
        columns_of: which of them; None for all of a file whose types can be filtered.
        vectors: ``"relaxed"`` or ``"features"``, or both: int8 vectors to rescore by, which
            ``encode`` writes with the setting of that name.
        update: take in what ``encode`` did with ``update``. Searches see the old index until the
            new one is complete.

    Returns:
        The index: its path, with ``counts``. ``schn_ray.open_index(index)`` opens it.

    Raises:
        SchnRayError: no codes, damaged codes, codes without these vectors, columns without ids, or
            ``out`` holds something else.

    Example:
        >>> index = schn_ray.open_index(build_index("codes", "index"))  # doctest: +SKIP
    """
    from schn_ray.core.storage.cache import directory_kind
    from schn_ray.retrieval.index.build import replace_index, write_index
    from schn_ray.retrieval.index.column_file import require_file_of
    from schn_ray.retrieval.index.stored_columns import open_columns

    require_file_of(columns, columns_of)
    path, target = _columns_of(columns), location_of(out)
    opened = None if path is None else open_columns(path, columns_of)
    write = replace_index if update and directory_kind(target) == "index" else write_index
    with _codes_directory(codes) as directory:
        return finish(out, lambda: write(directory, target, opened, vectors))


def change_index(
    index: Path | str,
    *,
    add: Path | str | None = None,
    remove: Sequence[str] | Path = (),
    columns: Path | str | None = None,
    columns_of: Sequence[str] | None = None,
) -> Output:
    """Remove ids from an index and add codes; ``schn-ray index INDEX --add CODES --remove IDS``.

    Searches see the old index until the new one is complete.

    Args:
        index: the index's directory or URI.
        add: codes of the same model, or a file of them, as for ``build_index``.
        remove: ids; or a file with an id on each line; or a Parquet file with a column ``id``,
            and perhaps ``keep``: of those that ``duplicates`` says to keep, none is removed.
        columns: a Parquet or CSV file, or a store. With ``add``: the columns of the added rows,
            which must be those of the index. Without: the new columns of all rows.
        columns_of: which columns of the file; not with ``add``.

    Returns:
        The index, changed.

    Raises:
        SchnRayError: an id to remove is unknown, one to add exists, codes of another model, or
            columns that are missing or of other kinds.

    Example:
        >>> change_index("index", remove=["cat/017.jpg"])  # doctest: +SKIP
    """
    from schn_ray.retrieval.index.build import rewrite_index

    ids = _read_ids(remove) if isinstance(remove, Path) else remove
    with nullcontext() if add is None else _codes_directory(add) as directory:
        return finish(
            index,
            lambda: rewrite_index(
                location_of(index), directory, ids, _columns_of(columns), columns_of
            ),
        )


def _columns_of(columns: Path | str | None) -> str | None:
    """Return where columns come from; of an album, that is its store."""
    return None if columns is None else part_of(location_of(columns), "store")


@contextmanager
def _codes_directory(codes: Path | str) -> Iterator[Path | str]:
    """Let the block use a directory of codes; for a file, that is a temporary one."""
    if not location_of(codes).endswith((".npy", ".npz", ".parquet")):
        yield codes
        return
    from tempfile import TemporaryDirectory

    from schn_ray.retrieval.foreign_codes import write_foreign_codes

    with TemporaryDirectory() as folder:
        write_foreign_codes(codes, Path(folder, "codes"))
        yield Path(folder, "codes")


def _read_ids(path: Path) -> list[str]:
    from schn_ray.core.errors import SchnRayError

    if path.suffix == ".parquet":
        from schn_ray.retrieval.duplicates.groups import read_removable

        return read_removable(path)
    try:
        return [line for line in path.read_text().split("\n") if line]
    except UnicodeDecodeError as error:
        raise SchnRayError(f"{path} is not text: {error}") from error


@overload
def search(
    index: Path | str | Index,
    images: Images | None = ...,
    *,
    model: Path | str | None = ...,
    id: str | Sequence[str] | None = ...,
    code: str | Sequence[str] | None = ...,
    also: Path | str | Sequence[Path | str | Index] | None = ...,
    k: int | None = ...,
    radius: int | None = ...,
    rescore: str | None = ...,
    oversample: int | None = ...,
    where: str | None = ...,
    html: Path | str | None = ...,
) -> SearchResults: ...


@overload
def search(
    index: Path | str | Index,
    *,
    queries: Path | str,
    out: Path | str,
    also: Path | str | Sequence[Path | str | Index] | None = ...,
    k: int | None = ...,
    radius: int | None = ...,
    rescore: str | None = ...,
    oversample: int | None = ...,
    where: str | None = ...,
    workers: Workers | None = ...,
) -> MatchTable: ...


def search(
    index: Path | str | Index,
    images: Images | None = None,
    *,
    model: Path | str | None = None,
    id: str | Sequence[str] | None = None,
    code: str | Sequence[str] | None = None,
    queries: Path | str | None = None,
    out: Path | str | None = None,
    also: Path | str | Sequence[Path | str | Index] | None = None,
    k: int | None = None,
    radius: int | None = None,
    rescore: str | None = None,
    oversample: int | None = None,
    where: str | None = None,
    html: Path | str | None = None,
    workers: Workers | None = None,
) -> SearchResults | MatchTable:
    """Find the nearest images by Hamming distance, exactly; ties come in the order of ids.

    Args:
        index: a path, a URI or an opened index; or an album of ``build``.
        images: one or more: paths, bytes of image files, Pillow images, or pixels as arrays or
            tensors, see ``models.image_inputs.image_list``. Where the model takes vectors, ``.npy``
            files, or arrays [d] or [n, d].
        model: the run or model that encoded the index; needed for images, but not with an album.
        id: one or more ids in the index: find more like these, without themselves.
        code: one or more codes in hexadecimal.
        queries: a directory of codes: search for all of them, and write ``out``.
        out: directory or URI for the matches of ``queries``.
        also: more indexes of the same model, searched as one with ``index``.
        k: how many results of each query; default: 10, or all within the radius.
        radius: bits; only results at most so far away.
        rescore: what to order by; equal scores come in the order of ids. ``"query"``: the inner
            product of the query's output before the sign with the codes, exactly; an id's image is
            read again. ``"relaxed"`` or ``"features"``: the cosine of outputs before the sign, or
            of features, among the nearest by distance; the index must have these vectors.
            ``queries`` need codes that were encoded with the setting ``relaxed`` or ``features``.
        oversample: how many times k are scored by ``"relaxed"`` or ``"features"``, ties of the last
            distance included; default: 10.
        where: only images that meet this condition on the index's columns, such as
            ``"label = 'cat' and year >= 2020"``; the filter comes before the ranking.
        html: a page to write, with the images.
        workers: for ``queries``. None: in this process. ``4`` or ``"all"``: so many on Ray.

    Returns:
        A list of results, one for each query; for ``queries``, the output directory. Both have
        ``to_arrow`` and ``to_pandas``.

    Raises:
        SchnRayError: no query, an image that cannot be read, another model than the index's, a
            query that is a code and cannot be rescored, an index without the vectors, or a
            condition that does not parse or names no column.

    Example:
        >>> search("index", "query.jpg", model="run", k=3)  # doctest: +SKIP
        query.jpg
             0  cat/001.jpg  /photos/cat/001.jpg
             2  cat/017.jpg  /photos/cat/017.jpg
             3  cat/009.jpg  /photos/cat/009.jpg
    """
    from schn_ray.core.errors import SchnRayError
    from schn_ray.retrieval.search import SearchLimits, search_indexes

    k = 10 if k is None and radius is None else k
    limits = SearchLimits(k, radius, rescore, oversample, where)
    model = model_of(location_of(index), model)
    indexes = [part_of(location_of(one), "index") for one in (index, *listed(also))]
    if (queries is None) != (out is None):
        raise SchnRayError("--queries CODES and --out DIR go together")
    if queries is not None and out is not None:
        from schn_ray.retrieval.batch_search import search_gallery

        target = location_of(out)
        shards = shards_mapper("searching", workers, writes=target)
        output = finish(out, lambda: search_gallery(indexes, queries, target, limits, shards))
        return MatchTable(output, output.manifest, output.note)
    results = SearchResults(
        search_indexes(indexes, limits, images, model, listed(id), listed(code))
    )
    if html is not None:
        from schn_ray.report.runs import write_results_page

        write_results_page(results, Path(html))
    return results


def serve(
    index: Path | str | Index,
    model: Path | str | None = None,
    *,
    labels: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Settings = None,
) -> None:
    """Serve a search page and its JSON API, until the process is interrupted.

    One replica is this process; more of them are on Ray Serve.

    Args:
        index: a path, a URI or an opened index; or an album of ``build``.
        model: the run or model that encoded the index; needed without an album.
        labels: a store of the same images, whose classes are shown; default: the index's column
            ``label``, if it has one, as that of a labelled album has.
        host: address to listen on; the default is reached from this machine only.
        port: to listen on.
        settings: such as ``{"replicas": 4}``.

    Raises:
        SchnRayError: index and model do not belong together, the store has no labels of these
            images, the port is taken, or there are to be more replicas than one and Ray is not
            installed.

    Example:
        >>> serve("index", "run", port=8080)  # doctest: +SKIP
    """
    from schn_ray.core.errors import SchnRayError
    from schn_ray.core.settings import load_settings
    from schn_ray.retrieval.config import ServeConfig

    config = load_settings(
        ServeConfig, settings=setting_lines(settings, {"host": host, "port": port})
    )
    model = model_of(location_of(index), model)
    if model is None:
        raise SchnRayError("--model RUN is missing: name the model that encoded the index")
    store = None if labels is None else part_of(location_of(labels), "store")
    index = part_of(location_of(index), "index")
    if config.replicas == 1:
        from schn_ray.retrieval.server.local import serve_locally

        return serve_locally(index, model, config, store)
    require_ray("serving")
    from schn_ray.cluster.serve import serve_on_ray

    serve_on_ray(index, model, config, store)
