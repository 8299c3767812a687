r"""``schn-ray build`` as the entry point of a nightly Ray job, with the same arguments.

It reads what is new, changed or gone, encodes only that, updates the index, measures again and
writes the report; the first night makes all of it. ALBUM is a directory that all nodes see.

ray job submit --working-dir . -- python jobs/nightly.py \
    s3://bucket/photos --out /mnt/shared/album --workers 2:16
"""

from schn_ray.cli import main

main("build")
