"""What verbs return: what the command line prints, in Python and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pyarrow as pa

    from schn_ray.cluster.doctor import NodeCheck
    from schn_ray.core.described_settings import Setting
    from schn_ray.core.manifest import Manifest
    from schn_ray.data.check import Report
    from schn_ray.evaluation.compare import Comparison
    from schn_ray.evaluation.figures import Figures
    from schn_ray.methods.catalogue import Description
    from schn_ray.models.export import ExportCheck
    from schn_ray.models.push import Pushed
    from schn_ray.retrieval.duplicates.groups import DuplicateCounts
    from schn_ray.retrieval.duplicates.leaks import LeakCounts
    from schn_ray.retrieval.duplicates.planted import PlantedCounts
    from schn_ray.retrieval.map.gallery_map import MapCounts
    from schn_ray.retrieval.search import Result
    from schn_ray.suites.table import SuiteTable


class Printable:
    """A result that is shown as the command line prints it."""

    def text(self) -> str:
        """Return the lines that the command line prints."""
        raise NotImplementedError

    def to_json(self) -> Any:
        """Return the plain values that ``--json`` prints."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"


class Tabular(Printable):
    """A result that is also a table, for whatever reads Arrow: pandas, Polars, DuckDB."""

    def to_arrow(self) -> pa.Table:
        """Return the rows as a ``pyarrow.Table``."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``.

        Raises:
            SchnRayError: pandas is not installed.
        """
        from importlib.util import find_spec

        from schn_ray.core.errors import SchnRayError

        if find_spec("pandas") is None:
            raise SchnRayError("to_pandas needs pandas: pip install pandas; to_arrow needs nothing")
        return self.to_arrow().to_pandas()


@dataclass(frozen=True, repr=False)
class Catalogue(Printable):
    """Methods, described.

    Attributes:
        descriptions: of each.
        single: whether one method was asked for.
    """

    descriptions: list[Description]
    single: bool

    def text(self) -> str:
        """Return a line a method, or all about the one."""
        from schn_ray.methods.catalogue import method_lines, method_text

        if self.single:
            return method_text(self.descriptions[0])
        return method_lines(self.descriptions)

    def to_json(self) -> Any:
        """Return all that is known of each method."""
        described = [description.as_dict() for description in self.descriptions]
        return described[0] if self.single else described


@dataclass(frozen=True, repr=False)
class SettingsReference(Printable):
    """The settings of verbs, described.

    Attributes:
        verbs: verb -> its settings.
        method: whose own settings are among them; None: the default's.
    """

    verbs: dict[str, list[Setting]]
    method: str | None = None

    def keys(self) -> list[str]:
        """Return the key of each setting, as ``--set`` takes it."""
        return [setting.key for described in self.verbs.values() for setting in described]

    def text(self) -> str:
        """Return all settings of the one verb, or how many each has."""
        from schn_ray.cli.settings_page import overview_text, verb_text

        if len(self.verbs) == 1:
            ((verb, described),) = self.verbs.items()
            return verb_text(verb, described)
        return overview_text(self.verbs)

    def to_markdown(self) -> str:
        """Return a section for each verb: docs/settings.md, if it is all of them."""
        from schn_ray.cli.settings_page import settings_markdown

        return settings_markdown(self.verbs)

    def to_json(self) -> Any:
        """Return the settings of each verb by name; of a single verb, its settings."""
        values = {name: [asdict(s) for s in described] for name, described in self.verbs.items()}
        return next(iter(values.values())) if len(values) == 1 else values


class Output(Printable, str):
    """A finished directory: its path or URI, as a string, which knows its manifest.

    It is passed on wherever a path is expected, to ``open_store``, ``load`` or ``os.path.join``.
    Its ``repr`` has the counts; as text it is only the path, so print ``output.text()``.

    Attributes:
        manifest: what made the directory, its counts and its files.
        note: says so if the directory was finished before this call; else "".

    >>> from schn_ray.core.manifest import Manifest
    >>> Output("photos.store", Manifest("store", {}, {}, {"rows": 30, "share": 2 / 3}, {}, "9f"))
    photos.store: store, finished
      rows: 30
      share: 0.6667
    """

    manifest: Manifest
    note: str

    def __new__(cls, path: str, manifest: Manifest, note: str = "") -> Self:
        """Return the path as an output."""
        output = super().__new__(cls, path)
        output.manifest, output.note = manifest, note
        return output

    def __getnewargs__(self) -> tuple[str, Manifest, str]:  # type: ignore[override]
        return str(self), self.manifest, self.note

    @property
    def kind(self) -> str:
        """What the directory is: ``store``, ``run``, ``codes``, ``index`` ..."""
        return self.manifest.kind

    @property
    def counts(self) -> dict[str, Any]:
        """What the verb counted, such as rows."""
        return self.manifest.counts

    @property
    def fingerprint(self) -> str:
        """SHA-256 over settings, inputs and files."""
        return self.manifest.fingerprint

    def text(self) -> str:
        """Return path, kind and counts, a line each; those that are not known are left out."""
        lines = [f"{self!s}: {self.kind}, finished"]
        known = {name: value for name, value in self.counts.items() if value is not None}
        heic = known.pop("heic_skipped", 0)
        lines += [f"  {name.replace('_', ' ')}: {_shown(value)}" for name, value in known.items()]
        if heic:
            from schn_ray.data.shards.quarantine import heic_line

            lines.append(f"  {heic_line(heic)}, then the same command with --update")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return path, kind, counts and fingerprint."""
        return {
            "path": str(self),
            "kind": self.kind,
            "counts": self.counts,
            "fingerprint": self.fingerprint,
        }

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(_shown(value))}</td></tr>"
            for name, value in self.counts.items()
        )
        return f"<b>{escape(self)}</b>: {escape(self.kind)}, finished<table>{rows}</table>"


def _shown(value: Any) -> str:
    """Return a count as text; of a float, as many digits as anyone reads."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Codes(Output, Tabular):
    """A finished directory of codes, which is a table of id, uri, code and sha256."""

    def to_arrow(self) -> pa.Table:
        """Return a row an image; ``code`` is the packed code in bytes.

        Raises:
            SchnRayError: a file differs from what was written.
        """
        from schn_ray.retrieval.code_files import PARTS, read_tables

        return read_tables(self, self.kind, PARTS)


