"""Parts of a page that are folded below its opening."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schn_ray.report.contents import Example, Fact
from schn_ray.report.drawn import Figure


@dataclass(frozen=True)
class Table:
    """Rows of a label, a value and a note.

    Attributes:
        head: of the three columns.
        rows: (label, value, note).
        shares: the value of each row as a bar from 0 to 1; empty for no bars.
    """

    head: tuple[str, str, str]
    rows: Sequence[tuple[str, str, str]]
    shares: Sequence[float] = ()


@dataclass(frozen=True)
class Fold:
    """A part of a page that is closed until it is opened, printed, or linked to.

    Attributes:
        key: of its address in the page.
        title: always visible.
        text: sentences below the title.
        table: of figures.
        wide_table: rows of cells, the first of them the header.
        figures: drawn diagrams.
        examples: (heading, queries with their results).
        facts: (heading, facts) of what the run was made from.
    """

    key: str
    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    wide_table: Sequence[tuple[str, ...]] = ()
    figures: Sequence[Figure] = ()
    examples: Sequence[tuple[str, Sequence[Example]]] = ()
    facts: Sequence[tuple[str, Sequence[Fact]]] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to unfold."""
        return not (
            (self.table and self.table.rows)
            or self.wide_table
            or self.figures
            or self.examples
            or self.facts
        )
