"""Make an album, or bring it up to date: the verbs one after the other, each in its own directory.

No step of it is new: what a kill leaves is what each verb leaves, and the same call goes on. A
second call takes in what changed: the verbs that read photos do it with ``update``, the model stays
as it is, and what follows from them is made again where a fingerprint differs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schn_ray.cli.album.built import BuiltAlbum
from schn_ray.cli.album.parts import REPORT, Part
from schn_ray.cli.album.request import AlbumRequest, write_request
from schn_ray.cli.album.survey import STORED_QUALITY, STORED_SIDE
from schn_ray.cli.verbs.arguments import Workers
from schn_ray.cli.verbs.data import prepare
from schn_ray.cli.verbs.evaluation import evaluate, write_report
from schn_ray.cli.verbs.results import Evaluation, Output
from schn_ray.cli.verbs.retrieval import build_index, encode
from schn_ray.cli.verbs.training import embed, train
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, REQUEST, is_finished, read_manifest
from schn_ray.core.storage.files import as_location
from schn_ray.data.splits.protocols import STABLE
from schn_ray.methods.base import DeepMethod
from schn_ray.methods.registry import DEFAULT_METHOD, find_method
from schn_ray.models.backbones.backbone import DEFAULT
from schn_ray.models.backbones.efficientnet_lite0 import EFFICIENTNET_LITE0
from schn_ray.training.config import TrainConfig, train_config

BITS, BITS_WITHOUT_LABELS = 64, 128  # without labels, more bits are closer to the features
WITHOUT_LABELS = "itq"
_IMAGES_A_CLASS = 5  # training images on average: below, labels say too little to learn from
_BAD_SHARE = 0.5  # photo folders hold much; what cannot be read is counted, and listed in a file
_BACKBONE_RATE = 0.1  # of the head's learning rate: it has learned much already
_MANY_ROWS = 200_000  # from here, codes and figures are worth workers


def say(text: str) -> None:
    """Print a line about the progress of ``build``, where progress lines go.

    Args:
        text: the line.
    """
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class AlbumStages:
    """The steps from photos to a report.

    Attributes:
        path: of the album.
        request: what it is to be.
        workers: of the verbs that read photos; None: this process.
    """

    path: Path
    request: AlbumRequest
    workers: Workers | None

    def run(self) -> BuiltAlbum:
        """Do what is left to do.

        Raises:
            SchnRayError: as the verbs.
        """
        store = self._step("store", "reading and checking the images, drawing a split", self._store)
        write_request(self.path, self.request)  # with the photos' place, if they were moved
        features = None
        if self._is_frozen:
            features = self._step("features", f"features by {self._backbone}", self._features)
        run = self._run(store, features)
        codes = self._step("codes", "codes of all images", lambda: self._codes(run, features))
        self._step("index", "the search index", lambda: self._index(codes, store))
        evaluation = self._evaluation(run, store, features)
        report = self.path / REPORT
        if not report.is_file():
            say(f"  {REPORT}: pictures, figures and curves")
            write_report(run, report, evaluation=[evaluation])
        notes = [output.note for output in (store, codes, evaluation)]
        return BuiltAlbum(str(self.path), store, run, evaluation, all(notes))

    @property
    def _is_frozen(self) -> bool:
        return not (self.request.vectors or self.request.options.fine_tune)

    @property
    def _backbone(self) -> str:
        return "" if self.request.backbone is None else self.request.backbone.name

    def _part(self, name: Part) -> str:
        return str(self.path / name)

    def _step(self, name: Part, what: str, work: Any) -> Output:
        say(f"  {name}: {what}")
        output: Output = work()
        return output

    def _source_settings(self) -> tuple[str, ...]:
        return (
            f"source.max_bad_share={_BAD_SHARE}",
            f"source.shard_rows={self.request.shard_rows}",
            *self.request.options.source_settings,
        )

    def _store(self) -> Output:
        shares = {"query_share": self.request.query_share, "train_share": self.request.train_share}
        lines = [f"{name}={json.dumps(value)}" for name, value in shares.items()]
        return prepare(
            self.request.options.source,
            self._part("store"),
            protocol=STABLE,
            update=is_begun(self.path / "store"),
            settings=[*self._source_settings(), *lines],
            workers=self.workers,
            largest_side=None if self.request.vectors else STORED_SIDE,
            quality=None if self.request.vectors else STORED_QUALITY,
        )

    def _features(self) -> Output:
        assert self.request.backbone is not None
        return embed(
            self.request.options.source,
            self._part("features"),
            backbone=self.request.backbone.name,
            weights=self.request.backbone.weights,
            update=is_begun(self.path / "features"),
            settings=[*self._source_settings(), "dtype=float32"],  # so that a photo finds itself
            workers=self.workers,
        )

    def _run(self, store: Output, features: Output | None) -> Output:
        """Train, once: the codes of an album are comparable as long as its model is the same."""
        path = self.path / "run"
        if is_finished(path):
            return Output(str(path), read_manifest(path, "run"), "trained before")
        if _made_from(path).get("store", store.fingerprint) != store.fingerprint:
            say("  run: the photos changed before the training ended; it starts again")
            shutil.rmtree(path)
        method = self.request.options.method or method_for(store.counts)
        say(f"  run: {method}, {_learned_from(store.counts)}")
        return train(
            str(store),
            path,
            method=method,
            preset=preset_for(method),
            settings=training_lines(self.request, method),
            features=features,
            workers=None if self._is_frozen else self.workers,
        )

    def _codes(self, run: Output, features: Output | None) -> Output:
        source = self.request.options.source if features is None else str(features)
        lines = self._source_settings() if features is None else ()
        path = self.path / "codes"
        before = _made_from(path).get("source")
        if features is not None and before not in (None, as_location(source)):
            shutil.rmtree(path)  # the album was moved; codes of features cost next to nothing
        update = is_begun(path)
        workers = self.workers if features is None or self._is_large(run) else None
        return encode(
            source, run, self._part("codes"), update=update, settings=lines, workers=workers
        )

    def _index(self, codes: Output, store: Output) -> Output:
        path = self.path / "index"
        return build_index(codes, str(path), columns=str(store), update=is_finished(path))

    def _evaluation(self, run: Output, store: Output, features: Output | None) -> Evaluation:
        path = self.path / "evaluation"
        inputs = {"store": store.fingerprint}
        if features is not None:
            inputs["features"] = features.fingerprint
        made_from = _made_from(path)
        if path.exists() and any(made_from.get(name) != sha for name, sha in inputs.items()):
            shutil.rmtree(path)
        if not is_finished(path):
            (self.path / REPORT).unlink(missing_ok=True)  # else a kill would leave the old one
        say("  evaluation: queries of the split against its gallery")
        return evaluate(
            run,
            str(store),
            path,
            features=features,
            workers=self.workers if features is None or self._is_large(store) else None,
        )

    def _is_large(self, output: Output) -> bool:
        return int(output.counts.get("rows", 0)) >= _MANY_ROWS


def preset_for(method: str) -> str | None:
    """Return the preset of a method on features; None: it needs none.

    Args:
        method: see ``find_method``.

    Raises:
        SchnRayError: no such method.
    """
    return "frozen" if issubclass(find_method(method), DeepMethod) else None


def training_lines(request: AlbumRequest, method: str) -> list[str]:
    """Return the settings of ``train``, those that the user named last.

    Args:
        request: of the album.
        method: see ``find_method``.
    """
    options = request.options
    lines = [f"bits={options.bits or _usual_bits(method)}"]
    if options.fine_tune or request.vectors:
        lines.append("backbone.frozen=false")
    if options.fine_tune:
        backbone = options.backbone_config
        lines += [
            f"backbone.name={json.dumps(backbone.name)}",
            f"backbone.weights={json.dumps(backbone.weights)}",
            f"optimiser.backbone_rate={_BACKBONE_RATE}",
        ]
    return [*lines, *options.training_settings]


def album_config(method: str | None = None) -> TrainConfig:
    """Return the settings of ``train`` for photos, where the user names none.

    Args:
        method: see ``find_method``; None: that of labelled photos.

    Raises:
        SchnRayError: no such method.

    Example:
        >>> album_config().bits, album_config("itq").bits
        (64, 128)
    """
    name = method or DEFAULT_METHOD
    backbone = {"name": EFFICIENTNET_LITE0, "weights": DEFAULT, "frozen": True}
    base = {"bits": _usual_bits(name), "backbone": backbone}
    return train_config(preset_for(name), method=name, base=base)


def require_trainable(request: AlbumRequest, labelled: bool) -> None:
    """Check the settings of the training, before any photo is read.

    Args:
        request: of the album.
        labelled: whether rows have labels.

    Raises:
        SchnRayError: an unknown method or setting, or fine-tuning without labels.
    """
    method = _likely_method(request, labelled)
    if request.options.fine_tune and not issubclass(find_method(method), DeepMethod):
        raise SchnRayError(
            f"--fine-tune: {method} trains no backbone. With labels, leave --method out; without, "
            "name one such as --method sdc"
        )
    train_config(preset_for(method), None, tuple(training_lines(request, method)), method)


def _usual_bits(method: str) -> int:
    return BITS_WITHOUT_LABELS if find_method(method).labels == "none" else BITS


def plan_text(request: AlbumRequest, labelled: bool) -> str:
    """Return what ``build`` will do, as a line.

    Args:
        request: of the album.
        labelled: whether the rows that were looked at have labels.
    """
    method, backbone = _likely_method(request, labelled), request.options.backbone_config.name
    learn = f"compute features once with {backbone}, train {method} on them"
    if request.vectors:
        learn = f"train {method} on the embeddings"
    elif request.options.fine_tune:
        learn = f"train {backbone} with {method}"
    return f"  it will check all of them and draw a split, {learn}, encode, index, measure, report"


def _likely_method(request: AlbumRequest, labelled: bool) -> str:
    return request.options.method or (DEFAULT_METHOD if labelled else WITHOUT_LABELS)


def is_begun(path: Path) -> bool:
    """Tell whether a verb has written a directory, to its end or not.

    Args:
        path: the directory.
    """
    return (path / MANIFEST).is_file() or (path / REQUEST).is_file()


def method_for(counts: Mapping[str, Any]) -> str:
    """Choose a method by what a store has.

    Args:
        counts: of the store: ``classes`` and ``train``.

    Returns:
        The default method where labels can be learned from; else one that needs none.

    Example:
        >>> method_for({"classes": 10, "train": 900}), method_for({"classes": 0, "train": 900})
        ('schn-plus', 'itq')
    """
    classes = counts["classes"]
    enough = classes >= 2 and counts["train"] >= _IMAGES_A_CLASS * classes
    return DEFAULT_METHOD if enough else WITHOUT_LABELS


def _learned_from(counts: Mapping[str, Any]) -> str:
    classes = counts["classes"]
    labels = f"{classes:,} classes" if classes else "no labels"
    return f"learned from {counts['train']:,} of {counts['rows']:,} rows with {labels}"


def _made_from(path: Path) -> dict[str, Any]:
    """Return the inputs of a directory, finished or begun; empty if there is none."""
    for name in (MANIFEST, REQUEST):
        if (path / name).is_file():
            try:
                return dict(json.loads((path / name).read_bytes())["made_from"])
            except (ValueError, KeyError, TypeError) as error:
                raise SchnRayError(f"{path / name} is damaged; remove {path}") from error
    return {}
