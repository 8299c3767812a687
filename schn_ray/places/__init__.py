"""Where things are: a directory of this machine, or a URI that pyarrow or fsspec opens.

``files`` reads, lists and writes single files at either. ``copies`` has finished directories of a
URI on this machine, for reading; ``mirror`` has those that are being written.
"""

from schn_ray.places.copies import local_copy
from schn_ray.places.files import as_location, is_uri, join
from schn_ray.places.mirror import Mirror, followed, written_at

__all__ = ["Mirror", "as_location", "followed", "is_uri", "join", "local_copy", "written_at"]
