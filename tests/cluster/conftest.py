"""One Ray for the whole test session: starting it takes seconds."""

from collections.abc import Iterator

import pytest
import ray

from schn_ray.cluster.session import ray_session


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session():
            yield
    assert not ray.is_initialized()
