"""Codes of classes: the distance that is surely reached, and what is drawn."""

import itertools

import pytest
import torch

from schn_ray.methods.centres import centres_of_classes, guaranteed_distance, least_distance

GUARANTEED = {  # (K, C): d, from exact integers
    (12, 10): 4,
    (16, 10): 6,
    (32, 10): 13,
    (64, 10): 27,
    (16, 100): 3,
    (32, 100): 10,
    (64, 100): 23,
    (48, 100): 16,
    (32, 196): 9,
    (64, 1000): 20,
}


@pytest.mark.parametrize(("size", "distance"), GUARANTEED.items())
def test_the_guaranteed_distance_is_reached_by_separated_centres(
    size: tuple[int, int], distance: int
) -> None:
    bits, classes = size
    assert guaranteed_distance(classes, bits) == distance
    assert least_distance(centres_of_classes("separated", classes, bits, 0)) >= distance


@pytest.mark.parametrize("kind", ["separated", "random"])
def test_the_least_distance_is_that_of_all_pairs(kind: str) -> None:
    T = centres_of_classes(kind, 6, 9, seed=1)  # type: ignore[arg-type]
    assert T.abs().eq(1).all()
    pairs = itertools.combinations(T, 2)
    assert least_distance(T) == min(int((a != b).sum()) for a, b in pairs)


def test_random_centres_follow_the_seed() -> None:
    first, again, other = (centres_of_classes("random", 6, 9, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
