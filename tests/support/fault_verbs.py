"""The verbs that need no Ray, as lines of the table that ``support.faults`` tries.

``make_inputs`` makes a small example of all that they read, by the verbs themselves.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.directories import LOCK
from schn_ray.core.manifest import MANIFEST
from schn_ray.data.check import check_source
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.compare import as_table, compare_runs
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.text import text_for_model
from schn_ray.models import export
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import EmbedConfig, embed_source
from schn_ray.models.load import load
from schn_ray.models.model_files import fingerprint
from schn_ray.report import figure_files, page
from schn_ray.report.check import write_check_page
from schn_ray.report.runs import report_runs
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.config import EncodeConfig, ServeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.search import SearchLimits
from schn_ray.retrieval.server.service import open_service
from schn_ray.training.checkpoints import LAST
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import METRICS
from schn_ray.training.recorder import CHECKPOINTS
from schn_ray.training.run import train_locally
from support.faults import DIED, Verb, at_change, ends
from support.image_files import encode_image, write_tree
from support.users import TINY

SETTINGS = (*TINY, "schedule.iterations=2", "schedule.epochs=1", "schedule.batch_size=8")
SHARDS = SourceConfig(shard_rows=10)
SMALL = BackboneConfig(name="small", base_channels=4)
PARTS = {"store": "rows-", "codes": "data/part-", "features": "rows-"}  # with a receipt each
_NETWORKS: dict[str, bytes] = {}  # fingerprint of a model -> its ONNX
_TIMED = (METRICS, f"{CHECKPOINTS}/")  # hold clock times


def make_inputs(root: Path) -> Path:
    """Make photos, and all that comes of them undisturbed."""
    write_tree(root / "photos", {"cat": 14, "dog": 14})
    for name in ("store", "run", "codes", "features", "index", "evaluation"):
        VERBS[name].work(root, root)
    evaluate_run(root / "run", root / "store", root / "other", EvaluateConfig(radius=1))
    _begin_run(root)
    return root


def change_photos(made: Path, root: Path) -> Path:
    """Copy what was made; then one photo is new, one another, and those of a part are gone."""
    for name in ("photos", "run", "store", "codes", "features"):
        shutil.copytree(made / name, root / name)
    for name in PARTS:  # of the source at its new place
        shutil.rmtree(root / name)
        VERBS[name].work(root, root)
    files = sorted((root / "photos").rglob("*.png"))
    files[0].rename(files[0].with_name("new.png"))
    files[1].write_bytes(encode_image(1_000))
    for file in files[20:]:
        file.unlink()
    return root


def _begin_run(root: Path) -> None:
    """Make ``begun``: a run that was killed before its second iteration's checkpoint."""
    killed = root / "killed"
    killed.mkdir()

    def kill(path: str) -> None:
        if path.endswith(f"{LAST}.partial") and (killed / "run" / METRICS).is_file():
            os._exit(DIED)

    ends(trained, root, killed, at_change(0, kill, later=True))
    shutil.rmtree(killed / "run" / CHECKPOINTS / LOCK, ignore_errors=True)
    (killed / "run").rename(root / "begun")
    killed.rmdir()


def prepared(root: Path, out: Path, update: bool = False) -> None:
    source = open_source(os.path.realpath(root / "photos"), SHARDS)
    config = PrepareConfig(source=SHARDS, validation_share=0.3)
    prepare_store(source, config, out / "store", update=update)


def trained(root: Path, out: Path, name: str = "run", features: str | None = None) -> None:
    config = train_config("digits", None, SETTINGS)
    given = None if features is None else str(root / features)
    train_locally(config, root / "store", out / name, features=given)


def encoded(root: Path, out: Path, source: str = "photos", update: bool = False) -> None:
    opened = open_source(os.path.realpath(root / source), SHARDS)
    encode_source(opened, root / "run", out / "codes", EncodeConfig(source=SHARDS), update=update)


def embedded(root: Path, out: Path, update: bool = False) -> None:
    source = open_source(os.path.realpath(root / "photos"), SHARDS)
    config = EmbedConfig(source=SHARDS, backbone=SMALL)
    embed_source(source, out / "features", config, update=update)


def evaluated(root: Path, out: Path, **settings: Any) -> None:
    config = EvaluateConfig.model_validate({"controls": {"train_rows": 0}} | settings)
    evaluate_run(root / "run", root / "store", out / "evaluation", config)