class MatchTable(Output, Tabular):
    """A finished directory of matches: a table with lists of ids and distances for each query."""

    def to_arrow(self) -> pa.Table:
        """Return a row a query: ``query``, ``ids``, ``distances`` and more, see docs/search.md.

        Raises:
            SchnRayError: a file differs from what was written.
        """
        from schn_ray.retrieval.code_files import read_tables

        return read_tables(self, self.kind, "matches-*.parquet")


class Evaluation(Output, Tabular):
    """A finished evaluation, shown with its figures."""

    def to_arrow(self) -> pa.Table:
        """Return a row a query: its id and its own figures, null where undefined."""
        from schn_ray.evaluation.results import query_table

        return query_table(str(self))

    @property
    def figures(self) -> Figures:
        """The figures; docs/evaluation.md says what each means."""
        from schn_ray.evaluation.results import read_figures

        return read_figures(str(self))

    def text(self) -> str:
        """Return the path and the figures, as lines to read."""
        from schn_ray.evaluation.text import figures_text

        return f"{self!s}\n{figures_text(self.figures)}"

    def to_json(self) -> dict[str, Any]:
        """Return all figures, and the path."""
        return self.figures.to_json() | {"path": str(self)}

    _repr_html_ = Printable._repr_html_


class Converted(Output):
    """Codes in the files of another engine, shown with the lines that search them."""

    @property
    def recipe(self) -> str:
        """The lines that search the codes, in the engine's own language."""
        from schn_ray.retrieval.engines.convert import recipe

        return recipe(self.manifest, str(self))

    def text(self) -> str:
        """Return path and counts, and the lines that search."""
        return f"{super().text()}\n\n{self.recipe}"

    def to_json(self) -> dict[str, Any]:
        """Return path and counts, and the lines that search."""
        return super().to_json() | {"recipe": self.recipe}

    _repr_html_ = Printable._repr_html_


class Study(Output):
    """A finished search for settings, shown with its best trials."""

    def text(self) -> str:
        """Return how many trials there were, and the best."""
        from schn_ray.tuning.results import study_text

        return study_text(str(self))

    _repr_html_ = Printable._repr_html_


@dataclass(frozen=True, repr=False)
class CheckResult(Printable):
    """What ``check`` counted.

    Attributes:
        report: all of it, by name.
    """

    report: Report

    def text(self) -> str:
        """Return the report, as lines to read."""
        from schn_ray.data.check import render

        return render(self.report)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return self.report.to_json()


class SearchResults(Tabular, list["Result"]):
    """One ``Result`` for each query, in the order images, ids, codes."""

    def to_arrow(self) -> pa.Table:
        """Return a row a hit: ``query``, ``rank`` from 1, and what a hit has."""
        from dataclasses import fields

        import pyarrow as pa

        from schn_ray.retrieval.search import Hit

        hits = [(result, rank, hit) for result in self for rank, hit in enumerate(result.hits, 1)]
        texts = pa.array([result.query for result, _, _ in hits], pa.string())
        columns = {"query": texts, "rank": pa.array([rank for _, rank, _ in hits], pa.int64())}
        for field in fields(Hit):
            values = pa.array([getattr(hit, field.name) for _, _, hit in hits])
            if values.null_count < len(values) or not hits:  # no score without rescoring
                columns[field.name] = values
        return pa.table(columns)

    def text(self) -> str:
        """Return distance, id and URI of each hit, a line each."""
        from schn_ray.retrieval.search import results_text

        return results_text(self)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values."""
        return [result.to_json() for result in self]

    def paths(self) -> str:
        """Return the path of each image once, a line each."""
        from schn_ray.retrieval.search import results_paths

        return results_paths(self)


@dataclass(frozen=True, repr=False)
class DuplicateGroups(Tabular):
    """A Parquet file of near-duplicates.

    Attributes:
        path: the file; ``duplicates`` names its columns.
        counts: how many groups and images.
    """

    path: str
    counts: DuplicateCounts | LeakCounts | PlantedCounts

    def to_arrow(self) -> pa.Table:
        """Return the rows of the file."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path)

    def text(self) -> str:
        """Return the counts as a line."""
        return f"{self.path}: {self.counts}"

    def to_json(self) -> dict[str, Any]:
        """Return path and counts."""
        return {"path": self.path} | asdict(self.counts)


