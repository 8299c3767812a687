"""The training store: a source's good rows as Arrow files, mapped and read at random by row.

A directory, here or at a URI, with ``rows-00000.arrow`` ... (one a shard: id, image, labels,
sha256 of the image as it came, split, uri, camera, scale), ``receipts/`` (what each answers for),
``classes.json``, ``split.parquet`` (role, row, id), ``quarantine.parquet`` (id, uri, stage,
reason) and the manifest. A row's number is its place over all Arrow files in turn.
"""

from schn_ray.store.describing import multi_hot, vocabulary
from schn_ray.store.preparing import MapShards, Numbered, in_this_process, prepare
from schn_ray.store.quarantine import refuse_too_many, write_quarantine
from schn_ray.store.reading import Store, open_store

__all__ = [
    "MapShards",
    "Numbered",
    "Store",
    "in_this_process",
    "multi_hot",
    "open_store",
    "prepare",
    "refuse_too_many",
    "vocabulary",
    "write_quarantine",
]
