"""The folder that the paths of a list lie in, and may not lead out of."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from schn_ray.core.storage.files import URI, is_uri


class OutsideRootError(ValueError):
    """A path in a list leads out of the folder that its images have to lie in."""


@dataclass(frozen=True)
class Root:
    """The folder that the paths of a list lie in.

    Args:
        folder: local path or URI.
        strip: cut off the paths where they begin with it.
        fenced: whether what lies outside of the folder is refused.
    """

    folder: str
    strip: str = ""
    fenced: bool = True

    def place(self, path: str) -> str:
        """Return where a path of the list leads.

        Raises:
            OutsideRootError: out of the folder.

        >>> Root("/photos").place("cat/../dog/1.png")
        '/photos/dog/1.png'
        """
        if self.strip and path.startswith(self.strip):
            path = path.removeprefix(self.strip).lstrip("/")
        folder = self.folder.rstrip("/")
        if parts := URI.fullmatch(path):
            place = f"{parts['root']}/{posixpath.normpath(parts['path'])}"
        elif is_uri(folder):
            below = posixpath.normpath(path)
            inside = not below.startswith(("../", "/"))
            place = f"{folder}/{below}" if inside else below
        else:
            place = posixpath.normpath(posixpath.join(folder or "/", path))
        if self.fenced and (not place.startswith(folder + "/") or "/../" in place):
            raise OutsideRootError(
                f"{path} leads out of {self.folder}; if that is right, allow it with --set "
                "source.allow_outside=true"
            )
        return place
