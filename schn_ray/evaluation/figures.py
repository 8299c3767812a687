"""The figures of one evaluation, typed: what ``metrics.json`` holds.

``evaluate`` builds ``Figures`` and writes them; ``results.read_figures`` reads and checks them.
Text, tables, comparisons and charts use the fields. Only this module knows the keys of the file.

Every mean is over the queries that have something relevant in the gallery. It is None where no
query has, as in a store without labels. Ties are resolved by expectation over their orders, unless
a field says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, InstanceOf

from schn_ray.core.settings import Section
from schn_ray.evaluation.metrics.bootstrap import Difference, Interval, LevelInterval
from schn_ray.evaluation.metrics.reid import ReidFigures

GalleryCodes = Literal["encoded", "learned", "given"]
Text = InstanceOf[str]  # names of files need not be valid Unicode, which pydantic's str demands


class Record(Section):
    """A frozen part of a JSON file that an evaluation writes; an unknown key is an error."""

    model_config = ConfigDict(populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dumps``, under the keys of the file."""
        return self.model_dump(by_alias=True)


class MapAt(Record):
    """Mean average precision of the first k ranks, by what the sum of precisions is divided by.

    Attributes:
        relevant: all relevant rows of the gallery.
        min: the relevant rows that k ranks can hold, min(R, k).
        hits: the relevant rows among the first k, as most published tables have it.
    """

    relevant: float | None
    min: float | None
    hits: float | None


class PRPoint(Record):
    """Mean precision and recall of all gallery rows within one Hamming distance.

    Attributes:
        threshold: the distance, in bits.
        precision: a query that retrieves nothing counts as 0; None is not drawn.
        recall: share of the relevant rows that lie within the distance.
        empty: share of the queries that retrieve nothing.
    """

    threshold: int
    precision: float | None
    recall: float
    empty: float


class GalleryFigures(Record):
    """Every figure of one ranking: all queries against one gallery.

    Attributes:
        bits: bits of a code, K.
        queries: all queries, the undefined ones included.
        undefined_queries: queries with nothing relevant in the gallery, left out of every mean.
        gallery: rows that each query ranks.
        ties: the tie rule; ``expected``: the mean over all orders inside ties.
        map: mean average precision over the whole gallery.
        map_best: the same with relevant rows first inside each tie.
        map_worst: the same with relevant rows last inside each tie.
        map_at: k -> mean average precision of the first k ranks.
        precision_at: k -> share of relevant rows among the first k ranks.
        recall_at: k -> share of all relevant rows that the first k ranks hold.
        radius: Hamming distance of the two figures that follow, in bits.
        precision_within_radius: share of relevant rows within the radius, which has no ties; a
            query with no row there counts as 0.
        empty_balls: share of the queries that have no row within the radius.
        pr_curve: a point a distance threshold, 0 to K bits.
        map_interval: bootstrap interval of ``map`` over queries.
        mrr: mean reciprocal rank of the first relevant row.
        ndcg_gain: gain of ``ndcg_at``; ``linear``: the number of labels shared.
        ndcg_at: k -> normalised discounted cumulative gain of the first k ranks.
    """

    bits: int
    queries: int
    undefined_queries: int
    gallery: int
    ties: Text
    map: float | None
    map_best: float | None
    map_worst: float | None
    map_at: dict[int, MapAt]
    precision_at: dict[int, float | None]
    recall_at: dict[int, float | None]
    radius: int
    precision_within_radius: float | None
    empty_balls: float | None
    pr_curve: tuple[PRPoint, ...]
    map_interval: LevelInterval | None
    mrr: float | None
    ndcg_gain: Text
    ndcg_at: dict[int, float | None]


class GallerySide(GalleryFigures):
    """The figures of a second gallery, measured with the same queries.

    Attributes:
        gallery_codes: how its codes were made.
        description: its codes and its rows, in words.
    """

    gallery_codes: GalleryCodes
    description: Text = Field(validation_alias="said", serialization_alias="said")


class ClassFigures(Record):
    """Average precision over the queries of one class.

    Attributes:
        name: of the class.
        queries: queries that have the class; one with two classes counts in both.
        map: mean average precision over the defined ones.
        low: lower end of its bootstrap interval.
        high: upper end of it.
    """

    name: Text = Field(validation_alias="class", serialization_alias="class")
    queries: int
    map: float | None
    low: float | None
    high: float | None


class LengthFigures(Record):
    """Figures of nested codes at one length, of the same queries and gallery as all others.

    Attributes:
        bits: the length.
        map: mean average precision over the whole gallery.
        map_interval: bootstrap interval of ``map`` over queries.
        less_longest: the paired difference to the longest codes; None without a defined query.
        precision_at: k -> share of relevant rows among the first k ranks.
        precision_within_radius: share of relevant rows within the radius.
        unique_share: distinct codes over all codes of the gallery.
    """

    bits: int
    map: float | None
    map_interval: LevelInterval | None
    less_longest: Difference | None
    precision_at: dict[int, float | None]
    precision_within_radius: float | None
    unique_share: float


class AuditSummary(Record):
    """What the split audit reported; ``audit.json`` has the rows.

    Attributes:
        findings: a line a finding.
        spoiling: those of them that spoil the figures.
        rows: role of the split -> its rows.
    """

    findings: tuple[Text, ...]
    spoiling: tuple[Text, ...]
    rows: dict[Text, int]


