"""What a user may set: one frozen model a verb, read from YAML presets, files and ``key=value``.

A config stops at the door of a verb: the functions below it take plain arguments or one small
section, never the whole.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schn_ray.errors import SchnRayError, nearest

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "schn-plus"

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
PrecisionName = Literal["auto", "float32", "tf32", "bf16"]


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SourceConfig(Section):
    """How to read what a user has; ``auto`` guesses the kind from the path.

    ``root`` is the folder that the paths of a list lie in, by default the list's own;
    ``strip_prefix`` is cut off the paths; those that lead out of it are put aside, unless
    ``allow_outside``. ``class_names`` is a file with a name a line, for labels that are numbers.
    """

    kind: Literal[
        "auto",
        "digits",
        "folder",
        "list",
        "lists",
        "paired",
        "csv",
        "metadata",
        "parquet",
        "arrow",
        "webdataset",
        "cifar10",
        "cifar100",
        "nuswide",
        "mirflickr",
        "coco",
        "voc",
        "market1501",
        "veri776",
        "store",
    ] = "auto"
    class_names: str | None = None
    root: str | None = None
    strip_prefix: str = ""
    allow_outside: bool = False
    path_column: str = "path"
    id_column: str = "id"
    image_column: str = "image"
    label_column: str = "label"
    split_column: str = "split"
    max_bad_share: Share = 0.01
    max_pixels: Count = 100_000_000
    shard_rows: Count = 2048


class CheckConfig(Section):
    """What ``check`` reads."""

    source: SourceConfig = SourceConfig()


class PrepareConfig(Section):
    """What ``prepare`` writes: the rows of a source, and who is query, gallery and training.

    ``split_from`` is a file with the ids of a split that is there already. ``keep_unlabelled`` has
    rows without a label in the gallery. Images with a side above ``largest_side`` are stored
    smaller, as JPEGs of ``quality``. The protocol ``unseen-classes`` holds ``unseen_share`` of the
    classes out.
    """

    source: SourceConfig = SourceConfig()
    protocol: str = "random"
    split_from: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    query_share: Share = 0.1
    train_share: Share = 0.5
    validation_share: Share = 0.1
    unseen_share: Share = 0.25
    keep_unlabelled: bool = False
    largest_side: Count | None = None
    quality: Annotated[int, Field(ge=1, le=95)] = 90


class EncodeConfig(Section):
    """What ``encode`` reads, how many images go through the network at once, what is written.

    ``relaxed`` keeps the network's output before the sign, as float16. ``precision`` is that of
    the network, recorded and not guessed from the machine, since it decides bits.
    """

    source: SourceConfig = SourceConfig()
    batch_size: Count = 64
    relaxed: bool = False
    precision: Literal["float32", "bf16"] = "float32"


def recorded(config: PrepareConfig | EncodeConfig) -> dict[str, Any]:
    """Return the settings that decide what is written; for a manifest."""
    values = config.model_dump(mode="json")
    del values["source"]["max_bad_share"]  # decides when to stop
    return values


class ControlsConfig(Section):
    """The controls of an evaluation; 0 training rows leave them out.

    ``gallery_rows``: at most so many gallery rows, drawn at random, are ranked for the controls and
    for the model beside them, since unquantised features cost a thousand times what codes do.
    """

    train_rows: Annotated[int, Field(ge=0)] = 5_000
    gallery_rows: Count = 20_000
    queries: Count = 2_000
    seed: Annotated[int, Field(ge=0)] = 0


class EvaluateConfig(Section):
    """What ``evaluate`` ranks, and at which ranks it measures.

    ``audit``: whether a split that would spoil the figures is refused, or only reported.
    ``legacy``: tie rules of others, measured beside the exact figures. ``part_rows``: gallery rows
    that are counted at once, on one worker.
    """

    gallery: Literal["encoded", "learned", "both"] = "encoded"
    ks: tuple[Count, ...] = (10, 100, 1000, 5000)
    radius: Annotated[int, Field(ge=0)] = 2
    examples: Annotated[int, Field(ge=0)] = 12
    batch_size: Count = 64
    audit: Literal["refuse", "report"] = "refuse"
    legacy: tuple[Literal["stable", "reversed", "unstable"], ...] = ()
    part_rows: Count = 250_000
    controls: ControlsConfig = ControlsConfig()


class ServeConfig(Section):
    """Where the search page listens, and what a request may be; ``hosts`` are further names."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    hosts: tuple[str, ...] = ()
    max_bytes: Count = 16_000_000
    max_pixels: Count = 50_000_000
    max_results: Count = 200
    replicas: Count = 1


class NetworkConfig(Section):
    """Sizes and variants of the networks; defaults as published."""

    backbone: str = "alexnet"
    weights: str | None = None
    image_size: Count | None = None
    reduced_decoding: bool = True
    base_channels: Count = 16
    freeze_batch_norm: bool = False
    semantic_dim: Count = 512
    latent_dim: Count = 1024
    latent_dropout: Share = 0.5
    latent_activation: Literal["sigmoid", "tanh"] = "sigmoid"
    label_graph: Literal["sum", "mean"] = "sum"
    cycle: Literal["schn", "schn-mmasia"] = "schn"


