import numpy as np
import pytest
import torch
from torch import Tensor

from schn_ray.core.bits import pack, sign
from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import LabelSets, label_matrix, label_sets
from schn_ray.methods.centres import class_centres
from schn_ray.methods.code_table import CodeTable, initial_codes


def test_a_table_keeps_codes_and_who_has_one() -> None:
    table = CodeTable(5, 12)
    B = sign(torch.randn(2, 12))
    table.write(torch.tensor([4, 1]), B)
    assert torch.equal(table.read(np.array([1, 4, 0])), torch.stack([B[1], B[0], torch.zeros(12)]))
    assert table.coded.tolist() == [False, True, False, False, True]
    again = CodeTable(5, 12)
    again.load_state_dict(table.state_dict())
    assert torch.equal(again.read(range(5)), table.read(range(5)))
    with pytest.raises(ValueError, match="do not fit"):
        CodeTable(5, 24).load_state_dict(table.state_dict())


def test_a_state_is_a_snapshot() -> None:
    table = CodeTable(2, 8)
    state = table.state_dict()
    table.write([0], torch.ones(1, 8))
    assert not state["coded"].any()
    table.load_state_dict(state)
    table.write([1], torch.ones(1, 8))
    assert not state["coded"].any()
    assert not state["packed"].any()


def distances(centres: Tensor) -> np.ndarray:
    far = (centres.shape[1] - centres @ centres.T) / 2
    return far[~torch.eye(len(centres), dtype=torch.bool)].numpy()


@pytest.mark.parametrize("bits", [1, 2, 8, 32, 64])
def test_centres_of_a_power_of_two_are_half_the_bits_apart(bits: int) -> None:
    apart = distances(class_centres(bits, bits, seed=1))
    assert np.all(apart == bits / 2)
    twice = distances(class_centres(2 * bits, bits, seed=1))
    assert set(twice.tolist()) <= {bits / 2, bits}


@pytest.mark.parametrize(
    # the best linear codes known have 6, 4, 10, 14, 22 and 24: near them, and well above chance
    ("bits", "classes", "least"),
    [(12, 10, 4), (12, 32, 4), (24, 64, 9), (33, 100, 12), (48, 100, 20), (64, 2000, 21)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_centres_of_other_lengths_stay_separated(
    bits: int, classes: int, least: int, seed: int
) -> None:
    apart = distances(class_centres(classes, bits, seed))
    assert apart.min() >= least
    drawn = distances(sign(torch.randn(classes, bits, generator=torch.Generator().manual_seed(0))))
    assert apart.min() > drawn.min()


@pytest.mark.parametrize(("bits", "classes"), [(1, 2), (3, 8), (5, 32), (11, 1500), (11, 2048)])
def test_as_many_centres_as_there_are_codes(bits: int, classes: int) -> None:
    centres = class_centres(classes, bits, seed=0)
    assert len(np.unique(pack(centres), axis=0)) == classes
    with pytest.raises(SchnRayError, match=f"expected {bits + 1} bits"):
        class_centres(2**bits + 1, bits, seed=0)


def test_centres_are_decided_by_the_seed() -> None:
    assert torch.equal(class_centres(10, 33, seed=4), class_centres(10, 33, seed=4))
    assert not torch.equal(class_centres(10, 33, seed=4), class_centres(10, 33, seed=5))


def test_40_000_centres_are_distinct_and_far_apart() -> None:
    centres = class_centres(40_000, 32, seed=0)
    assert len(np.unique(pack(centres), axis=0)) == 40_000
    first = centres[:500]
    apart = (32 - first @ centres.T) / 2
    assert apart[apart > 0].min() >= 5  # drawn at random: 2


def sets_of(labels: list[list[int]], classes: int) -> LabelSets:
    return label_sets(label_matrix(labels, classes))


def test_initial_codes_zeros_code_nothing() -> None:
    table = initial_codes("zeros", sets_of([[0], [1]], 2), 16, seed=0)
    assert not table.coded.any()
    assert not table.read([0, 1]).any()


def test_initial_codes_random_are_one_a_label_set() -> None:
    sets = sets_of([[0], [1], [0], [0, 1], [], []], 2)
    B = initial_codes("random", sets, 20, seed=0).read(range(6))
    assert torch.equal(B[0], B[2])
    assert torch.equal(B[4], B[5])
    assert len(torch.unique(B, dim=0)) == 4
    assert torch.equal(B, initial_codes("random", sets, 20, seed=0).read(range(6)))


def test_initial_codes_hadamard_are_the_majority_of_centres() -> None:
    labels = [[0], [1], [2], [0, 1, 2], [0, 1]]
    centres = class_centres(3, 64, seed=3)
    B = initial_codes("hadamard", sets_of(labels, 3), 64, seed=3).read(range(5))
    assert torch.equal(B[:3], centres)
    assert torch.equal(B[3], centres.sum(dim=0).sign())
    agreed = centres[0] == centres[1]
    assert torch.equal(B[4][agreed], centres[0][agreed])
    assert 4 < (B[4][~agreed] > 0).sum() < 28  # 32 ties, some to each side
