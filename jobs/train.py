r"""``schn-ray train`` as the entry point of a Ray job, with the same arguments.

ray job submit --working-dir . -- python jobs/train.py \
    /mnt/shared/store --out /mnt/shared/run --workers 2:8
"""

from schn_ray.cli import main

main("train")
