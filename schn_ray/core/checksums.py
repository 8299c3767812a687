"""``SHA256SUMS`` of a folder's files, as ``sha256sum --check`` reads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.errors import SchnRayError

CHECKSUMS = "SHA256SUMS"


def checksum_lines(digests: dict[str, str]) -> str:
    """Return the content of ``SHA256SUMS``.

    Args:
        digests: name -> SHA-256 of each file.

    Example:
        >>> checksum_lines({"a": "00ff"})
        '00ff  a\\n'
    """
    return "".join(f"{sha256}  {name}\n" for name, sha256 in digests.items())


def read_checksums(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 of the files of a folder.

    Args:
        folder: that holds ``SHA256SUMS``.

    Raises:
        OSError: there is none.
    """
    lines = (folder / CHECKSUMS).read_text(errors="replace").splitlines()
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def compared_files(folder: Path, names: Iterable[str], advice: str) -> list[str]:
    """Compare files of a model with ``SHA256SUMS``, and return the SHA-256 of each.

    Args:
        folder: the files and ``SHA256SUMS``.
        names: of the files.
        advice: what to do if they differ.

    Raises:
        SchnRayError: a file differs from its checksum, or there are no checksums.
        OSError: another file is missing.
    """
    if not (folder / CHECKSUMS).is_file():
        raise SchnRayError(
            f"{folder} is not a complete model: it has no {CHECKSUMS}, so nobody can tell whether "
            f"its weights are sound. {advice}"
        )
    expected = read_checksums(folder)
    digests = {name: sha256_file(folder / name) for name in names}
    for name, sha256 in digests.items():
        if expected.get(name) != sha256:
            raise SchnRayError(
                f"{folder / name} differs from {CHECKSUMS} beside it: the model is damaged or was "
                f"edited. {advice}"
            )
    return [*digests.values()]
