"""The same verbs on a Ray cluster: give workers. Paths are on storage that all nodes share.

RAY_ADDRESS=head:6379 python examples/on_a_cluster.py s3://bucket/photos s3://bucket/work
"""

import sys

import schn_ray


def main(photos: str, work: str, settings: list[str]) -> None:
    """Check the nodes, then prepare, train, encode and search on workers."""
    nodes = schn_ray.doctor([work])
    print(nodes)
    if not nodes.healthy:
        raise SystemExit(1)
    store = schn_ray.prepare(photos, f"{work}/store", workers="all")
    # 1 to 8: as many as the cluster has; nodes may come and go
    run = schn_ray.train(store, f"{work}/run", settings=settings, workers="1:8")
    print(schn_ray.evaluate(run, store, f"{work}/evaluation", workers="all").text())
    codes = schn_ray.encode(photos, run, f"{work}/codes", workers="all")
    index = schn_ray.build_index(codes, f"{work}/index")
    print(schn_ray.search(index, queries=codes, out=f"{work}/matches", k=10, workers="all").text())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
