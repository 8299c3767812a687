"""What ``build`` returns: an album, how good it is, and what comes next."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from schn_ray.cli.album.parts import REPORT
from schn_ray.cli.verbs.results import Evaluation, Output, Printable

if TYPE_CHECKING:
    from schn_ray.evaluation.figures import Figures
    from schn_ray.evaluation.verdict import Verdict


class BuiltAlbum(Printable, str):
    """A finished album: its path, as a string, which knows what is in it.

    Attributes:
        store: what ``prepare`` wrote.
        run: what ``train`` wrote.
        evaluation: what ``evaluate`` wrote.
        unchanged: whether it was finished before this call, and the photos are the same.
    """

    store: Output
    run: Output
    evaluation: Evaluation
    unchanged: bool

    def __new__(
        cls, path: str, store: Output, run: Output, evaluation: Evaluation, unchanged: bool
    ) -> Self:
        """Return the path as an album."""
        album = super().__new__(cls, path)
        album.store, album.run, album.evaluation = store, run, evaluation
        album.unchanged = unchanged
        return album

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.store, self.run, self.evaluation, self.unchanged

    @property
    def figures(self) -> Figures:
        """The figures of its evaluation."""
        return self.evaluation.figures

    @property
    def verdict(self) -> Verdict:
        """How good the codes are, in words."""
        from schn_ray.evaluation.results import read_plot_data
        from schn_ray.evaluation.verdict import verdict_of

        return verdict_of(self.figures, read_plot_data(self.evaluation).confusion)

    @property
    def counts(self) -> dict[str, Any]:
        """Rows, classes, and what the last call took in: ``new``, ``changed``, ``gone``."""
        names = ("rows", "classes", "quarantined", "new", "changed", "gone")
        return {name: self.store.counts[name] for name in names if name in self.store.counts}

    def text(self) -> str:
        """Return what is in the album, how good it is, and what to type next."""
        return _text(self)

    def to_json(self) -> dict[str, Any]:
        """Return the path, counts, the verdict and all figures."""
        return {
            "path": str(self),
            "counts": self.counts,
            "unchanged": self.unchanged,
            "verdict": asdict(self.verdict),
            "figures": self.figures.to_json(),
        }


def _text(album: BuiltAlbum) -> str:
    config = album.run.manifest.config
    backbone = config["backbone"]["name"]
    vectors = backbone.startswith("features:")
    counts, things = album.counts, "embeddings" if vectors else "images"
    classes = f", {counts['classes']:,} classes" if counts["classes"] else ", no labels"
    of_backbone = "" if vectors else f" on {backbone}"
    lines = [
        f"{album!s}: {counts['rows']:,} {things}{classes}; {config['bits']} bits each, by "
        f"{config['method']['name']}{of_backbone}",
        *_changes(album),
        *_quarantined(album, things),
        "",
        str(album.verdict),
        "",
        f"Pictures and figures: {album!s}/{REPORT}",
        "Next:",
        *(f"  {command}" for command in _next_commands(album, vectors)),
    ]
    return "\n".join(lines)


def _changes(album: BuiltAlbum) -> list[str]:
    if album.unchanged:
        return ["  nothing has changed since"]
    counts = album.counts
    if "new" not in counts or album.store.note:  # what an earlier call took in
        return []
    new, changed, gone = (f"{counts[name]:,}" for name in ("new", "changed", "gone"))
    return [f"  taken in: {new} new, {changed} changed, {gone} gone"]


def _quarantined(album: BuiltAlbum, things: str) -> list[str]:
    if not (bad := album.counts["quarantined"]):
        return []
    return [f"  {bad:,} {things} cannot be used: {album.store!s}/quarantine.parquet says why"]


def _next_commands(album: BuiltAlbum, vectors: bool) -> list[str]:
    path = shlex.quote(str(album))
    if vectors:  # the page takes images
        return [f"schn-ray search {path} query.npy"]
    return [f"schn-ray serve {path}", f"schn-ray search {path} photo.jpg"]
