import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from schn_ray.core.workers import Workers
from schn_ray.data.images import BadImage, Preprocessing
from schn_ray.training.batches import (
    Decoder,
    TrainingImages,
    global_batches,
    sampled_rows,
    view_draws,
)
from schn_ray.training.config import AugmentConfig

N = 23


def images(png: list[bytes]) -> TrainingImages:
    return TrainingImages(
        lambda row: png[row],
        np.arange(N),
        csr_array((N, 2), dtype=np.uint8),
        Preprocessing(resize=8, crop=8),
        AugmentConfig(pad=2, flip=True),
    )


@pytest.fixture(scope="module")
def png() -> list[bytes]:
    import io

    from PIL import Image

    rng = np.random.default_rng(0)

    def encoded() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    return [encoded() for _ in range(N)]


def test_samples_are_distinct_rows_that_change_with_the_iteration() -> None:
    first, second = (sampled_rows(1000, 100, seed=0, iteration=t) for t in (1, 2))
    assert len(set(first.tolist())) == 100
    assert not np.array_equal(first, second)
    assert np.array_equal(first, sampled_rows(1000, 100, seed=0, iteration=1))
    assert np.array_equal(sampled_rows(10, 100, 0, 1), np.arange(10))


@pytest.mark.parametrize("batch_size", [1, 5, 8, 23, 64])
def test_an_epoch_sees_every_row_once_in_nearly_equal_batches(batch_size: int) -> None:
    batches = global_batches(np.arange(N), batch_size, seed=0, iteration=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(N))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_the_order_changes_with_epoch_iteration_and_seed() -> None:
    orders = [
        tuple(np.concatenate(global_batches(np.arange(N), 5, *when)).tolist())
        for when in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]
    ]
    assert len(set(orders)) == 4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_workers_sees_the_same_batches(size: int, png: list[bytes]) -> None:
    data = images(png)
    batches = global_batches(np.arange(N), 6, 0, 1, 0)
    draws = view_draws(N, 0, 1, 0)
    alone = [views for _, views in Decoder().batches(data, batches, draws, Workers())]
    shared = [
        [views for _, views in Decoder().batches(data, batches, draws, Workers(rank, size))]
        for rank in range(size)
    ]
    for step, views in enumerate(alone):
        assert torch.equal(torch.cat([worker[step] for worker in shared], dim=1), views)


def test_views_change_with_the_epoch(png: list[bytes]) -> None:
    data = images(png)
    rows = np.arange(N)
    first, again, later = (torch.zeros(1, N, 3, 8, 8, dtype=torch.uint8) for _ in range(3))
    for out, epoch in [(first, 0), (again, 0), (later, 1)]:
        data.fill(out, rows, view_draws(N, 0, 1, epoch))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_a_row_that_fails_stops_the_epoch(png: list[bytes]) -> None:
    damaged = images([*png[:5], b"", *png[6:]])
    batches = global_batches(np.arange(N), 6, 0, 1, 0)
    with pytest.raises(BadImage, match="empty"):
        list(Decoder().batches(damaged, batches, view_draws(N, 0, 1, 0), Workers()))
