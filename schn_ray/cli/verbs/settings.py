"""The verb on settings: each with its type, default, bounds and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from schn_ray.cli.settings_page import NOTES
from schn_ray.cli.verbs.results import SettingsReference

if TYPE_CHECKING:
    from schn_ray.core.described_settings import Setting
    from schn_ray.core.settings import Section

_LEARN = ("train", "tune", "build")  # verbs that take a method


def settings(verb: str | None = None, *, method: str | None = None) -> SettingsReference:
    """Describe the settings of a verb: what ``--set`` takes, a file, or the argument ``settings``.

    Args:
        verb: such as ``"train"``; None: all that have settings.
        method: whose own settings are described with those of ``train``, ``tune`` and ``build``;
            default: ``schn-plus``.

    Returns:
        The settings of each verb: key, default, type, bounds and meaning.

    Raises:
        SchnRayError: a verb that has no settings, or an unknown method.

    Example:
        >>> [setting.key for setting in settings("serve").verbs["serve"]][:2]
        ['host', 'port']
        >>> settings("train", method="itq").keys()[-2:]
        ['precision', 'compile']
    """
    from schn_ray.core.errors import SchnRayError, nearest

    if verb is not None and verb not in NOTES:
        hint = nearest(verb, list(NOTES)) or "."
        raise SchnRayError(f"'{verb}' has no settings{hint} These verbs have: {', '.join(NOTES)}")
    if method is not None and verb not in _LEARN:
        raise SchnRayError(f"--method: only {', '.join(_LEARN)} learn, so name one of them")
    verbs = NOTES if verb is None else [verb]
    return SettingsReference({name: list(_described(name, method)) for name in verbs}, method)


def _described(verb: str, method: str | None) -> Iterator[Setting]:
    from schn_ray.core.described_settings import describe_settings

    for config in _configs(verb, method):
        for setting in describe_settings(config):
            if setting.key != "method.name":  # --method
                yield setting


def _configs(verb: str, method: str | None) -> Sequence[Section | type[Section]]:
    """Return the configs of a verb with its defaults, or their classes where these have none."""
    from schn_ray.data.config import CheckConfig, PrepareConfig
    from schn_ray.evaluation.config import EvaluateConfig
    from schn_ray.retrieval.config import EncodeConfig, ServeConfig

    plain: dict[str, type[Section]] = {
        "check": CheckConfig,
        "prepare": PrepareConfig,
        "encode": EncodeConfig,
        "serve": ServeConfig,
        "evaluate": EvaluateConfig,
    }
    if verb in plain:
        return [plain[verb]()]
    if verb == "benchmark":
        from schn_ray.suites.suite import Suite

        return [Suite]
    if verb == "embed":
        from schn_ray.cli.verbs.training import embed_config

        return [embed_config()]
    from schn_ray.training.config import train_config

    if verb == "build":
        from schn_ray.cli.album.stages import album_config

        return [CheckConfig(), album_config(method)]
    return [train_config(method=method)]
