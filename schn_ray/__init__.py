"""schn-ray: labelled images in, a small hashing model out; binary codes, and search over them.

A folder of photos is enough to begin:

    import schn_ray

    album = schn_ray.build("photos", "album")             # codes, an index, figures and a page
    schn_ray.search(album, ["query.jpg"])

Or step by step, with a folder of images for each class:

    schn_ray.check("photos")                              # counts, bad files, duplicates
    store = schn_ray.prepare("photos", "store")           # images, labels and a split
    run = schn_ray.train(store, "run", preset="digits")   # a model of a few megabytes
    schn_ray.evaluate(run, store)                         # mAP and more, exact under ties
    codes = schn_ray.encode("all-photos", run, "codes")   # 32 bits for each image
    index = schn_ray.build_index(codes, "index")
    schn_ray.search(index, ["query.jpg"], model=run, k=5)

Each of these is also a command: ``schn-ray train store --out run --preset digits``. Parameters have
the names of the options. An output that is finished already is returned as it is; one that was
interrupted is continued. Paths may be URIs, such as ``s3://bucket/store``.

Everything runs in this process unless ``workers`` is given: ``workers=4`` or ``workers="all"`` is
on Ray, on this machine or on the cluster of ``RAY_ADDRESS``. ``tune`` and ``doctor`` always use
Ray. ``pip install 'schn-ray[ray]'`` installs it; training needs ``'schn-ray[train]'``.

In an application:

    hasher = schn_ray.load("run")
    index = schn_ray.open_index("index")
    matches = index.search(hasher.encode(["query.jpg"]), k=5)
    matches.ids(0), matches.distances[0]

A result is shown in a notebook and at the prompt as the command prints it; in a program,
``print(run.text())`` does. Names are imported when they are used, so that importing this package
takes no time.
"""

from typing import TYPE_CHECKING, Any

from schn_ray.core.version import __version__ as __version__

if TYPE_CHECKING:
    from schn_ray.cli.verbs.build import build
    from schn_ray.cli.verbs.cluster import doctor
    from schn_ray.cli.verbs.data import check, prepare
    from schn_ray.cli.verbs.duplicates import duplicates
    from schn_ray.cli.verbs.engines import convert
    from schn_ray.cli.verbs.evaluation import benchmark, compare, evaluate, write_report
    from schn_ray.cli.verbs.hub import push
    from schn_ray.cli.verbs.map import map_codes
    from schn_ray.cli.verbs.retrieval import build_index, change_index, encode, search, serve
    from schn_ray.cli.verbs.settings import settings
    from schn_ray.cli.verbs.training import embed, export, list_methods, train, tune
    from schn_ray.core.errors import SchnRayError
    from schn_ray.data.store.reader import open_store
    from schn_ray.models.load import load
    from schn_ray.retrieval.index.index import open_index, verify_index

__all__ = [
    "SchnRayError",
    "benchmark",
    "build",
    "build_index",
    "change_index",
    "check",
    "compare",
    "convert",
    "doctor",
    "duplicates",
    "embed",
    "encode",
    "evaluate",
    "export",
    "list_methods",
    "load",
    "map_codes",
    "open_index",
    "open_store",
    "prepare",
    "push",
    "search",
    "serve",
    "settings",
    "train",
    "tune",
    "verify_index",
    "write_report",
]

_MODULES = {
    "cli.verbs.build": ("build",),
    "cli.verbs.cluster": ("doctor",),
    "cli.verbs.data": ("check", "prepare"),
    "cli.verbs.engines": ("convert",),
    "cli.verbs.duplicates": ("duplicates",),
    "cli.verbs.evaluation": ("benchmark", "compare", "evaluate", "write_report"),
    "cli.verbs.hub": ("push",),
    "cli.verbs.map": ("map_codes",),
    "cli.verbs.retrieval": ("build_index", "change_index", "encode", "search", "serve"),
    "cli.verbs.settings": ("settings",),
    "cli.verbs.training": ("embed", "export", "list_methods", "train", "tune"),
    "core.errors": ("SchnRayError",),
    "data.store.reader": ("open_store",),
    "models.load": ("load",),
    "retrieval.index.index": ("open_index", "verify_index"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_OTHER_NAMES = {
    "index": "build_index",
    "map": "map_codes",
    "open": "open_index",
    "report": "write_report",
    "train_here": "train",
    "train_locally": "train",
}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        from importlib import import_module
        from inspect import isfunction

        from schn_ray.core.extras import naming_extras

        if name in _MODULE_OF:
            value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
            globals()[name] = naming_extras(value) if isfunction(value) else value
            return globals()[name]
        hint = f": use schn_ray.{_OTHER_NAMES[name]}" if name in _OTHER_NAMES else ""
        raise AttributeError(f"schn_ray has no '{name}'{hint}", name=name)
