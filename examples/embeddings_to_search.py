"""A file of embeddings, and a search among them: python examples/embeddings_to_search.py FILE OUT.

FILE is a Parquet with a column of vectors, a .npy, or a Hugging Face dataset on disk.
"""

import sys
from pathlib import Path

import schn_ray


def main(file: Path, folder: Path) -> None:
    """Prepare, train, encode and index; print what is nearest to the first row."""
    store = schn_ray.prepare(file, folder / "store")
    run = schn_ray.train(store, folder / "run", method="itq")
    codes = schn_ray.encode(file, run, folder / "codes")
    index = schn_ray.build_index(codes, folder / "index")
    first = schn_ray.open_store(store).ids[0].as_py()
    print(schn_ray.search(index, id=[first], k=5))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
