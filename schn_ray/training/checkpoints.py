"""The files that a run goes on from: the last state and the one before, each with its SHA-256.

checkpoints/last.pt       the state after the last iteration, or where it was stopped within one
checkpoints/previous.pt   the one before: what a run goes on from if the last is damaged
checkpoints/best.pt       the state of the best model so far, which is released at the end
checkpoints/sha256.json   the SHA-256 of the states that were written last, and of the best

torch reads a damaged file without complaint, as it does not check its zip. So a state is loaded
only if its SHA-256 is among those that were written. These are written first, those of the files
that are there included: whenever a process is killed, the files that it leaves are known.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from schn_ray.core.atomic_files import PARTIAL, sha256_file, write_json, writing
from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
DIGESTS = "sha256.json"
_REMEMBERED = 3  # the new state, the last and the previous one
_BESTS = 2  # the new best state, and the one that it takes the name from


class _Digests(NamedTuple):
    """SHA-256 of the states that were written, the latest first, and of those that were best."""

    states: list[str]
    bests: list[str]


def save_checkpoint(state: dict[str, Any], path: Path, best: bool) -> None:
    """Write a state as ``last.pt``, and also as ``best.pt`` if it is the best.

    Args:
        state: tensors and plain values.
        path: the directory; created where it is missing.
        best: whether the state's model is the best so far.

    Raises:
        CannotWrite: the disk is full, say; the states that are there are as they were.
    """
    partial_path = path / f"{LAST}{PARTIAL}"
    with writing(path / LAST):
        path.mkdir(parents=True, exist_ok=True)
        try:
            _write(state, partial_path)
            _rotate(partial_path, path, best)
        except OSError:
            with suppress(OSError):
                partial_path.unlink(missing_ok=True)  # makes room
            raise


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch says nothing of it
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def _rotate(partial_path: Path, path: Path, best: bool) -> None:
    """Make the last state the previous one, and the new one the last."""
    new, last = sha256_file(partial_path), path / LAST
    states, bests = _written(path)
    # a save that was killed left a digest before those of the files, which must not be forgotten
    states = [new, *_with_first(states, last)][:_REMEMBERED]
    if best:
        bests = [new, *_with_first(bests, path / BEST)][:_BESTS]
    write_json(path / DIGESTS, _Digests(states, bests)._asdict())
    _date_after(partial_path, path / DIGESTS)
    if last.is_file():
        _link(last, path / PREVIOUS)
    if best:
        _link(partial_path, path / BEST)
    partial_path.rename(path / LAST)


def _date_after(file: Path, earlier: Path) -> None:
    """Date a file after another: a run at a URI is uploaded in the order of these times."""
    nanoseconds = earlier.stat().st_mtime_ns + 1
    os.utime(file, ns=(nanoseconds, nanoseconds))


def _with_first(digests: list[str], file: Path) -> list[str]:
    """Return digests with that of a file first, if it is among them."""
    if not file.is_file() or (digest := sha256_file(file)) not in digests:
        return digests
    return [digest, *(other for other in digests if other != digest)]


def remove_leftovers(path: Path) -> None:
    """Remove what a killed save left half written; only the process that saves calls this.

    Args:
        path: the directory; it may be missing.
    """
    for partial_path in path.glob("*.partial"):
        partial_path.unlink()


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Load the last state that is sound.

    Args:
        path: the directory.
        device: of the tensors.

    Returns:
        The state; None if there is none yet.

    Raises:
        SchnRayError: there are states, and all of them are damaged.
    """
    sound, damaged = _sorted_out(path)
    if sound is None and not damaged:
        return None
    if sound is None:
        raise SchnRayError(
            f"{path}: no sound state is left, {' and '.join(damaged)} differ from what was "
            "written. Remove the run's directory, and train again"
        )
    state: dict[str, Any] = torch.load(path / sound, map_location=device, weights_only=True)
    return state


def load_best(path: Path) -> dict[str, Any]:
    """Load the state of the best model, onto the CPU.

    Args:
        path: the directory.

    Raises:
        SchnRayError: it is damaged, or missing.
    """
    best = path / BEST
    if not best.is_file() or sha256_file(best) not in _written(path).bests:
        raise SchnRayError(
            f"{best}, the best model, differs from what was written. Remove the run's directory, "
            "and train again"
        )
    state: dict[str, Any] = torch.load(best, map_location="cpu", weights_only=True)
    return state


def damage_note(path: Path) -> str:
    """Say that the last state is damaged, if an earlier one is sound; else return "".

    Args:
        path: the directory.
    """
    sound, damaged = _sorted_out(path)
    if sound is None or not damaged:
        return ""
    return f"{path / damaged[0]} is damaged; going on from {sound}, which is older"


def _sorted_out(path: Path) -> tuple[str | None, list[str]]:
    """Return the first sound file, and the damaged ones before it."""
    damaged: list[str] = []
    digests = _written(path).states
    for name in (LAST, PREVIOUS):
        if (path / name).is_file():
            if sha256_file(path / name) in digests:
                return name, damaged
            damaged.append(name)
    return None, damaged


def _written(path: Path) -> _Digests:
    try:
        digests = parse_json((path / DIGESTS).read_bytes(), str(path / DIGESTS))
    except (OSError, BadDocument):
        return _Digests([], [])
    lists = digests if isinstance(digests, dict) else {}
    states, bests = (lists.get(name, []) for name in _Digests._fields)
    is_sound = isinstance(states, list) and isinstance(bests, list)
    return _Digests(states, bests) if is_sound else _Digests([], [])


def _link(existing: Path, name: Path) -> None:
    """Give a file another name, in place of the file that had it."""
    partial_path = name.with_name(f"{name.name}.partial")
    partial_path.unlink(missing_ok=True)
    partial_path.hardlink_to(existing)
    partial_path.rename(name)
    partial_path.unlink(missing_ok=True)  # a link renamed to another of the same file stays
