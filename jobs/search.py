r"""``schn-ray search`` as the entry point of a Ray job, with the same arguments.

ray job submit --working-dir . -- python jobs/search.py \
    /mnt/shared/index --queries /mnt/shared/codes --out /mnt/shared/matches
"""

from schn_ray.cli import main

main("search")
