"""The folder that the paths in a list are relative to; no path may lead out of it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from schn_ray.core.storage.files import URI, is_uri


class OutsideRootError(ValueError):
    """A path in a list leads out of the folder that its images have to be in."""


@dataclass(frozen=True)
class Root:
    """The folder that the paths in a list are relative to.

    Args:
        folder: a local path or a URI.
        strip: a prefix that is cut off the paths that have it.
        fenced: whether paths that lead out of the folder are refused.
    """

    folder: str
    strip: str = ""
    fenced: bool = True

    def resolve(self, path: str) -> str:
        """Return the location of an image.

        Args:
            path: as it is in the list.

        Raises:
            OutsideRootError: it is outside of the folder.

        >>> Root("/photos").resolve("cat/../dog/1.png")
        '/photos/dog/1.png'
        """
        if self.strip and path.startswith(self.strip):
            path = path.removeprefix(self.strip).lstrip("/")
        folder = self.folder.rstrip("/")
        if parts := URI.fullmatch(path):
            location = f"{parts['root']}/{posixpath.normpath(parts['path'])}"
        elif is_uri(folder):
            below = posixpath.normpath(path)
            inside = not below.startswith(("../", "/"))
            location = f"{folder}/{below}" if inside else below
        else:
            location = posixpath.normpath(posixpath.join(folder or "/", path))
        if self.fenced and (not location.startswith(folder + "/") or "/../" in location):
            raise OutsideRootError(
                f"{path} leads out of {self.folder}; if that is right, allow it with --set "
                "source.allow_outside=true"
            )
        return location
