r"""``schn-ray encode`` as a job: the same arguments, on the cluster that the job runs on.

ray job submit --working-dir . -- python jobs/encode.py \
    s3://bucket/photos --model /mnt/shared/run --out /mnt/shared/codes --workers 2:16
"""

from schn_ray.cli import main

main("encode")
