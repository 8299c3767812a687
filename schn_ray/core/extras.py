"""Libraries that come with an extra of this package; who lacks one is told which extra it is.

``pip install schn-ray`` is enough to search, and to encode with an exported model. Training needs
torch, workers need Ray, and so on.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from schn_ray.core.errors import SchnRayError

EXTRA_OF = {
    "torch": "train",
    "torchvision": "train",
    "safetensors": "train",
    "matplotlib": "report",
    "sklearn": "report",
    "ray": "ray",
    "optuna": "ray",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "transformers": "hf",
    "open_clip": "open-clip",
    "huggingface_hub": "hub",
}
_P = ParamSpec("_P")
_T = TypeVar("_T")


class MissingExtra(SchnRayError):
    """A library is not installed; the message says which extra brings it."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """Return what to tell the user of a module that is not installed.

    Args:
        error: of an import.

    Returns:
        The error that names the extra; None for a module that none brings.

    Example:
        >>> print(missing_extra(ModuleNotFoundError(name="torch.nn")))
        this needs torch, which is not installed: pip install 'schn-ray[train]'
        >>> missing_extra(ModuleNotFoundError(name="mine"))
    """
    library = (error.name or "").partition(".")[0]
    if (extra := EXTRA_OF.get(library)) is None:
        return None
    return MissingExtra(
        f"this needs {library}, which is not installed: pip install 'schn-ray[{extra}]'"
    )


def require_extra(what: str, extra: str, *libraries: str) -> None:
    """Check that the libraries of an extra are installed, before any work.

    Args:
        what: the work, such as "building an album".
        extra: that brings the libraries.
        libraries: by their modules.

    Raises:
        MissingExtra: one of them is not installed.
    """
    if missing := [name for name in libraries if importlib.util.find_spec(name) is None]:
        raise MissingExtra(
            f"{what} needs {missing[0]}, which is not installed: pip install 'schn-ray[{extra}]'"
        )


def naming_extras(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a function that raises ``MissingExtra`` for a library that is not installed.

    Args:
        function: imports what it needs when it is called.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            if (missing := missing_extra(error)) is None:
                raise
            raise missing from error

    return call
