"""Mapped files whose bytes are checked before they are used, a block at a time.

faiss takes codes with flipped bits as they are, and hashing a whole index would take seconds. So a
directory has, beside its files, a digest of every block of 64 KiB: a block is hashed when it is
first looked at, and never again by the same process. The file of digests itself is checked against
the manifest when the directory is opened.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError

DIGESTS = "digests"
BLOCK = 1 << 16
_DIGEST = 16


class Checked:
    """A file, mapped; ``touch`` what you are about to read.

    Args:
        path: of the file.
        digests: uint8 [blocks, 16], what its blocks must hash to.
        size: bytes that the file must have.

    Raises:
        SchnRayError: the file is missing or of another size.
    """

    def __init__(self, path: Path, digests: NDArray[np.uint8], size: int) -> None:
        self.path, self._digests = path, digests
        try:
            with path.open("rb") as file:
                if (found := path.stat().st_size) != size:
                    raise _damaged(path, f"{found:,} bytes, wanted {size:,}")
                # an empty file cannot be mapped
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except FileNotFoundError as error:
            raise _damaged(path, "it is missing") from error
        self._good = np.zeros(len(digests), np.bool_)

    def array(self, dtype: type[np.generic]) -> NDArray[Any]:
        """Return the whole file as an array; nothing is read or checked yet."""
        return np.frombuffer(self.data, dtype)

    def touch(self, starts: NDArray[np.int64] | int, stops: NDArray[np.int64] | int) -> None:
        """Check the blocks of the bytes [starts, stops), of one range or of many.

        Raises:
            SchnRayError: a block is not what was written.
        """
        if self._good.all():
            return
        first = np.atleast_1d(np.asarray(starts, np.int64)) // BLOCK
        last = (np.atleast_1d(np.asarray(stops, np.int64)) - 1) // BLOCK
        some = last >= first  # not an empty range
        ends = np.concatenate([first[some], last[some]])
        self._check(np.unique(ends[~self._good[ends]]))
        # most ranges lie in one block or two; only long ones are walked through
        for low, high in zip(first[last > first + 1], last[last > first + 1], strict=True):
            self._check(np.arange(low + 1, high))

    def touch_all(self) -> None:
        """Check every block."""
        self._check(np.arange(len(self._good)))

    def _check(self, blocks: NDArray[np.int64]) -> None:
        for block in blocks[~self._good[blocks]].tolist():
            content = memoryview(self.data)[block * BLOCK : (block + 1) * BLOCK]
            if _digest(content) != self._digests[block].tobytes():
                raise _damaged(self.path, f"bytes {block * BLOCK:,} and on changed")
            self._good[block] = True


def write_digests(folder: Path) -> None:
    """Write a line with the size of every file in a folder, then their digests, name by name."""
    sizes = {path.name: path.stat().st_size for path in _files(folder)}
    with (folder / DIGESTS).open("wb") as out:
        out.write(json.dumps(sizes).encode() + b"\n")
        for name in sizes:
            with (folder / name).open("rb") as file:
                while block := file.read(BLOCK):
                    out.write(_digest(block))


def open_checked(folder: Path, sha256: str) -> dict[str, Checked]:
    """Map the files of a folder: name -> file.

    Args:
        folder: where ``write_digests`` wrote.
        sha256: of the digests.

    Raises:
        SchnRayError: a file is missing or of another size, or the digests are damaged.
    """
    path = folder / DIGESTS
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _damaged(path, "it differs from its manifest")
    line, _, data = content.partition(b"\n")
    digests, opened, at = np.frombuffer(data, np.uint8).reshape(-1, _DIGEST), {}, 0
    for name, size in json.loads(line).items():
        end = at + -(-size // BLOCK)
        opened[name] = Checked(folder / name, digests[at:end], size)
        at = end
    return opened


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != DIGESTS)


def _digest(block: bytes | memoryview) -> bytes:
    return hashlib.blake2b(block, digest_size=_DIGEST).digest()


def _damaged(path: Path, why: str) -> SchnRayError:
    return SchnRayError(f"{path} is damaged ({why}); make the index again")
