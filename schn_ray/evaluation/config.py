"""Settings of ``evaluate``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section


class ControlsConfig(Section):
    """The controls of an evaluation, and the random sample of rows that they use.

    Attributes:
        train_rows: training rows that the controls are fitted on, at most; 0: no controls, and no
            recall of exact neighbours.
        gallery_rows: gallery rows that are ranked, at most. Unquantised features cost a thousand
            times what codes do.
        queries: queries that are ranked, at most.
        seed: of the random sample of rows.
    """

    train_rows: Annotated[int, Field(ge=0)] = 5_000
    gallery_rows: Count = 20_000
    queries: Count = 2_000
    seed: Annotated[int, Field(ge=0)] = 0


class EvaluateConfig(Section):
    """What ``evaluate`` ranks, and at which ranks it measures.

    Attributes:
        gallery: how the gallery's codes are made: ``encoded`` by the network, or ``learned`` in
            training.
        ks: ranks at which the list is cut; those beyond the gallery are left out.
        recall_at: numbers k of exact nearest rows, by the unquantised features, that are looked for
            among the first k ranks and among the first of every larger number here.
        radius: of precision within a Hamming radius, in bits.
        examples: queries that the report shows with their nearest images.
        batch_size: images that go through the network at a time.
        audit: whether a split that would spoil the figures is refused, or only reported.
        legacy: tie rules of others, measured besides the exact figures.
        part_rows: gallery rows that a worker counts at a time.
        controls: what the model is compared with.
        rescore: searches ordered by score that are measured, too, on as many rows as ``controls``
            draws; they need labels.
        rescore_candidates: rows nearest by distance that ``relaxed`` and ``features`` score, all
            ties of the last included; the others follow by distance. None: they score all rows.
        bits: of codes, of a model of nested codes; None: all, and a table by length.
    """

    gallery: Literal["encoded", "learned", "both"] = "encoded"
    ks: tuple[Count, ...] = (10, 100, 1000, 5000)
    recall_at: tuple[Count, ...] = (1, 10, 100)
    radius: Annotated[int, Field(ge=0)] = 2
    examples: Annotated[int, Field(ge=0)] = 12
    batch_size: Count = 64
    audit: Literal["refuse", "report"] = "refuse"
    legacy: tuple[Literal["stable", "reversed", "unstable"], ...] = ()
    part_rows: Count = 250_000
    controls: ControlsConfig = ControlsConfig()
    rescore: tuple[Literal["query", "relaxed", "features"], ...] = ()
    rescore_candidates: Count | None = None
    bits: Count | None = None
