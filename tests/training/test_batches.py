from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import Workers
from schn_ray.data.images import BadImage, Preprocessing, evaluation_view
from schn_ray.methods.base import View
from schn_ray.training.batches import (
    Decoder,
    TrainingImages,
    TrainingRows,
    TrainingVectors,
    global_batches,
    sampled_rows,
    view_draws,
)
from schn_ray.training.config import AugmentConfig
from schn_ray.training.rows import read_rows

N = 23
P8 = Preprocessing(resize=8, crop=8)


LABELS = csr_array((N, 2), dtype=np.uint8)
TWO: tuple[View, ...] = ("plain", "distorted")


def images(
    png: list[bytes], views: tuple[View, ...] = ("plain",), **augment: Any
) -> TrainingImages:
    return TrainingImages(
        lambda row: png[row],
        np.arange(N),
        LABELS,
        P8,
        AugmentConfig(pad=2, **augment),
        views,
    )


def vectors(drop: float, views: tuple[View, ...]) -> TrainingVectors:
    X = np.random.default_rng(0).random((N, 400), np.float32) + 1
    return TrainingVectors(lambda rows: X[rows], np.arange(N), LABELS, 400, drop, views)


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


@pytest.mark.parametrize("kind", ["one view", "two views", "two views of vectors"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_workers_sees_the_same_batches(
    size: int, kind: str, png: list[bytes]
) -> None:
    views = ("plain",) if kind == "one view" else TWO
    data = vectors(0.3, views) if kind.endswith("vectors") else images(png, views)
    batches = global_batches(np.arange(N), 6, 0, 1, 0)
    draws = view_draws(N, 0, 1, 0, len(views))
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


def views_of(data: TrainingRows, epoch: int = 0, rows: range = range(N)) -> torch.Tensor:
    """Return the views [V, b, ...] of rows."""
    out = data.empty(len(rows), False)
    draws = view_draws(N, 0, 1, epoch, len(data.views))
    data.fill(out, np.array(rows), draws[:, rows])
    return out


def test_a_second_view_is_another_one_and_leaves_the_first_as_it_is(png: list[bytes]) -> None:
    alone, two = views_of(images(png)), views_of(images(png, TWO))
    assert torch.equal(alone[0], two[0])
    differ = (two[0] != two[1]).flatten(1).any(dim=1)
    assert differ.all()
    assert torch.equal(views_of(images(png, TWO))[1], two[1])
    assert not torch.equal(views_of(images(png, TWO), epoch=1)[1], two[1])
    distorted = views_of(images(png, ("distorted", "distorted")))
    assert torch.equal(distorted[1], two[1])
    assert not torch.equal(distorted[0], distorted[1])


def test_a_view_does_not_depend_on_the_rows_beside_it(png: list[bytes]) -> None:
    for data in (images(png, TWO), vectors(0.3, TWO)):
        assert torch.equal(views_of(data, rows=range(4, 7)), views_of(data)[:, 4:7])


def test_a_distorted_view_changes_no_more_than_it_is_told(png: list[bytes]) -> None:
    none = {"area": 1.0, "colour": 0.0, "grey": 0.0, "blur": 0.0, "flip": False}
    whole = torch.stack([torch.from_numpy(evaluation_view(image, P8)) for image in png])
    assert torch.equal(views_of(images(png, TWO, **none))[1], whole)
    mirrored = views_of(images(png, TWO, **none | {"flip": True}))[1]
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(mirrored, whole, strict=True)]
    assert 0 < sum(flipped) < N
    grey = views_of(images(png, TWO, **none | {"grey": 1.0}))[1]
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    part = views_of(images(png, TWO, **none | {"area": 0.4}))[1]
    assert (part != whole).flatten(1).any(dim=1).all()
    blurred = views_of(images(png, TWO, **none | {"blur": 1.0}))[1]
    assert blurred.float().std() <= whole.float().std()
    coloured = views_of(images(png, TWO, **none | {"colour": 1.0}))[1]
    assert 0.5 < (coloured != whole).flatten(1).any(dim=1).float().mean() < 1


def test_a_distorted_vector_lacks_a_share_of_its_numbers() -> None:
    plain, distorted = views_of(vectors(0.3, TWO))
    dropped = distorted == 0
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.02)
    assert len({tuple(row) for row in dropped.tolist()}) == N
    torch.testing.assert_close(distorted[~dropped], plain[~dropped] / 0.7)


def test_two_views_that_are_one_are_refused() -> None:
    """Where a method compares them."""
    store = SimpleNamespace(
        rows=lambda role: np.arange(N),
        labels=LABELS,
        has_images=True,
        image=lambda row: b"",
        vectors=lambda rows: np.zeros((len(rows), 4), np.float32),
        location="store",
    )
    none = AugmentConfig(area=1.0, colour=0.0, grey=0.0, blur=0.0, drop=0.0)
    for preprocessing, message in [(P8, "an image"), (None, "augment.drop=0.2")]:
        with pytest.raises(SchnRayError, match=message):
            read_rows(store, none, preprocessing, Workers(), views=TWO)  # type: ignore[arg-type]
        data, _ = read_rows(store, none, preprocessing, Workers())  # type: ignore[arg-type]
        assert data.views == ("plain",)
        data, _ = read_rows(store, AugmentConfig(), preprocessing, Workers(), views=TWO)  # type: ignore[arg-type]
        assert data.views == TWO
