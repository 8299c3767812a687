"""The web application on a free port of this machine, without Ray."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.retrieval.config import EncodeConfig, ServeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.column_file import ColumnFile
from schn_ray.retrieval.server.app import application
from schn_ray.retrieval.server.service import open_service
from support.image_files import write_tree
from support.models import write_model
from support.processes import wait_for


def write_gallery(folder: Path) -> Path:
    """Write photos, a model, their codes, and an index with columns and vectors."""
    photos = write_tree(folder / "photos", {"cat": 20, "dog & co": 20})
    write_model(folder / "model")
    source = open_source(str(photos), SourceConfig())
    config = EncodeConfig(relaxed=True, features=True)
    encode_source(source, folder / "model", folder / "codes", config)
    (folder / "columns.csv").write_text("id,label,number\n" + "".join(_lines()))
    columns = ColumnFile(folder / "columns.csv")
    write_index(folder / "codes", folder / "index", columns, ["relaxed", "features"])
    return folder


def _lines() -> list[str]:
    classes = ("cat", "dog & co")
    return [f"{c}/{i:03}.png,{c.split()[0]},{i}\n" for i in range(20) for c in classes]


@contextmanager
def served(gallery: Path, config: ServeConfig) -> Iterator[int]:
    """Serve a gallery; the block gets the port."""
    app = application(open_service(gallery / "index", gallery / "model", config))
    with socket.create_server((config.host, 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started, 30)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
