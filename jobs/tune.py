"""Search for settings on a cluster: the verb ``tune``, as the entry point of a Ray job.

    ray job submit --working-dir jobs -- python tune.py STORE --space loss_weights --trials 100 \
        --out SEARCH

STORE and SEARCH lie where every node sees them. The options are those of ``schn-ray tune``; submit
the same job again, and it goes on.
"""

import os
import sys

from schn_ray.cli import main

if __name__ == "__main__":
    os.environ.setdefault("RAY_ADDRESS", "auto")  # the cluster that the job runs on
    sys.argv = ["schn-ray", "tune", *sys.argv[1:]]
    main()
