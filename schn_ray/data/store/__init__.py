"""The training store: a source's good rows as Arrow files, mapped and read at random by row.

A directory, local or at a URI, with ``rows-00000.arrow`` ... (one per shard: id, image, labels,
sha256 of the image as it came, split, uri, camera, scale; with vectors also those, and where a row
has no image, sha256 is its vector's), ``receipts/`` (which units of the
source each file has), ``classes.json``, ``split.parquet`` (role, row, id), ``quarantine.parquet``
(id, uri, stage, reason) and the manifest. Rows are numbered through all Arrow files in turn.
"""
