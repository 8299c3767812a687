r"""``schn-ray prepare`` as a job: the same arguments, on the cluster that the job runs on.

ray job submit --working-dir . -- python jobs/prepare.py \
    s3://bucket/photos --out /mnt/shared/store
"""

from schn_ray.cli import main

main("prepare")
