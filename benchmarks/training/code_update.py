"""The exact code update against the pair matrix, and its time and memory up to 1e7 rows.

    python -m benchmarks.training.code_update labels.txt [--bits 64] [--rows 1e5 1e6 1e7]

``labels.txt`` has a line a row, 0 or 1 a class (MIRFlickr-25k's for the figures in README.md). The
opponent is what scripts do: the similarity of all pairs of rows as a matrix, in float32 and in
float64, as ours; then the same bit by bit solution. More rows than the file has are its label sets
drawn again. One thread; every size runs in a process of its own, whose peak memory is its own.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.data.labels import LabelSets, label_sets
from schn_ray.methods.deep.schn.code_update import update_codes

WEIGHTS = {"alpha": 2.0, "beta": 0.1, "gamma": 10.0}


def by_pair_matrix(B: Tensor, U: list[Tensor], Y: Tensor, dtype: torch.dtype) -> Tensor:
    """Solve the codes as the definition says, from the similarity of all pairs."""
    bits, n = B.shape[1], len(B)
    U_v, U_s, U_z = (u.to(dtype) for u in U)
    Y = Y.to(dtype)
    S = (Y @ Y.T > 0).to(dtype)
    similar = S.sum(dtype=torch.float64).item()
    S[S == 0] = -similar / (n * n - similar)
    Q = bits * (S.T @ U_v)
    Q += WEIGHTS["gamma"] * U_v + WEIGHTS["alpha"] * U_s + WEIGHTS["beta"] * U_z
    V = U_v.T @ U_v
    V.fill_diagonal_(0)
    after = B.to(dtype)
    for b in range(bits):
        after[:, b] = torch.where(Q[:, b] - after @ V[:, b] < 0, -1.0, 1.0)
    return after.to(B.dtype)


def drawn(rows: int, bits: int) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    B = torch.empty(rows, bits, dtype=torch.int8).random_(0, 2, generator=generator).mul_(2).sub_(1)
    U = [torch.empty(rows, bits).uniform_(-1, 1, generator=generator) for _ in range(3)]
    return B, U


def read_labels(path: Path) -> np.ndarray:
    return np.array([line.split() for line in path.read_text().splitlines()], dtype=np.uint8)


def ours(B: Tensor, U: list[Tensor], found: LabelSets) -> Tensor:
    U_v, U_s, U_z = U
    set_of_row = torch.from_numpy(found.set_of_row)
    alpha, beta, gamma = (WEIGHTS[name] for name in ("alpha", "beta", "gamma"))
    return update_codes(
        B, U_v, U_s, U_z, set_of_row, found.sets, alpha=alpha, beta=beta, gamma=gamma
    )


def seconds(work: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def compare(path: Path, bits: int) -> None:
    torch.set_num_threads(1)
    Y = read_labels(path)
    B, U = drawn(len(Y), bits)
    found = label_sets(csr_array(Y))
    quick = seconds(lambda: ours(B, U, found), 5)
    print(f"{len(Y):,} rows, {bits} bits, {len(found.sizes):,} label sets")
    print(f"  by label sets                {quick:8.3f} s")
    for dtype in (torch.float32, torch.float64):
        slow = seconds(partial(by_pair_matrix, B, U, torch.from_numpy(Y), dtype), 2)
        differ = int((ours(B, U, found) != by_pair_matrix(B, U, torch.from_numpy(Y), dtype)).sum())
        name = str(dtype).removeprefix("torch.")
        print(
            f"  by the pair matrix, {name}  {slow:8.3f} s, {slow / quick:.0f} times as long, "
            f"{differ} of {B.numel():,} bits differ"
        )


def grow(path: Path, bits: int, rows: int) -> None:
    torch.set_num_threads(1)
    known = label_sets(csr_array(read_labels(path)))
    drawn_rows = np.random.default_rng(0).integers(0, len(known.set_of_row), rows)
    found = LabelSets(known.set_of_row[drawn_rows], known.sets)
    B, U = drawn(rows, bits)
    taken = seconds(lambda: ours(B, U, found), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"  {rows:>12,} rows {taken:8.2f} s, {taken / rows * 1e6:6.2f} us a row, "
        f"peak memory of the process {peak:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("labels", type=Path)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--rows", type=float, nargs="*", default=[1e5, 1e6, 1e7])
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    jobs = [partial(compare, asked.labels, asked.bits)]
    jobs += [partial(grow, asked.labels, asked.bits, int(rows)) for rows in asked.rows]
    for job in jobs:
        process = context.Process(target=job)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
