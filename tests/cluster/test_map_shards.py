"""Shards on Ray: fed as they are listed, done again after a death, and not for ever."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schn_ray.cluster.map_shards import RayShards
from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.rows import Shard

pytestmark = pytest.mark.usefixtures("cluster")


def dies(folder: Path, deadly: int, times: int) -> Callable[[Shard], int]:
    """Return a function that ends its worker the first times that it gets a certain shard."""

    def work(shard: Shard) -> int:  # in a function: workers cannot import this module
        (folder / f"{shard.number}-{os.getpid()}").touch()
        if shard.number == deadly and len(list(folder.glob(f"{deadly}-*"))) <= times:
            os._exit(1)
        return shard.number

    return work


@pytest.mark.slow
def test_a_shard_whose_actor_dies_is_done_again(tmp_path: Path) -> None:
    function = dies(tmp_path, deadly=3, times=2)
    results = list(RayShards("working", 2)(function, [Shard(n, 1) for n in range(9)]))
    assert sorted(results) == list(range(9))
    assert len(list(tmp_path.glob("3-*"))) == 3


@pytest.mark.slow
def test_a_shard_that_ends_every_actor_is_named(tmp_path: Path) -> None:
    function = dies(tmp_path, deadly=1, times=100)
    with pytest.raises(SchnRayError, match="shard 1 ended 5 workers, one after the other"):
        list(RayShards("working", 1)(function, [Shard(n, 1) for n in range(3)]))


def test_shards_are_asked_for_when_an_actor_is_free() -> None:
    listed = 0

    def shards() -> Iterator[Shard]:
        nonlocal listed
        for number in range(40):
            listed += 1
            yield Shard(number, 1)

    done = 0
    for _ in RayShards("working", 1)(hash, shards()):
        done += 1
        assert listed <= done + 4  # two at the actor, one that waits, one that was just done
    assert (done, listed) == (40, 40)
