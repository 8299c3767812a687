"""What ``tune`` does unless it is told: it looks at the store, chooses, and says so first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schn_ray.cli.album.parts import has_part, is_album, part_of
from schn_ray.cli.album.survey import seconds_text, survey
from schn_ray.core.settings import merged
from schn_ray.core.storage.files import as_location, join
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.reader import Store, open_store
from schn_ray.methods.registry import contenders
from schn_ray.models.backbones.backbone import DEFAULT
from schn_ray.models.backbones.efficientnet_lite0 import EFFICIENTNET_LITE0
from schn_ray.models.config import BackboneConfig
from schn_ray.training.rows import settings_of_inputs
from schn_ray.tuning.objectives import OBJECTIVES
from schn_ray.tuning.space import METHOD_SPACE, METHODS_SPACE, Space
from schn_ray.tuning.trial_settings import METHOD_NAME, TrialSettings

SEARCH = "search"
REPEATS = 3  # seeds that compare methods, unless others are named
_FROZEN = "frozen"


@dataclass(frozen=True)
class SearchInputs:
    """Where a search reads and writes.

    Attributes:
        store: path or URI of the store.
        features: of the features of its images; None: there are none.
        out: of the search.
    """

    store: str
    features: str | None
    out: str


@dataclass(frozen=True)
class SearchPlan:
    """What a search does, where nobody said otherwise.

    Attributes:
        space: its name or file.
        methods: that ``methods`` chooses among.
        preset: of ``train``; None: the space's, or none.
        given: nested settings that follow from the store.
    """

    space: str
    methods: tuple[str, ...]
    preset: str | None
    given: dict[str, Any]


def search_inputs(store: str, features: str | None, out: str | None) -> SearchInputs:
    """Return where a search reads and writes: an album has the parts in it.

    Args:
        store: of a store, or of an album.
        features: of the images' features; None: those of the album, if it has any.
        out: of the search; None: beside the store, or in the album.

    Raises:
        SchnRayError: the album has no finished store yet.
    """
    if not is_album(store):
        return SearchInputs(store, features, out or f"{as_location(store)}-{SEARCH}")
    if features is None and has_part(store, "features"):
        features = part_of(store, "features")
    return SearchInputs(part_of(store, "store"), features, out or join(store, SEARCH))


def plan_search(
    inputs: SearchInputs,
    space: str | None,
    method: str | None,
    methods: tuple[str, ...],
    preset: str | None,
    has_config: bool,
) -> SearchPlan:
    """Choose space, methods, preset and backbone where the user did not.

    A search that chooses among methods trains heads on features that stay as they are, so that a
    trial takes seconds. Features that nobody gave are those of the backbone that ``build`` takes.

    Args:
        inputs: where the store and its features are.
        space: as the user named it.
        method: as the user named it; its settings are then searched.
        methods: as the user named them.
        preset: as the user named it.
        has_config: whether the user named a file of settings; nothing is then chosen beside it.

    Raises:
        SchnRayError: no such store.
    """
    given = settings_of_inputs(inputs.store, inputs.features)
    chosen = space or (METHOD_SPACE if method and not methods else METHODS_SPACE)
    store = open_store(inputs.store)
    if chosen == METHODS_SPACE and not methods:
        methods = contenders(store.labels[store.rows("train")])
    if preset or has_config or (space is not None and space != METHODS_SPACE):
        return SearchPlan(chosen, methods, preset, given)
    if inputs.features is None and store.has_images:
        backbone = {"name": EFFICIENTNET_LITE0, "weights": DEFAULT}
        given = merged({"backbone": backbone}, given)
    return SearchPlan(chosen, methods, _FROZEN, given)


def search_text(
    inputs: SearchInputs, space: Space, base: TrialSettings, trials: int, repeats: int
) -> str:
    """Return what a search will do, as lines.

    Args:
        inputs: where it reads and writes.
        space: the search space.
        base: what the trials have in common.
        trials: how many in all.
        repeats: seeds for each step of the confirmation.
    """
    store, config = open_store(inputs.store), base.first
    training, validating = (len(store.rows(role)) for role in ("train", "validation"))
    lines = [
        f"{inputs.store}: {training:,} rows to train on and {validating:,} to compare trials on, "
        f"{len(store.classes):,} classes",
        *_features(inputs, store, config.backbone),
        f"  {trials:,} trials, {_trial(space, base)}",
        f"  the best has the highest {_objectives(space)} ({', '.join(space.objectives)})",
    ]
    if repeats and space.methods:
        lines.append(
            f"  then the best of the three best methods again, with {repeats} other seeds each and "
            f"{repeats} more for the winner; the test queries at the very end"
        )
    elif repeats:
        lines.append(f"  then the winner again, with other seeds ({repeats} a step)")
    return "\n".join([*lines, f"  into {inputs.out}"])


def _trial(space: Space, base: TrialSettings) -> str:
    count = len(space.parameters) - (METHOD_NAME in space.parameters)
    bits = "" if "bits" in space.parameters else f", {base.first.bits} bits"
    if not space.methods:
        return f"each trains {base.first.method.name}{bits}; {count} settings vary"
    return (
        f"each trains one of {', '.join(space.methods)}{bits}, at first {space.each_method} trials "
        f"of each in turn; {count} settings of theirs vary (--methods names others)"
    )


def _objectives(space: Space) -> str:
    return " and ".join(OBJECTIVES[name].title for name in space.objectives)


def _features(inputs: SearchInputs, store: Store, backbone: BackboneConfig) -> list[str]:
    """Say what a trial is trained on, and how long it takes until the first one begins."""
    if inputs.features is not None:
        return [f"  on features of {backbone.name} in {inputs.features}"]
    if not store.has_images:
        return [f"  on its vectors of {store.vector_width:,} numbers"]
    if not backbone.frozen:
        return [f"  on its images, each trial trains {backbone.name} too: without a GPU, hours"]
    rows = len(store.rows("train")) + len(store.rows("validation"))
    source = SourceConfig()
    looked = survey(open_source(inputs.store, source), source, backbone)
    return [
        f"  first {backbone.name} computes features of {rows:,} images, once for all trials: about "
        f"{seconds_text(rows * looked.seconds_each)} of one process"
    ]
