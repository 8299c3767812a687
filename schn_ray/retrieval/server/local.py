"""The search page in this process; ``cluster.serve`` has it on Ray Serve, for several replicas."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.server.app import application
from schn_ray.retrieval.server.service import open_service


def serve_locally(
    index: Path | str, model: Path | str, config: ServeConfig, labels: Path | str | None = None
) -> None:
    """Serve the search page until the process is interrupted.

    Args:
        index: an index directory, or its URI.
        model: a run, a model directory or an ONNX file, or its URI.
        config: host, port and limits.
        labels: see ``open_service``.

    Raises:
        SchnRayError: index and model do not belong together, or the port is taken.
    """
    with listening(config) as listener:  # before the model is loaded: that takes longer
        app = application(open_service(index, model, config, labels))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        announce(config)
        server.run([listener])


def listening(config: ServeConfig) -> socket.socket:
    """Listen at the address of the search page.

    Args:
        config: host and port.

    Raises:
        SchnRayError: the port is taken, or the host is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise SchnRayError(
            f"cannot serve at {config.host}:{config.port}: {error.strerror or error}. Is the port "
            "taken? Choose another with --port"
        ) from error


def announce(config: ServeConfig) -> None:
    """Print the address of the search page.

    Args:
        config: host and port.
    """
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(f"schn-ray: search page at http://{host}:{config.port}", flush=True)
