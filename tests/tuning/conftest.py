"""Studies of these tests do not wait for the disk at every commit."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine


def _do_not_wait(connection: Any, _: Any) -> None:
    # SQLite then survives a killed process, not a power cut; no test cuts the power
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(autouse=True)
def sqlite_does_not_wait_for_the_disk() -> Iterator[None]:
    event.listen(Engine, "connect", _do_not_wait)
    yield
    event.remove(Engine, "connect", _do_not_wait)
