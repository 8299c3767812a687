"""Bad rows: how many are too many."""

import pytest

from schn_ray.core.errors import TooManyBadRows
from schn_ray.data.shards.quarantine import Quarantine, refuse_too_many
from schn_ray.data.shards.rows import BadRow


def bad_rows(count: int) -> list[BadRow]:
    return [BadRow(f"id-{i}", f"photos/{i}.png", "decode", "cut off") for i in range(count)]


def quarantine(count: int) -> Quarantine:
    return Quarantine(count, tuple(bad_rows(count)[:5]))


def test_the_allowed_share_is_allowed() -> None:
    refuse_too_many(quarantine(5), 100, 0.05)
    refuse_too_many(quarantine(0), 0, 0.0)


def test_one_more_is_refused_with_the_first_rows_named() -> None:
    with pytest.raises(TooManyBadRows) as caught:
        refuse_too_many(quarantine(6), 100, 0.05)
    message = str(caught.value)
    assert "6 of 100 rows are bad" in message
    assert "id-4 (photos/4.png): cut off" in message
    assert "and 1 more" in message
