"""Settings of ``train``: of all methods, and of the one that is chosen; presets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Self

from pydantic import Field, model_validator
from typing_extensions import TypeVar

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import (
    Section,
    merged,
    parse_setting,
    read_yaml,
    validated,
)
from schn_ray.data.distortion import Distortion
from schn_ray.methods.base import MethodConfig
from schn_ray.methods.config import OptimiserConfig, ScheduleConfig
from schn_ray.methods.nested import require_nestable
from schn_ray.methods.registry import DEFAULT_METHOD, METHODS, find_method
from schn_ray.models.config import BackboneConfig, HeadConfig, PrecisionName

PRESETS = Path(__file__).parent / "presets"
_OLD_METHOD_KEYS = {
    "codes.init": "method.initial_codes",
    "codes.update": "method.update_codes",
    "schedule.decay": "method.decay",
}
_OLD_KEYS = _OLD_METHOD_KEYS | {
    "network.backbone": "backbone.name",
    "network.weights": "backbone.weights",
    "network.image_size": "backbone.image_size",
    "network.reduced_decoding": "backbone.reduced_decoding",
    "network.base_channels": "backbone.base_channels",
    "network.freeze_batch_norm": "backbone.freeze_batch_norm",
    "schedule.learning_rate": "optimiser.learning_rate",
    "schedule.weight_decay": "optimiser.weight_decay",
}
# settings that came later, with the defaults that are what all runs did before
_LATER = {
    "nested": (),
    "schedule.warm_up": 0.0,
    "schedule.decay_kind": "steps",
    "method.classifier": 0.0,
}
_OLD_SECTIONS = ("network", "loss", "codes")  # the rest of these became the method's


class AugmentConfig(Distortion):
    """Random views of a training row.

    A plain view of an image is a crop after padding by ``pad`` pixels, mirrored at random if
    ``flip``; that of a vector is the vector. Methods that compare two views of a row ask for
    distorted ones, too: see ``data.distortion`` for images.

    Attributes:
        pad: width of the black border of plain views, in pixels.
        drop: of a vector, the share of numbers that a distorted view sets to 0; the others grow by
            1 / (1 - drop), so that their mean stays.
    """

    pad: Annotated[int, Field(ge=0)] = 0
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.2


M = TypeVar("M", bound=MethodConfig, default=MethodConfig)


class TrainConfig(Section, Generic[M]):
    """All settings that decide what ``train`` computes; the number of workers is not among them.

    Built by ``train_config``, whose ``method`` section is that of the chosen method.

    Attributes:
        bits: K, the length of a code.
        nested: lengths that one training gives, ascending: the first bits of a code are the code of
            each length (``methods.nested``). ``bits`` is the last of them. (): one length.
        seed: of all that training draws; of two runs that differ in it alone, ``compare`` takes the
            mean.
        method: settings of the chosen method.
        backbone: the network that turns an image into features.
        head: the layers that turn features into a code.
        optimiser: how weights descend.
        schedule: when they do.
        augment: random views of a training row.
        precision: ``auto`` is bfloat16 on a GPU, with TF32 for the rest, and float32 on a CPU; the
            others insist.
        compile: let torch compile the image network.
    """

    bits: Annotated[int, Field(ge=1, le=65_536)] = 32
    nested: tuple[int, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    method: M
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    precision: PrecisionName = "auto"
    compile: bool = False

    @model_validator(mode="after")
    def _nestable(self) -> Self:
        if self.nested:
            require_nestable(find_method(self.method.name), self.method.name, self.nested)
            if self.nested[-1] != self.bits:
                raise ValueError(
                    f"bits={self.bits} with nested={list(self.nested)}: expected "
                    f"bits={self.nested[-1]}, the last length"
                )
        return self

    def recorded(self) -> dict[str, Any]:
        """Return all settings as manifests have them.

        Those that came later are left out at their defaults, so that runs that were finished before
        stay finished.
        """
        values = self.model_dump(mode="json")
        for key, default in _LATER.items():
            section, _, name = key.rpartition(".")
            owner = getattr(self, section) if section else self
            field = type(owner).model_fields.get(name)
            if field is not None and getattr(owner, name) == field.default == default:
                del (values[section] if section else values)[name]
        return values


def train_config(
    preset: str | None = None,
    file: Path | None = None,
    settings: tuple[str, ...] = (),
    method: str | None = None,
    base: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Build the settings of a training run.

    Later ones win: defaults, the method's recipe, the preset, ``base``, the file, ``settings``.

    Args:
        preset: a name that ``preset_names`` lists; None: no preset.
        file: a YAML file of settings.
        settings: such as ``"schedule.iterations=10"``.
        method: see ``methods.registry.find_method``; by default that of the file, or ``schn-plus``.
        base: nested values that follow from the store.

    Returns:
        The frozen config.

    Raises:
        SchnRayError: an unknown method, preset or key, or a bad value; the message names the
            nearest one.

    Example:
        >>> train_config("digits", settings=("bits=16",)).bits
        16
    """
    given = merged({}, base or {})
    if file is not None:
        merged(given, read_yaml(file))
    for setting in settings:
        merged(given, parse_setting(setting))
    _refuse_old_keys(given)
    if isinstance(lengths := given.get("nested"), list) and lengths:
        given.setdefault("bits", lengths[-1])
    name = method or _name_in(given) or DEFAULT_METHOD
    values = merged({}, find_method(name).Config.recipe)
    merged(merged(values, _preset(preset, name)), given)
    return config_from(merged(values, {"method": {"name": name}}))


def config_from(values: Mapping[str, Any]) -> TrainConfig:
    """Build a config from nested values, such as a manifest's.

    Args:
        values: all that differs from the defaults; ``method.name`` decides the class.

    Raises:
        SchnRayError: an unknown method or key, or a bad value.
    """
    return validated(config_class(_name_in(values) or DEFAULT_METHOD), dict(values))


def config_class(method: str) -> type[TrainConfig]:
    """Return the class of the settings of a method.

    Args:
        method: see ``methods.registry.find_method``.
    """
    section: Any = find_method(method).Config
    config: type[TrainConfig] = TrainConfig[section]
    return config


def preset_names() -> list[str]:
    """List the presets that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def _preset(name: str | None, method: str) -> dict[str, Any]:
    """Return a preset's settings, with those that it has for this method."""
    if name is None:
        return {}
    if name not in preset_names():
        if name in METHODS:
            raise SchnRayError(f"'{name}' is a method, not a preset any more: --method {name}")
        hint = nearest(name, preset_names()) or "."
        raise SchnRayError(f"no preset '{name}'{hint} Available: {', '.join(preset_names())}")
    values = read_yaml(PRESETS / f"{name}.yaml")
    own = values.pop("methods", {}).get(method, {})
    return merged(values, {"method": own})


def _name_in(values: Mapping[str, Any]) -> str | None:
    section = values.get("method")
    return section.get("name") if isinstance(section, Mapping) else None


def _refuse_old_keys(values: Mapping[str, Any]) -> None:
    for section in (*_OLD_SECTIONS, "schedule"):
        inner = values.get(section)
        for key in inner if isinstance(inner, Mapping) else ():
            old = f"{section}.{key}"
            if section in _OLD_SECTIONS or old in _OLD_KEYS:
                new = _OLD_KEYS.get(old, f"method.{key}")
                raise SchnRayError(f"'{old}' is called '{new}' now")
