r"""``schn-ray evaluate`` as the entry point of a Ray job, with the same arguments.

ray job submit --working-dir . -- python jobs/evaluate.py \
    /mnt/shared/run --store /mnt/shared/store --out /mnt/shared/evaluation
"""

from schn_ray.cli import main

main("evaluate")
