"""A model measured on a store's split: exact figures, controls, and what a report draws."""

from schn_ray.evaluation.files import (
    find_evaluation,
    read_diagrams,
    read_examples,
    read_measured,
    read_queries,
)
from schn_ray.evaluation.measure import evaluate
from schn_ray.evaluation.text import as_text

__all__ = [
    "as_text",
    "evaluate",
    "find_evaluation",
    "read_diagrams",
    "read_examples",
    "read_measured",
    "read_queries",
]
