r"""``schn-ray tune`` as the entry point of a Ray job, with the same arguments.

ray job submit --working-dir . -- python jobs/tune.py \
    /mnt/shared/store --space loss_weights --trials 100 --out /mnt/shared/search
"""

from schn_ray.cli import main

main("tune")
