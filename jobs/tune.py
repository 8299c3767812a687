r"""``schn-ray tune`` as a job: the same arguments, on the cluster that the job runs on.

ray job submit --working-dir . -- python jobs/tune.py \
    /mnt/shared/store --space loss_weights --trials 100 --out /mnt/shared/search
"""

from schn_ray.cli import main

main("tune")
