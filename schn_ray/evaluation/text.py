"""An evaluation's figures as lines to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.results import read_figures

Measured = Mapping[str, Any]


def text_for_model(evaluation: Path | str, fingerprint: str) -> str:
    """Return an evaluation's figures as text, for the card of the model that it measured.

    Args:
        evaluation: a finished evaluation.
        fingerprint: of the model.

    Raises:
        SchnRayError: the evaluation measured another model.
    """
    measured = read_figures(evaluation)
    if measured["model"] != fingerprint:
        raise SchnRayError(
            f"{evaluation} measured another model; evaluate this one, or name its own evaluation"
        )
    return figures_text(measured)


def figures_text(measured: Measured) -> str:
    """Return the figures as lines to read."""
    lines = [
        f"mAP {_shown(measured['map'])}, gallery codes: {measured['gallery_codes']}",
        f"  {measured['queries']:,} queries, {measured['gallery']:,} gallery images, "
        f"{measured['bits']} bits, protocol {measured['protocol']}",
        f"  95 % interval over queries:{_interval(measured['map_interval']) or ' undefined'}",
        f"  ties: expected over their orders; worst order {_shown(measured['map_worst'])}, "
        f"best {_shown(measured['map_best'])}",
        f"  precision within radius {measured['radius']}: "
        f"{_shown(measured['precision_within_radius'])}, empty balls "
        f"{_shown(measured['empty_balls'])}",
        f"  distinct codes in the gallery: {measured['unique_share']:.1%}",
    ]
    lines += [f"  {line}" for line in _galleries(measured) + _controls(measured)]
    lines += [
        f"  tie rule '{rule}' of others: mAP {_shown(value)}, by the order of the rows"
        for rule, value in measured["legacy"].items()
    ]
    if (found := measured["reidentification"]) is not None:
        ranks = ", ".join(f"rank {k} {_shown(value)}" for k, value in found["cmc"].items())
        lines.append(f"  re-identification: mAP {_shown(found['map'])}, CMC {ranks}")
    lines += [f"  audit: {finding}" for finding in measured["audit"]["findings"]]
    if measured["undefined_queries"]:
        lines.append(f"  left out: {measured['undefined_queries']} queries with nothing relevant")
    if measured["gallery_without_code"]:
        lines.append(f"  left out: {measured['gallery_without_code']} rows never sampled")
    return "\n".join(lines)


def _galleries(measured: Measured) -> list[str]:
    return [
        f"{side['said']}: mAP {_shown(side['map'])} over {side['gallery']:,} gallery images"
        for side in measured["side_by_side"]
    ]


def _controls(measured: Measured) -> list[str]:
    found = measured["controls"]
    if found is None:
        return []
    lines = [
        f"controls, {found['queries']:,} queries and {found['gallery']:,} gallery images: "
        + ", ".join(
            f"{said} {_shown((found[name] or {}).get('mean'))}"
            for name, said in (
                ("model", "this model"),
                ("classifier", "classifier's codeword"),
                ("cosine", "features by cosine"),
                ("random", "random codes"),
            )
        )
    ]
    gap = found["model_less_classifier"]
    if gap is not None:
        lines.append(
            f"model less classifier: {gap['interval']['mean']:+.4f}{_interval(gap['interval'])}"
        )
    return lines


def _interval(found: Measured | None) -> str:
    return "" if found is None else f" [{found['low']:.4f}, {found['high']:.4f}]"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
