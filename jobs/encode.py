r"""``schn-ray encode`` as the entry point of a Ray job, with the same arguments.

ray job submit --working-dir . -- python jobs/encode.py \
    s3://bucket/photos --model /mnt/shared/run --out /mnt/shared/codes --workers 2:16
"""

from schn_ray.cli import main

main("encode")
