"""The verb that shares models: push."""

from __future__ import annotations

from pathlib import Path

from schn_ray.cli.album.parts import part_of
from schn_ray.cli.verbs.arguments import location_of
from schn_ray.cli.verbs.results import PushResult


def push(
    run: Path | str,
    repository: str,
    *,
    onnx: Path | str | None = None,
    revision: str | None = None,
    public: bool = False,
) -> PushResult:
    """Upload a run's model to the Hugging Face hub, from where ``load("hf://user/name")`` reads it.

    Interrupted at any moment, the repository is as it was; the same call goes on.

    Args:
        run: a finished run, its model directory, or an album of ``build``.
        repository: such as ``user/name``; made, for you alone, where it is missing.
        onnx: what ``export`` wrote of the same model: it runs without torch.
        revision: a branch, made where it is missing; default: main.
        public: everybody sees a repository that this call makes.

    Returns:
        The address, the commit and its files.

    Raises:
        SchnRayError: the run is not finished, the export is of another model, ``huggingface_hub``
            is missing (``pip install 'schn-ray[hub]'``), or the hub does not take the files.

    Example:
        >>> push("run", "user/name", onnx="model.onnx")  # doctest: +SKIP
        >>> schn_ray.load("hf://user/name").encode("query.jpg")  # doctest: +SKIP
    """
    from schn_ray.models.push import push_model

    model = part_of(location_of(run), "run")
    return PushResult(push_model(model, repository, onnx, revision, public))
