"""A bucket on a server that speaks S3, on this machine: moto's, on a free port."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs

from schn_ray.core.storage.cache import CACHE
from support.processes import free_port

S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def served_bucket(name: str, cache: Path) -> Iterator[str]:
    """Serve a bucket whose files are cached in ``cache``; yield its URI."""
    moto = pytest.importorskip("moto.server")
    port = free_port()
    server = moto.ThreadedMotoServer("127.0.0.1", port=port)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in S3.items():
            patch.setenv(variable, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv(CACHE, os.fspath(cache))
        server_options = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http"}
        fs.S3FileSystem(allow_bucket_creation=True, **server_options).create_dir(name)
        yield f"s3://{name}"
    server.stop()
