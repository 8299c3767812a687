"""CRH against its equations; classes take other words only for a better total."""

import itertools
import math

import pytest
import torch
from support.loss_problem import DRAWS, SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.crh import Crh


def literal(case: Case) -> dict[str, Tensor]:
    T, m = case.method.words[case.method.word_of_class], case.method.config.margin
    s, ce, off, labelled = math.sqrt(case.h.shape[1]), 0, 0, 0
    for h, u, y in zip(case.h, case.U, case.batch.Y, strict=True):
        if not y.any():
            continue
        labelled += 1
        z = torch.stack(
            [
                s * ((h * t).sum() / (h.norm() * t.norm()) - m * y_c)
                for t, y_c in zip(T, y, strict=True)
            ]
        )
        own = torch.nonzero(y)[:, 0].tolist()
        ce = ce - sum(torch.log(z[c].exp() / z.exp().sum()) for c in own) / len(own)
        centre = sum(T[c] for c in own) / len(own)
        off = off + ((u - centre) ** 2).sum() / len(u)
    return {"classification": ce / labelled, "quantization": off / labelled}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Crh, seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Crh, 0))


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_words_are_given_at_the_least_total_distance(seed: int) -> None:
    case = make_case(Crh, seed, words=1)
    problem = case.method.problem
    rows = torch.arange(problem.rows)
    U = torch.randn(problem.rows, 8)
    sets = problem.label_sets.sets[problem.label_sets.set_of_row].toarray()
    case.method.update(rows, torch.zeros(len(rows), 8), {"U": U})

    def total(words: tuple[int, ...]) -> float:
        distance = 0.0
        for c, w in enumerate(words):
            of_class = [i for i in range(len(rows)) if sets[i, c]]
            different = [int((U[i].sign() != case.method.words[w]).sum()) for i in of_class]
            distance += sum(different) / max(len(of_class), 1)
        return distance

    best = min(total(words) for words in itertools.permutations(range(5)))
    assert total(tuple(case.method.word_of_class.tolist())) == pytest.approx(best)
