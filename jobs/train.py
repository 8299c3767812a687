r"""``schn-ray train`` as a job: the same arguments, on the cluster that the job runs on.

ray job submit --working-dir . -- python jobs/train.py \
    /mnt/shared/store --out /mnt/shared/run --workers 2:8
"""

from schn_ray.cli import main

main("train")