class LossConfig(Section):
    """Weight of each term; 0 leaves it out. ``negative_target``: what dissimilar pairs aim at."""

    hash_image: Weight = 1.0
    hash_semantic: Weight = 1.0
    hash_latent: Weight = 1.0
    cycle_image: Weight = 1.0
    cycle_semantic: Weight = 1.0
    adversarial: Weight = 1.0
    quantization: Weight = 10.0
    negative_target: Literal["zero", "soft"] = "zero"


class CodesConfig(Section):
    """The discrete codes: how they start, and the pulls of U_s and U_z in their update."""

    init: Literal["zeros", "random", "hadamard"] = "zeros"
    update: bool = True
    alpha: Weight = 2.0
    beta: Weight = 0.1


class ScheduleConfig(Section):
    """An outer iteration is ``epochs`` over ``samples`` drawn rows, then one code update.

    Training ends after ``iterations``, or after ``patience`` validations without a better one.
    """

    iterations: Count = 50
    epochs: Count = 3
    samples: Count = 5000
    batch_size: Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 4e-5
    weight_decay: Weight = 1e-5
    decay_after: tuple[int, ...] = (5, 40)
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    decay: Literal["all", "adversarial"] = "all"
    eval_every: Count = 1
    patience: Count | None = None


class AugmentConfig(Section):
    """Random views of a training image: a crop after padding, and a mirror image."""

    pad: Annotated[int, Field(ge=0)] = 0
    flip: bool = True


class TrainConfig(Section):
    """Everything that decides what ``train`` computes; how many workers share it does not."""

    bits: Annotated[int, Field(ge=1, le=65_536)] = 32
    seed: Annotated[int, Field(ge=0)] = 0
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    codes: CodesConfig = CodesConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    precision: PrecisionName = "auto"
    compile: bool = False


ConfigT = TypeVar("ConfigT", bound=Section)


def load(
    model: type[ConfigT],
    preset: str | None = None,
    file: Path | None = None,
    settings: tuple[str, ...] = (),
) -> ConfigT:
    """Build a config: its defaults, then a preset, then a YAML file, then ``key=value`` settings.

    Args:
        model: the config's class.
        preset: a name in ``presets/``.
        file: a YAML file with the same keys.
        settings: such as ``"loss.adversarial=0"``; values are read as YAML.

    Raises:
        SchnRayError: an unknown preset, key or value, with the nearest known one.
    """
    values: dict[str, Any] = {}
    if preset is not None:
        _merge(values, _preset(preset))
    if file is not None:
        _merge(values, read_yaml(file))
    for setting in settings:
        _merge(values, _parse_setting(setting))
    return validated(model, values)


def validated(model: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Return ``model(**values)``, with pydantic's complaints as one readable error."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SchnRayError("\n".join(_complaint(model, e) for e in error.errors())) from error


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """List the dotted names of all settings.

    >>> keys(TrainConfig)[:3]
    ['bits', 'seed', 'network.backbone']
    """
    found: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += keys(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def parse_workers(text: str) -> tuple[int, int]:
    """Read how many workers are asked for: a number, or at least and at most.

    Raises:
        SchnRayError: neither.

    >>> parse_workers("4"), parse_workers("2:8")
    ((4, 4), (2, 8))
    """
    least, colon, most = text.partition(":")
    if least.isdecimal() and (most.isdecimal() or not colon):
        bounds = int(least), int(most or least)
        if 1 <= bounds[0] <= bounds[1]:
            return bounds
    raise SchnRayError(f"--workers {text}: wanted a number such as 4, or a range such as 2:8")


def preset_names() -> list[str]:
    """List the presets that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        hint = nearest(name, preset_names())
        raise SchnRayError(f"no preset '{name}'{hint} There are: {', '.join(preset_names())}")
    values = read_yaml(PRESETS / f"{name}.yaml")
    base = values.pop("extends", None)
    return _merge(_preset(base), values) if base else values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of ``key: value`` lines; numbers such as ``1e-3`` are numbers.

    Raises:
        SchnRayError: no such file, or not such lines.
    """
    if not path.is_file():
        raise SchnRayError(f"no config file {path}")
    try:
        values = yaml.load(path.read_text(), Loader=_FloatLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SchnRayError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SchnRayError(f"{path}: wanted 'key: value' lines, got a {type(values).__name__}")
    return values


def _parse_setting(setting: str) -> dict[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise SchnRayError(f"--set {setting}: wanted key=value, such as --set bits=48")
    try:
        nested: Any = yaml.load(value, Loader=_FloatLoader)
    except yaml.YAMLError as error:
        raise SchnRayError(f"--set {setting}: the value is not YAML: {error}") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


class _FloatLoader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; people who set a learning rate mean the number."""


_FloatLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _merge(into: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
    return into


def _complaint(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown setting '{key}'{nearest(key, keys(model))}"
    return f"setting '{key}': {error['msg']}, got {error['input']!r}"
