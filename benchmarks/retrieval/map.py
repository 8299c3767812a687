r"""The map of many codes: CPU seconds, peak memory, sizes of its files, and how true it is.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.map [--rows 1e5 1e6] [--bits 64] [--codes c5] \
        [--out DIR] [--open]

c5: 100 centres, 5 % of bits flipped. Each size runs in a process of its own. True: of 2,000 codes
drawn of the map, scikit-learn's trustworthiness of their 15 neighbours, beside that of random
places. --open looks at the page in headless Chromium: seconds until it is drawn, and milliseconds a
frame, whole and zoomed in by 30.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
from sklearn.manifold import trustworthiness

from benchmarks.support.drawn import draw, write_codes
from schn_ray.report.map import write_map

_SAMPLE, _NEAREST = 2000, 15
_FRAMES = """() => {
    const times = [];
    for (let i = 0; i < 7; i++) {
        const start = performance.now();
        draw();
        times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[3];
}"""


def trust(codes: np.ndarray, table: Path) -> str:
    columns = pq.read_table(table, columns=["x", "y"])
    places = np.stack([columns["x"].to_numpy(), columns["y"].to_numpy()], axis=1)
    _, first = np.unique(codes, axis=0, return_index=True)
    rng = np.random.default_rng(0)
    rows = rng.choice(first, min(_SAMPLE, len(first)), replace=False)
    bits = np.unpackbits(codes[rows], axis=1)
    true, drawn = (
        trustworthiness(bits, xy, n_neighbors=_NEAREST, metric="hamming")
        for xy in (places[rows], rng.random((len(rows), 2)))
    )
    return f"trustworthiness {true:.3f}, random places {drawn:.3f}"


def measure(asked: argparse.Namespace, rows: int, folder: Path) -> None:
    faiss.omp_set_num_threads(1)
    flips = None if asked.codes == "random" else float(asked.codes.removeprefix("c")) / 100
    codes = draw(rows, asked.bits, flips, 0)
    path = folder / f"codes-{rows}"
    if not path.exists():
        write_codes(path, codes)
    page = folder / f"map-{rows}.html"
    used = time.process_time()
    counts = write_map(path, page, None, 2, rows, 0, 0)
    used = time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table = page.with_suffix(".parquet")
    sizes = " and ".join(f"{file.stat().st_size / 1e6:.1f} MB" for file in (page, table))
    print(f"{asked.codes}, {counts}: {used:.0f} s, {peak:.2f} GiB; page and table {sizes}")
    print(f"  {trust(codes, table)}", flush=True)
    if asked.open:
        look(page)


def look(page: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.monotonic()
        opened.goto(page.absolute().as_uri())
        opened.wait_for_selector("body[data-ready]", timeout=120_000)
        seconds = time.monotonic() - started
        whole = opened.evaluate(_FRAMES)
        opened.evaluate("() => zoomAt(view.width / 2, view.height / 2, 30)")
        zoomed = opened.evaluate(_FRAMES)
        opened.evaluate("() => showAll()")
        opened.screenshot(path=page.with_suffix(".png"))
        print(f"  drawn after {seconds:.1f} s; a frame {whole:.0f} ms, zoomed in {zoomed:.0f} ms")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=lambda text: int(float(text)), nargs="+", default=[100_000])
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--codes", default="c5")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--open", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.out or Path(scratch)
        for rows in asked.rows:
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(asked, rows, folder)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{rows:,} rows failed")


if __name__ == "__main__":
    main()
