"""The training store: a source's good rows as Arrow files, mapped and read at random by row.

A directory, here or at a URI, with ``rows-00000.arrow`` ... (one a shard: id, image, labels,
sha256 of the image as it came, split, uri, camera, scale), ``receipts/`` (what each answers for),
``classes.json``, ``split.parquet`` (role, row, id), ``quarantine.parquet`` (id, uri, stage,
reason) and the manifest. A row's number is its place over all Arrow files in turn.
"""