@dataclass(frozen=True, repr=False)
class MapFiles(Printable):
    """A page with a map of codes, and its points as Parquet.

    Attributes:
        path: the page.
        table: the Parquet file; ``map_codes`` names its columns.
        counts: how many images and points.
    """

    path: str
    table: str
    counts: MapCounts

    def text(self) -> str:
        """Return both files and the counts as a line."""
        return f"{self.path}, {self.table}: {self.counts}"

    def to_json(self) -> dict[str, Any]:
        """Return paths and counts."""
        return {"path": self.path, "table": self.table} | asdict(self.counts)


@dataclass(frozen=True, repr=False)
class RunComparison(Tabular):
    """Runs side by side.

    Attributes:
        comparison: figures of each method, and the differences with their intervals.
    """

    comparison: Comparison

    def to_arrow(self) -> pa.Table:
        """Return a row a method and figure: ``method``, ``bits``, ``runs``, and ``mean``, ...

        ``deviation`` over the seeds is null where there is one.
        """
        import pyarrow as pa

        schema = pa.schema(
            [
                ("method", pa.string()),
                ("bits", pa.int64()),
                ("runs", pa.int64()),
                ("figure", pa.string()),
                ("mean", pa.float64()),
                ("deviation", pa.float64()),
            ]
        )
        rows = [
            {"method": method.name, "bits": method.bits, "runs": len(method.runs), "figure": name}
            | asdict(spread)
            for method in self.comparison.methods
            for name, spread in method.figures.items()
        ]
        return pa.Table.from_pylist(rows, schema)

    def text(self) -> str:
        """Return the comparison as a table."""
        from schn_ray.evaluation.compare import as_table

        return as_table(self.comparison)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return asdict(self.comparison)


@dataclass(frozen=True, repr=False)
class SuiteResult(Printable):
    """The table of a suite.

    Attributes:
        path: directory of the suite, with ``results.parquet`` and ``index.html``.
        table: figures of every method at every length on every data set.
    """

    path: str
    table: SuiteTable

    def text(self) -> str:
        """Return the table, and where its page is."""
        from schn_ray.suites.table_output import table_text

        return f"{table_text(self.table)}\n{self.path}/index.html: open it in a browser"

    def to_json(self) -> dict[str, Any]:
        """Return path and table as plain values."""
        return {"path": self.path} | asdict(self.table)


@dataclass(frozen=True, repr=False)
class ExportResult(Printable):
    """An ONNX file, compared with the network it was made of.

    Attributes:
        path: the file.
        check: how many bits were compared, and how many differ.
    """

    path: str
    check: ExportCheck

    def text(self) -> str:
        """Return what was written and how it compares."""
        from pathlib import Path

        from schn_ray.models.export import export_text

        return export_text(Path(self.path), self.check)

    def to_json(self) -> dict[str, Any]:
        """Return path and counts."""
        return {"path": self.path} | asdict(self.check)


@dataclass(frozen=True, repr=False)
class PushResult(Printable):
    """A model in a repository of the Hugging Face hub.

    Attributes:
        pushed: what the repository has.
    """

    pushed: Pushed

    @property
    def path(self) -> str:
        """The address that ``schn_ray.load`` takes."""
        return str(self.pushed.address)

    def text(self) -> str:
        """Return the address, and what was uploaded."""
        pushed = self.pushed
        size = sum(pushed.files.values()) / 1e6
        seen = "private" if pushed.private else "public"
        done = "had these files already" if pushed.unchanged else "uploaded"
        lines = [f"{self.path}: {done}, {len(pushed.files)} files, {size:.1f} MB, {seen}"]
        if pushed.removed:
            lines.append(f"  removed, of another model: {', '.join(pushed.removed)}")
        return "\n".join([*lines, f"  {pushed.url}", f'  schn_ray.load("{self.path}")'])

    def to_json(self) -> dict[str, Any]:
        """Return address, commit and files."""
        return asdict(self.pushed) | {"address": self.path}


class NodeChecks(Printable, list["NodeCheck"]):
    """What ``doctor`` checked, on every node."""

    def __init__(self, checks: Sequence[NodeCheck]) -> None:
        super().__init__(checks)

    @property
    def healthy(self) -> bool:
        """Whether no check is an error."""
        return all(check.level != "error" for check in self)

    def text(self) -> str:
        """Return a table, errors first."""
        from schn_ray.cluster.doctor import doctor_text

        return doctor_text(self)

    def to_json(self) -> list[dict[str, str]]:
        """Return a row for each check."""
        return [check.to_json() for check in self]
