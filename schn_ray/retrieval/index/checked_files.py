"""Mapped files whose blocks are hashed and compared before their first use.

faiss cannot tell that bits of a code have flipped, and would answer wrongly. Hashing a whole index
on opening would take seconds. So ``digests`` holds 16 bytes of the SHA-256 of each block of 64 KiB:

- ``open_checked`` compares the file of digests with its SHA-256 in the manifest, and all sizes.
- ``CheckedFile.check`` hashes the blocks of the bytes that are about to be read, and compares them;
  ``CheckedFile._check_blocks`` is the comparison. A process hashes each block once.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.artefacts import THREADS
from schn_ray.core.atomic_files import FileWriter
from schn_ray.core.errors import SchnRayError

DIGESTS = "digests"
BLOCK = 1 << 16
_DIGEST = 16  # bytes
_WORTH_THREADS = 32  # blocks: 2 MiB


class CheckedFile:
    """A mapped file; call ``check`` for the bytes that you are about to read.

    Args:
        path: of the file.
        digests: uint8 [blocks, 16], the expected hashes of its blocks.
        size: the expected size in bytes.

    Raises:
        SchnRayError: the file is missing or of another size.
    """

    def __init__(self, path: Path, digests: NDArray[np.uint8], size: int) -> None:
        self.path, self._digests = path, digests
        try:
            with path.open("rb") as file:
                if (actual := path.stat().st_size) != size:
                    raise _damaged(path, f"{actual:,} bytes, expected {size:,}")
                # an empty file cannot be mapped
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except FileNotFoundError as error:
            raise _damaged(path, "it is missing") from error
        self._good = np.zeros(len(digests), np.bool_)

    def array(self, dtype: type[np.generic]) -> NDArray[Any]:
        """Return the whole file as an array; nothing is read or checked yet."""
        return np.frombuffer(self.data, dtype)

    def check(self, starts: NDArray[np.int64] | int, stops: NDArray[np.int64] | int) -> None:
        """Hash the blocks of one byte range or of many, those that were not hashed yet.

        Args:
            starts: first byte of each range.
            stops: the byte behind the last of each range.

        Raises:
            SchnRayError: a block differs from what was written.
        """
        if self._good.all():
            return
        first = np.atleast_1d(np.asarray(starts, np.int64)) // BLOCK
        last = (np.atleast_1d(np.asarray(stops, np.int64)) - 1) // BLOCK
        filled = last >= first  # not an empty range
        ends = np.concatenate([first[filled], last[filled]])
        self._check_blocks(np.unique(ends[~self._good[ends]]))
        # most ranges lie in one or two blocks; only longer ones have blocks between
        for low, high in zip(first[last > first + 1], last[last > first + 1], strict=True):
            self._check_blocks(np.arange(low + 1, high))

    def check_all(self) -> None:
        """Hash every block that was not hashed yet; as ``check``."""
        self._check_blocks(np.arange(len(self._good)))

    def _check_blocks(self, blocks: NDArray[np.int64]) -> None:
        new = blocks[~self._good[blocks]]
        if len(new) < _WORTH_THREADS:
            self._hash(new)
        else:
            with ThreadPoolExecutor(THREADS) as pool:  # hashing lets other threads run
                for _ in pool.map(self._hash, np.array_split(new, THREADS)):
                    pass

    def _hash(self, blocks: NDArray[np.int64]) -> None:
        for block in blocks.tolist():
            content = memoryview(self.data)[block * BLOCK : (block + 1) * BLOCK]
            if _digest(content) != self._digests[block].tobytes():
                raise _damaged(
                    self.path,
                    f"bytes {block * BLOCK:,} and on differ from their hash",
                )
            self._good[block] = True


def write_digests(folder: Path) -> None:
    """Write the file ``digests``: a JSON line of name -> size, then the hashes, file by file.

    Args:
        folder: whose files are hashed; the digests are written there, too.
    """
    sizes = {path.name: path.stat().st_size for path in _files(folder)}
    with FileWriter(folder / DIGESTS) as out:
        out.write(json.dumps(sizes).encode() + b"\n")
        for name in sizes:
            with (folder / name).open("rb") as file:
                while block := file.read(BLOCK):
                    out.write(_digest(block))


def open_checked(folder: Path, sha256: str) -> dict[str, CheckedFile]:
    """Map the files of a folder: name -> file.

    Args:
        folder: the folder that ``write_digests`` was given.
        sha256: of the file ``digests``, from the manifest.

    Raises:
        SchnRayError: a file is missing or has another size, or the digests are damaged.
    """
    path = folder / DIGESTS
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _damaged(path, "it differs from its manifest")
    line, _, data = content.partition(b"\n")
    digests, opened, start = np.frombuffer(data, np.uint8).reshape(-1, _DIGEST), {}, 0
    for name, size in json.loads(line).items():
        end = start + -(-size // BLOCK)
        opened[name] = CheckedFile(folder / name, digests[start:end], size)
        start = end
    return opened


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != DIGESTS)


def _digest(block: bytes | memoryview) -> bytes:
    return hashlib.sha256(block).digest()[:_DIGEST]


def _damaged(path: Path, why: str) -> SchnRayError:
    return SchnRayError(f"{path} is damaged ({why}); make the index again")
