"""KSH, SDH and COSDISH against literal versions, which benchmarks/methods/all_pairs.py has."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shallow_rows import clustered, multi_label

LITERAL = runpy.run_path(
    str(Path(__file__).parents[3] / "benchmarks" / "methods" / "all_pairs.py"), run_name="all_pairs"
)


@pytest.mark.parametrize("problem", [clustered(n=200, seed=3), multi_label(n=200, seed=4)])
@pytest.mark.parametrize("name", ["KSH", "SDH", "COSDISH"])
def test_codes_are_those_of_a_version_that_forms_all_pairs(name: str, problem: Any) -> None:
    method, config, literal = LITERAL["methods"](rows=200, anchors=40)[name]
    drawn = LITERAL["Problem"](*problem)
    ours = LITERAL["learned_codes"](method(config, 6, 0), drawn)
    assert np.array_equal(ours, literal(drawn, config, 6))
    assert len(np.unique(ours, axis=0)) > 3