class Scores(Record):
    """One figure of the model and of its controls, each with its bootstrap interval.

    Attributes:
        model: the model's own codes.
        classifier: codes that are the codeword of the predicted class.
        itq: iterative quantisation of the features, at as many bits.
        pca_rotation: their principal directions, rotated at random, at as many bits.
        lsh: random hyperplanes, at as many bits.
        random: random codes.
        model_less_itq: the paired difference of the two; None where one is missing.
    """

    model: Interval | None = None
    classifier: Interval | None = None
    itq: Interval | None = None
    pca_rotation: Interval | None = None
    lsh: Interval | None = None
    random: Interval | None = None
    model_less_itq: Difference | None = None

    @property
    def scores(self) -> dict[str, Interval | None]:
        """Name -> the figure and its interval, the model first."""
        return {
            "model": self.model,
            "classifier": self.classifier,
            "itq": self.itq,
            "pca_rotation": self.pca_rotation,
            "lsh": self.lsh,
            "random": self.random,
        }


class NeighbourRecall(Scores):
    """Share of the k exact nearest rows that lie among the first ranks by Hamming distance.

    Nearest is by cosine of the unquantised features. Ties of both rankings are expected over their
    orders; see ``metrics.recall``.

    Attributes:
        model: the model's own codes, which are always measured.
        k: exact neighbours of a query.
        first: ranks by Hamming distance.
    """

    model: Interval
    k: int
    first: int

    @property
    def name(self) -> str:
        """Such as ``recall 10@100``: of the 10 nearest, the share among the first 100."""
        return f"recall {self.k}@{self.first}"

    @property
    def column(self) -> str:
        """Its name in ``queries.parquet``, where the model's value of each query is."""
        return f"recall_{self.k}_in_{self.first}"


class Controls(Scores):
    """Mean average precision of the model and of its controls, on the very same rows.

    Without labels it is None throughout, and ``recall`` is what there is.

    Attributes:
        queries: queries that were drawn for the controls.
        gallery: gallery rows that were drawn.
        train_rows: training rows that the controls were fitted on.
        cosine: unquantised features, ranked by cosine.
        model_less_classifier: the paired difference of the two; None without a defined query.
        recall: of the exact nearest rows, at each pair of ranks.
    """

    queries: int
    gallery: int
    train_rows: int
    cosine: Interval | None = None
    model_less_classifier: Difference | None = None
    recall: tuple[NeighbourRecall, ...] = ()

    @property
    def scores(self) -> dict[str, Interval | None]:
        """Name -> mAP and its interval, the model first."""
        scores = super().scores
        before = {name: scores.pop(name) for name in ("model", "classifier")}
        return before | {"cosine": self.cosine} | scores


class Rescored(Record):
    """Mean average precision of a search ordered by score, on rows drawn as for the controls.

    Attributes:
        by: as ``search --rescore`` has it.
        queries: that were drawn.
        gallery: rows that were drawn.
        candidates: the mean number of rows that were scored, the nearest by distance, where the
            others follow by distance; None: all are ranked by score.
        map: by score, with its interval; each distinct score is a level of ties.
        plain: by Hamming distance, on the very same rows.
        gain: the paired difference, ``map`` less ``plain``; None without a defined query.
    """

    by: Text
    queries: int
    gallery: int
    candidates: float | None = None
    map: Interval | None
    plain: Interval | None
    gain: Difference | None


class Figures(GalleryFigures):
    """All figures of an evaluation, and what they were measured on.

    Attributes:
        run: name of the run.
        trained: settings of its training; empty for a model without a run.
        model: fingerprint of the model.
        store: fingerprint of the store.
        gallery_codes: how the gallery's codes were made.
        gallery_without_code: gallery rows that have no learned code and are not ranked.
        protocol: of the split.
        split_seed: of the split.
        audit: what the split audit reported.
        queries_sha256: hash of the queries' ids and images.
        gallery_sha256: hash of the gallery's ids and images.
        unique_share: distinct codes over all codes of the gallery.
        by_class: a row a class that queries have.
        by_length: a row a length of nested codes; empty for codes of one length.
        legacy: tie rule of others -> mAP by it, which depends on the order of the rows.
        reidentification: None where not every query has a camera.
        side_by_side: figures of learned codes, and of encoded ones of the same rows; empty
            unless both were requested.
        controls: None where they were left out.
        rescored: a row a rescoring that was requested; apart from all other figures.
        without_labels: why every figure that needs labels is missing; None where none is.
    """

    run: Text
    trained: dict[Text, Any]
    model: Text
    store: Text
    gallery_codes: GalleryCodes
    gallery_without_code: int
    protocol: Text
    split_seed: int
    audit: AuditSummary
    queries_sha256: Text
    gallery_sha256: Text
    unique_share: float
    by_class: tuple[ClassFigures, ...]
    by_length: tuple[LengthFigures, ...] = ()
    legacy: dict[Text, float | None]
    reidentification: ReidFigures | None = None
    side_by_side: tuple[GallerySide, ...]
    controls: Controls | None
    rescored: tuple[Rescored, ...] = ()
    without_labels: Text | None = None

    @property
    def main_recall(self) -> NeighbourRecall | None:
        """The recall that is named first: 10 in 10, or else the first one; None without any."""
        recall = self.controls.recall if self.controls else ()
        main = (each for each in recall if each.k == each.first == 10)
        return next(main, recall[0] if recall else None)