def searched(root: Path, out: Path) -> None:
    search_gallery([root / "index"], root / "codes", out / "matches", SearchLimits(k=3))


def compared(root: Path, out: Path) -> None:
    (out / "text").write_text(as_table(compare_runs([root / "evaluation", root / "other"])))


def reported(root: Path, out: Path, run: str = "run") -> None:
    page.draw, figure_files.draw_png = _drawn, _drawn  # drawing takes seconds
    figures = out / "figures" if run == "run" else None
    evaluations = [root / "evaluation"] if run == "run" else []
    report_runs([root / run], evaluations, out / "page.html", figures)


def _drawn(*_: object) -> Any:
    return b"drawn"


def exported(root: Path, out: Path) -> None:
    export._onnx = lambda hasher: _NETWORKS[hasher.fingerprint]
    figures = text_for_model(root / "evaluation", fingerprint(root / "run"))
    export.export_onnx(root / "run", out / "model.onnx", str(root / "store"), figures)


def export_before(root: Path) -> None:
    """Export the model for all tries of ``exported``: torch takes seconds for it."""
    hasher = load(root / "run")
    _NETWORKS[hasher.fingerprint] = export._onnx(hasher)


def checked(root: Path, out: Path) -> None:
    report = check_source(open_source(str(root / "store"), SHARDS), SHARDS, samples=True)
    write_check_page(report, out / "page.html")


def served(root: Path, out: Path) -> None:
    service = open_service(root / "index", root / "run", ServeConfig())
    ids = service.index.ids(np.arange(len(service.index)))
    answers = [service.search_id(id, SearchLimits(k=5)) for id in ids]
    answers.append(service.search_image(encode_image(3), SearchLimits(k=5)))
    (out / "text").write_text(json.dumps([answer.model_dump() for answer in answers]))


def run_content(out: Path, name: str = "run") -> object:
    """Return a run's counts and files; of those that have clock times, the names."""
    manifest = open_artefact(out / name, "run").manifest
    return manifest.counts, {
        file: "" if file.startswith(_TIMED) else sha256 for file, sha256 in manifest.files.items()
    }


def rows_content(out: Path, kind: str) -> object:
    """Return counts, and every file's hash; parts have receipts, and nothing else is there."""
    artefact = open_artefact(out / kind, kind)
    artefact.check()
    files = artefact.manifest.files
    parts, receipts = (
        {Path(name).stem for name in files if name.startswith(begins)}
        for begins in (PARTS[kind], "receipts/")
    )
    assert parts == receipts
    present = {p.relative_to(out / kind).as_posix() for p in (out / kind).rglob("*") if p.is_file()}
    assert present == {*files, MANIFEST}
    return artefact.manifest.counts, files


PHOTOS, STORE, RUN = ("photos",), ("store",), ("run",)
VERBS = {
    "store": Verb(prepared),
    "run": Verb(trained, STORE, content=run_content),
    "run with features": Verb(
        partial(trained, features="features"), ("store", "features"), content=run_content
    ),
    "begun run": Verb(
        partial(trained, name="begun"), STORE, ("begun",), partial(run_content, name="begun")
    ),
    "codes": Verb(encoded, RUN, needs=PHOTOS),
    "codes of a store": Verb(partial(encoded, source="store"), ("run", "store")),
    "features": Verb(embedded),
    "index": Verb(lambda root, out: write_index(root / "codes", out / "index"), ("codes",)),
    "evaluation": Verb(evaluated, ("run", "store")),
    "matches": Verb(searched, ("index", "codes")),
    "comparison": Verb(compared, ("evaluation", "other")),
    "report": Verb(reported, ("run", "evaluation", "store")),
    "report of a begun run": Verb(partial(reported, run="begun"), ("begun",)),
    "export": Verb(exported, ("run", "store", "evaluation")),
    "check": Verb(checked, STORE),
    "service": Verb(served, ("index", "run")),
}
UPDATES = {
    "store": Verb(
        partial(prepared, update=True),
        changes=STORE,
        content=partial(rows_content, kind="store"),
        needs=PHOTOS,
    ),
    "codes": Verb(
        partial(encoded, update=True), RUN, ("codes",), partial(rows_content, kind="codes"), PHOTOS
    ),
    "features": Verb(
        partial(embedded, update=True),
        changes=("features",),
        content=partial(rows_content, kind="features"),
        needs=PHOTOS,
    ),
}
