r"""``schn-ray search`` as a job: the same arguments, on the cluster that the job runs on.

ray job submit --working-dir . -- python jobs/search.py \
    /mnt/shared/index --queries /mnt/shared/codes --out /mnt/shared/found
"""

from schn_ray.cli import main

main("search")
