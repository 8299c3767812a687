"""The search page on Ray Serve, for more than one replica."""

from __future__ import annotations

import time
from pathlib import Path

from ray import serve as ray_serve

from schn_ray.cluster.session import ray_session
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import as_location
from schn_ray.models.load import pinned
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.server.app import application
from schn_ray.retrieval.server.local import announce
from schn_ray.retrieval.server.service import open_service

_SLEEP_S = 0.5


def serve_on_ray(
    index: Path | str, model: Path | str, config: ServeConfig, labels: Path | str | None = None
) -> None:
    """Serve the search page until the process is interrupted.

    Args:
        index: an index directory, or its URI.
        model: a run or model directory, or its URI.
        config: host, port and number of replicas.
        labels: a store of the same images, see ``open_service``.

    Raises:
        SchnRayError: index and model do not belong together, or the port is taken.
    """
    index, model = as_location(index), pinned(model)
    labels = None if labels is None else as_location(labels)
    # an error is raised in this process, not by a replica
    open_service(index, model, config, labels)
    with ray_session():
        start(index, model, config, labels)
        announce(config)
        try:
            while True:
                time.sleep(_SLEEP_S)
        finally:
            ray_serve.shutdown()


def start(
    index: Path | str, model: Path | str, config: ServeConfig, labels: Path | str | None = None
) -> None:
    """Start the service in the running Ray session, and return when it answers.

    Args:
        index: an index directory, or its URI.
        model: a run or model directory, or its URI.
        config: host, port and number of replicas.
        labels: a store of the same images, see ``open_service``.

    Raises:
        SchnRayError: the service cannot be started; often the port is taken.
    """

    def build() -> object:
        return application(open_service(index, model, config, labels))

    deployment = ray_serve.deployment(
        num_replicas=config.replicas,
        max_ongoing_requests=256,
        ray_actor_options={"num_cpus": 1},
        name="search",
    )(ray_serve.ingress(build)())
    try:
        ray_serve.start(http_options={"host": config.host, "port": config.port})
        ray_serve.run(deployment.bind(), name="schn-ray", route_prefix="/")
    except RuntimeError as error:
        raise SchnRayError(
            f"cannot serve at {config.host}:{config.port}: {str(error).splitlines()[0]}. Is the "
            "port taken? Choose another with --port"
        ) from error
