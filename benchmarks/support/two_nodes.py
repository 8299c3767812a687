"""``schn-ray encode`` on a test cluster of this machine: a head without a CPU and two nodes."""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster

from schn_ray import cli

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    sys.argv = ["schn-ray", "encode", *sys.argv[1:]]
    cli.main()
