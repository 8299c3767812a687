"""All methods described from their classes: for ``schn-ray methods`` and docs/methods.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from schn_ray.core.described_settings import Setting, cell, describe_settings, settings_text
from schn_ray.core.settings import flattened
from schn_ray.methods.base import DeepMethod, Method, PublishedFigure
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.models.config import HeadConfig

_LABELS = {
    "none": "needs no labels",
    "single": "one label a row",
    "multi": "any number of labels a row",
}
_HEAD = """# Methods

Generated from the classes by `schn-ray methods --markdown`; do not edit.

`schn-ray train STORE --method NAME --out RUN` trains a method, with any preset, on images or on
feature vectors. `schn-ray methods NAME` shows one. [How to add one](adding_a_method.md).
Where learned codes are solved, `RUN/learned.parquet` has those of the training rows.

Others' figures were measured on networks, splits and galleries of their own, and mostly with ties
in the order of rows. So they stand apart from ours, which have one split, backbone and budget for
[all methods](../benchmarks/README.md#every-method-on-one-backbone).
"""


@dataclass(frozen=True)
class Description:
    """A method as its class describes it.

    Attributes:
        name: for ``--method``.
        summary: first line of the docstring.
        details: the rest of it.
        paper: title and venue; empty for a method of this project.
        figures: what others measured, a line each.
        labels: what labels it needs.
        inputs: what rows it takes.
        kind: how it learns.
        solves_codes: whether training rows get codes apart from those that the model encodes.
        head: what its settings of ``head`` may be.
        recipe: settings of ``train`` that differ from the defaults.
        settings: of its section ``method``.
    """

    name: str
    summary: str
    details: str
    paper: str
    figures: list[str]
    labels: str
    inputs: str
    kind: str
    solves_codes: bool
    head: str
    recipe: dict[str, Any]
    settings: list[Setting]

    def as_dict(self) -> dict[str, Any]:
        """Return nested values for JSON."""
        return asdict(self)


def describe_method(name: str) -> Description:
    """Describe a method.

    Args:
        name: see ``methods.registry.find_method``.

    Raises:
        SchnRayError: no such method.
    """
    method = find_method(name)
    summary, _, details = inspect.getdoc(method).partition("\n")  # type: ignore[union-attr]
    deep = issubclass(method, DeepMethod)
    return Description(
        name=name,
        summary=summary,
        details=re.split(r"\n(?:Args|Attributes|Raises):", details)[0].strip(),
        paper=f"{method.paper.title}, {method.paper.venue}" if method.paper else "",
        figures=[_figure(figure) for figure in method.paper.figures] if method.paper else [],
        labels=_LABELS[method.labels],
        inputs="images or vectors" if deep else "vectors, or images with a frozen backbone",
        kind=_kind(method),
        solves_codes=method.solves_codes(),
        head=_head(method),
        recipe=flattened(method.Config.recipe),
        settings=_settings(method),
    )


def catalogue_markdown() -> str:
    """Return docs/methods.md."""
    described = [describe_method(name) for name in METHODS]
    rows = [
        f"| [{d.name}](#{d.name}) | {d.paper or 'this project'} | {d.labels} "
        f"| {'solved' if d.solves_codes else ''} |"
        for d in described
    ]
    head = ["| method | published | labels | learned codes |", "| --- | --- | --- | --- |"]
    table = "\n".join([*head, *rows])
    return "\n".join([_HEAD, table, "", *(_section(d) for d in described)]).replace("``", "`")


def method_lines(described: Sequence[Description]) -> str:
    """Return a line for each method, for a terminal.

    Args:
        described: the methods.
    """
    width = max(len(d.name) for d in described)
    return "\n".join(f"{d.name:{width}}  {d.labels:28}  {d.summary}" for d in described)


def method_text(described: Description) -> str:
    """Return all about one method, for a terminal.

    Args:
        described: as ``describe_method`` returned it.
    """
    facts = [("paper", described.paper or "this project"), ("labels", described.labels)]
    facts += [("figures", figure) for figure in described.figures]
    facts += [("input", described.inputs), ("head", described.head), ("learns", described.kind)]
    facts += [("recipe", ", ".join(f"{k}={v}" for k, v in described.recipe.items()) or "defaults")]
    lines = [described.summary, "", described.details, "", *(f"{k:8}{v}" for k, v in facts), ""]
    return "\n".join([*lines, settings_text(described.settings)]).rstrip()


def _kind(method: type[Method[Any]]) -> str:
    if not issubclass(method, DeepMethod):
        return "fitted in rounds"
    views = " of two views a row" if len(method.views) > 1 else ""
    nested = f"; no nested codes: {method.not_nested}" if method.not_nested else ""
    return f"descends batches{views}{nested}"


def _head(method: type[Method[Any]]) -> str:
    if not issubclass(method, DeepMethod):
        return "its own"
    spec = method.choose_head(method.Config(), HeadConfig())
    if spec.kind == "blocks":
        return "one-hot blocks"
    return "linear or mlp" + (", with batch normalisation" if spec.batch_norm else "")


def _figure(figure: PublishedFigure) -> str:
    protocol = f"; {figure.protocol}" if figure.protocol else ""
    return f"{figure.data}: {figure.scores}{protocol} ({figure.source})"


def _section(described: Description) -> str:
    recipe = ", ".join(f"`{key}={value}`" for key, value in described.recipe.items())
    lines = [f"## {described.name}", "", described.summary, "", described.details, ""]
    lines += [
        f"- Published: {described.paper or 'no; this project'}",
        *(f"- Others' figure, not run here: {figure}" for figure in described.figures),
        f"- Labels: {described.labels}. Input: {described.inputs}. Head: {described.head}. "
        f"{described.kind.capitalize()}.",
        f"- Recipe: {recipe or 'the defaults of `train`'}",
        "",
    ]
    if described.settings:
        lines += ["| setting | default | searched | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{s.key}` | {s.default} | {s.searched} | {cell(s.meaning)} |"
            for s in described.settings
        ]
        lines += [""]
    return "\n".join(lines)


def _settings(method: type[Method[Any]]) -> list[Setting]:
    described = describe_settings(method.Config, "method.")
    return [setting for setting in described if setting.key != "method.name"]
