"""All methods by name. A method's file is imported when the method is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.methods.base import Method
from schn_ray.methods.shallow.fit import ShallowFit
from schn_ray.methods.shallow.method import as_method

METHODS = {
    "schn-plus": "schn_ray.methods.deep.schn.method:SchnPlus",
    "schn": "schn_ray.methods.deep.schn.method:Schn",
    "schn-mmasia": "schn_ray.methods.deep.schn.method:SchnMmasia",
    "csq": "schn_ray.methods.deep.csq:Csq",
    "dpsh": "schn_ray.methods.deep.dpsh:Dpsh",
    "orthohash": "schn_ray.methods.deep.orthohash:Orthohash",
    "greedyhash": "schn_ray.methods.deep.greedyhash:Greedyhash",
    "dpn": "schn_ray.methods.deep.dpn:Dpn",
    "dch": "schn_ray.methods.deep.dch:Dch",
    "hashnet": "schn_ray.methods.deep.hashnet:Hashnet",
    "dhn": "schn_ray.methods.deep.dhn:Dhn",
    "dlbhc": "schn_ray.methods.deep.dlbhc:Dlbhc",
    "dsdh": "schn_ray.methods.deep.dsdh:Dsdh",
    "adsh": "schn_ray.methods.deep.adsh:Adsh",
    "mdsh": "schn_ray.methods.deep.mdsh:Mdsh",
    "hyp2": "schn_ray.methods.deep.hyp2:Hyp2",
    "dnnh": "schn_ray.methods.deep.dnnh:Dnnh",
    "cnnh": "schn_ray.methods.deep.cnnh:Cnnh",
    "dcrh": "schn_ray.methods.deep.dcrh:Dcrh",
    "tsdh": "schn_ray.methods.deep.tsdh:Tsdh",
    "dcdh": "schn_ray.methods.deep.dcdh:Dcdh",
    "subic": "schn_ray.methods.deep.subic:Subic",
    "tssdh": "schn_ray.methods.deep.tssdh:Tssdh",
    "dsh-gan": "schn_ray.methods.deep.dsh_gan:DshGan",
    "drlih": "schn_ray.methods.deep.drlih:Drlih",
    "bottleneck": "schn_ray.methods.deep.bottleneck:Bottleneck",
    "crh": "schn_ray.methods.deep.crh:Crh",
    "dhd": "schn_ray.methods.deep.dhd:Dhd",
    "dpq": "schn_ray.methods.deep.dpq:Dpq",
    "cibhash": "schn_ray.methods.deep.cibhash:Cibhash",
    "crovca": "schn_ray.methods.deep.crovca:Crovca",
    "crovca-labelled": "schn_ray.methods.deep.crovca:CrovcaLabelled",
    "sdc": "schn_ray.methods.deep.sdc:Sdc",
    "greedyhash-unlabelled": "schn_ray.methods.deep.greedyhash_unlabelled:GreedyhashUnlabelled",
    "lsh": "schn_ray.methods.shallow.lsh:Lsh",
    "pca-rotation": "schn_ray.methods.shallow.pca_rotation:PcaRotation",
    "rabitq": "schn_ray.methods.shallow.rabitq:Rabitq",
    "itq": "schn_ray.methods.shallow.itq:Itq",
    "itq-cca": "schn_ray.methods.shallow.itq:ItqCca",
    "sh": "schn_ray.methods.shallow.sh:Sh",
    "sgh": "schn_ray.methods.shallow.sgh:Sgh",
    "agh": "schn_ray.methods.shallow.agh:Agh",
    "ocb": "schn_ray.methods.shallow.ocb:Ocb",
    "ksh": "schn_ray.methods.shallow.ksh:Ksh",
    "lfh": "schn_ray.methods.shallow.lfh:Lfh",
    "sdh": "schn_ray.methods.shallow.sdh:Sdh",
    "fsdh": "schn_ray.methods.shallow.sdh:Fsdh",
    "cosdish": "schn_ray.methods.shallow.cosdish:Cosdish",
    "ssah": "schn_ray.methods.shallow.ssah:Ssah",
    "isch": "schn_ray.methods.shallow.isch:Isch",
}
DEFAULT_METHOD = "schn-plus"
# what a search over methods tries unless it is told: of different ideas, each among the best of its
# kind on features that stay as they are (benchmarks/README.md), the one to beat first
CONTENDERS = (DEFAULT_METHOD, "hashnet", "dpsh", "csq", "greedyhash", "cosdish")
CONTENDERS_WITHOUT_LABELS = ("itq", "agh", "sgh", "greedyhash-unlabelled")


def find_method(name: str) -> type[Method[Any]]:
    """Return the class of a method.

    Args:
        name: of ``METHODS``; or a class of your own: ``./mine.py:Mine``, ``package.module:Mine``.

    Raises:
        SchnRayError: no such method, or no subclass of ``Method``.

    Example:
        >>> find_method("csq").__name__
        'Csq'
    """
    if name not in METHODS and ":" not in name:
        hint = nearest(name, list(METHODS)) or "."
        raise SchnRayError(
            f"no method '{name}'{hint} Available: {', '.join(METHODS)}; or a class of your own, as "
            "./mine.py:Mine"
        )
    where, _, class_name = METHODS.get(name, name).rpartition(":")
    method = getattr(_module(where, name), class_name, None)
    if isinstance(method, type) and issubclass(method, ShallowFit):
        return as_method(method)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise SchnRayError(
            f"method {name}: {where} has no subclass of Method or ShallowFit named {class_name}"
        )
    return method


def contenders(labels: csr_array) -> tuple[str, ...]:
    """Return the methods that a search tries unless it is told, for training rows like these.

    Args:
        labels: [n, C] of the training rows; without any, methods that need none.

    Example:
        >>> contenders(csr_array((3, 2)))[0]
        'itq'
    """
    of_row = np.diff(labels.indptr)
    names = CONTENDERS if of_row.any() else CONTENDERS_WITHOUT_LABELS
    multi_label = len(of_row) > 0 and of_row.max() > 1
    return tuple(n for n in names if not (multi_label and find_method(n).labels == "single"))


def with_absolute_path(name: str) -> str:
    """Return a method's name that means the same in another working directory.

    Args:
        name: as ``find_method`` takes it.
    """
    where, colon, class_name = name.rpartition(":")
    return f"{Path(where).resolve()}{colon}{class_name}" if where.endswith(".py") else name


def _module(where: str, name: str) -> ModuleType:
    try:
        return _own_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except SchnRayError:
        raise
    except Exception as error:  # a user's own file may raise anything
        raise SchnRayError(f"method {name}: {where} cannot be imported: {error}") from error


def _own_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SchnRayError(f"no file {path} for a method of your own")
    module_name = f"own_method_{path.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path.resolve()):
        return loaded
    spec = importlib.util.spec_from_file_location(module_name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
