"""What a report shows of one run: what is open at its top, and what is folded below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.verdict import Verdict, verdict_of
from schn_ray.report import tables
from schn_ray.report.charts import precision_recall, training_charts
from schn_ray.report.contents import BEST_QUERIES, WORST_QUERIES, Example, ReportData, facts
from schn_ray.report.diagrams import (
    Diagram,
    bit_balance,
    closest_bits,
    code_diagrams,
    curves_at_ranks,
    dead_bits,
    distance_curves,
    mixed_classes,
)
from schn_ray.report.drawn import Figure, drawn
from schn_ray.report.folds import Fold, Table

_OPENING_QUERIES = 4
_NOTES = {BEST_QUERIES: "one of the best", WORST_QUERIES: "one of the worst"}


@dataclass(frozen=True)
class RunView:
    """One run on a page.

    Attributes:
        data: what is shown.
        key: starts the addresses of its folds.
        verdict: in words; None without figures.
        headline: the main figure, and how much it was measured on.
        notes: sentences that the figures cannot be read without.
        warnings: what spoils the figures, or the codes.
        examples: queries of the opening.
        figures: drawn diagrams that are open.
        folds: all else.
    """

    data: ReportData
    key: str
    verdict: Verdict | None
    headline: str
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    examples: Sequence[Example] = ()
    figures: Sequence[Figure] = ()
    folds: Sequence[Fold] = field(default_factory=tuple)

    @property
    def has_figures(self) -> bool:
        """Whether there is something below the pictures that is open."""
        return bool(self.figures or self.data.summary_rows or self.notes)

    @property
    def judged(self) -> bool:
        """Whether results are marked as right or wrong."""
        return any(near.relevant is not None for one in self.examples for near in one.neighbours)


def view_of(data: ReportData, key: str = "") -> RunView:
    """Arrange what is known of a run, and draw its diagrams.

    Args:
        data: what is known.
        key: starts the addresses of its folds, where a page has two runs or more.
    """
    figures = data.figures
    opening = opening_examples(data.examples)
    folds = [
        _queries(data.examples, opening),
        *(_measured(figures) if figures else ()),
        _fold("classes", "By class", table=_by_class(figures)),
        _fold("ranking", "Rankings", _ranking(data)),
        _fold("codes", "Codes", code_diagrams(data.plots)),
        _fold("training", "Training", training_charts(data.history)),
        Fold("made-from", "Made from", facts=facts(data.provenance)),
    ]
    return RunView(
        data,
        key,
        verdict_of(figures, data.plots.confusion) if figures else None,
        tables.headline(figures),
        _notes(figures),
        [*(f"Split audit: {line}" for line in _audit(figures)), *_dead(data)],
        opening,
        [drawn(chart) for chart in _open_diagrams(data)],
        [fold for fold in folds if not fold.is_empty],
    )


def diagrams_of(data: ReportData) -> list[Diagram]:
    """Return every diagram of a run, in the order of the page.

    Args:
        data: contents of its report.
    """
    folded = [*_ranking(data), *code_diagrams(data.plots), *training_charts(data.history)]
    return [*_open_diagrams(data), *folded]


def opening_examples(examples: Sequence[Example]) -> list[Example]:
    """Return the queries that a page opens with: one of the best, some others, one of the worst.

    Args:
        examples: all queries with their results.
    """
    ends = [
        next((one for one in examples if one.kind == kind), None)
        for kind in (BEST_QUERIES, WORST_QUERIES)
    ]
    best, worst = (None if one is None else replace(one, note=_NOTES[one.kind]) for one in ends)
    others = [one for one in examples if one.kind not in _NOTES]
    room = _OPENING_QUERIES - sum(one is not None for one in ends)
    return [one for one in (best, *others[:room], worst) if one is not None]


def _open_diagrams(data: ReportData) -> list[Diagram]:
    diagrams = [
        tables.control_bars(data.figures) if data.figures else None,
        mixed_classes(data.plots.confusion),
        bit_balance(data.plots.bits),
        curves_at_ranks({"": data.plots.at}),
        closest_bits(data.plots.bits),
    ]
    return [diagram for diagram in diagrams if diagram is not None]


def _ranking(data: ReportData) -> list[Diagram]:
    curve = precision_recall({"": data.figures.pr_curve}) if data.figures else None
    return [one for one in (curve, distance_curves(data.plots.distances)) if one is not None]


def _fold(
    key: str, title: str, diagrams: Sequence[Diagram] = (), table: Table | None = None
) -> Fold:
    return Fold(key, title, table=table, figures=[drawn(chart) for chart in diagrams])


def _queries(examples: Sequence[Example], opening: Sequence[Example]) -> Fold:
    shown = {one.query.id for one in opening}
    groups: dict[str, list[Example]] = {}
    for one in examples:
        if one.query.id not in shown:
            groups.setdefault(one.kind, []).append(one)
    return Fold("queries", "More queries", examples=list(groups.items()))


def _measured(figures: Figures) -> list[Fold]:
    controls = tables.control_rows(figures.controls)
    scores = [score.mean for score in tables.control_scores(figures.controls).values()]
    return [
        Fold(
            "measures",
            "All measures",
            [tables.gallery_codes(figures)],
            Table(("Measure", "Value", "What it says"), tables.metric_rows(figures)),
        ),
        Fold(
            "controls",
            "Against simple methods",
            [line for line in [tables.classifier_verdict(figures.controls)] if line],
            Table(("Codes", "mAP, 95 % interval", "What it is"), controls, scores),
        ),
        Fold(
            "recall",
            "Recall of the nearest images",
            [tables.RECALL_MEANING, tables.itq_verdict(figures)],
            wide_table=tables.recall_rows(figures.controls),
        ),
        Fold(
            "lengths",
            "By length",
            table=Table(
                ("Length", "mAP, 95 % interval", f"Less {figures.bits} bits"),
                tables.length_rows(figures),
                [each.map for each in figures.by_length if each.map is not None],
            ),
        ),
        Fold(
            "galleries",
            "Two ways to code the gallery",
            table=Table(("Gallery codes", "mAP", "On what"), tables.galleries(figures)),
        ),
    ]


def _by_class(figures: Figures | None) -> Table | None:
    if figures is None:
        return None
    scores = sorted(each.map for each in figures.by_class if each.map is not None)
    return Table(("Class", "mAP, 95 % interval", "Of"), tables.class_rows(figures), scores)


def _notes(figures: Figures | None) -> list[str]:
    if figures is None:
        return []
    learned = [tables.gallery_codes(figures)] if figures.gallery_codes == "learned" else []
    return learned + [line for line in [figures.without_labels] if line]


def _audit(figures: Figures | None) -> Sequence[str]:
    return figures.audit.findings if figures else ()


def _dead(data: ReportData) -> list[str]:
    dead, bits = dead_bits(data.plots.bits), data.plots.bits
    if bits is None or not dead:
        return []
    names = ", ".join(map(str, dead[:10])) + (", ..." if len(dead) > 10 else "")
    one = len(dead) == 1
    return [
        f"Dead bits: {len(dead)} of {len(bits.balance)} (bit{'' if one else 's'} {names}) "
        f"{'is' if one else 'are'} the same in every image of the gallery, and "
        f"tell{'s' if one else ''} nothing."
    ]
