r"""``schn-ray prepare`` as the entry point of a Ray job, with the same arguments.

ray job submit --working-dir . -- python jobs/prepare.py \
    s3://bucket/photos --out /mnt/shared/store
"""

from schn_ray.cli import main

main("prepare")
