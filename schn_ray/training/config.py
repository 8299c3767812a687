"""Settings of ``train``, and the presets that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import Section, load_settings, merged, read_yaml
from schn_ray.methods.config import ScheduleConfig
from schn_ray.methods.deep.schn.config import CodesConfig, LossConfig
from schn_ray.models.config import NetworkConfig, PrecisionName

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "schn-plus"


class AugmentConfig(Section):
    """Random views of a training image: a crop after padding by ``pad`` pixels, a mirror image."""

    pad: Annotated[int, Field(ge=0)] = 0
    flip: bool = True


class TrainConfig(Section):
    """All settings that decide what ``train`` computes; the number of workers is not among them."""

    bits: Annotated[int, Field(ge=1, le=65_536)] = 32
    seed: Annotated[int, Field(ge=0)] = 0
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    codes: CodesConfig = CodesConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    precision: PrecisionName = "auto"
    compile: bool = False


def train_config(
    preset: str | None = None, file: Path | None = None, settings: tuple[str, ...] = ()
) -> TrainConfig:
    """Build the settings of a training run: preset, YAML file, then ``key=value`` settings.

    Args:
        preset: a name that ``preset_names`` lists; None starts from the defaults.
        file: a YAML file of settings.
        settings: such as ``"schedule.iterations=10"``.

    Returns:
        The frozen config.

    Raises:
        SchnRayError: an unknown preset or key, or a bad value; the message names the nearest one.

    >>> train_config("digits", settings=("bits=16",)).bits
    16
    """
    base = None if preset is None else _preset(preset)
    return load_settings(TrainConfig, file, settings, base)


def preset_names() -> list[str]:
    """List the presets that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        hint = nearest(name, preset_names())
        raise SchnRayError(f"no preset '{name}'{hint} Available: {', '.join(preset_names())}")
    values = read_yaml(PRESETS / f"{name}.yaml")
    base = values.pop("extends", None)
    return merged(_preset(base), values) if base else values
