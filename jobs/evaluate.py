r"""``schn-ray evaluate`` as a job: the same arguments, on the cluster that the job runs on.

ray job submit --working-dir . -- python jobs/evaluate.py \
    /mnt/shared/run --store /mnt/shared/store --out /mnt/shared/evaluation
"""

from schn_ray.cli import main

main("evaluate")
