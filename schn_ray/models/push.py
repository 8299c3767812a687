"""Upload a run's model to a repository of the Hugging Face hub, from where ``hf://`` loads it.

All files arrive in one commit or not at all. So an upload that was killed changes nothing, and the
next one sends only what the hub lacks. Of two at once, the second is refused: it would leave files
of both models.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from schn_ray.core.checksums import CHECKSUMS, checksum_lines, read_checksums
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import read_file
from schn_ray.models.hub import (
    ONNX_DESCRIBED,
    ONNX_FILE,
    SCHEME,
    HubAddress,
    hub_address,
    hub_errors,
)
from schn_ray.models.model_files import CARD, SPEC, WEIGHTS, fingerprint, model_directory, read_card
from schn_ray.models.onnx_hasher import DESCRIBED, ONNX, load_onnx, onnx_file

_METADATA = """---
library_name: schn-ray
tags:
- image-hashing
- image-similarity
- image-retrieval
---

"""
_USE_HEADING = "\n## Use\n"
_USE = """
```python
import schn_ray

hasher = schn_ray.load("{address}")
codes = hasher.encode(["query.jpg"])
```
"""
_MESSAGE = "Push a model of schn-ray"


@dataclass(frozen=True)
class Pushed:
    """A model that is in a repository.

    Attributes:
        address: that ``load`` takes.
        commit: that has the files.
        url: of the commit.
        files: name -> bytes of each.
        removed: of an earlier push: the export of another model.
        private: whether only its owner sees the repository.
        unchanged: whether it had the same files before.
    """

    address: HubAddress
    commit: str
    url: str
    files: dict[str, int]
    removed: tuple[str, ...]
    private: bool
    unchanged: bool


def push_model(
    run: Path | str,
    repository: str,
    onnx: Path | str | None = None,
    revision: str | None = None,
    public: bool = False,
) -> Pushed:
    """Upload a model, and what was exported of it; the repository is made where it is missing.

    Args:
        run: a finished run or a model directory, or its URI.
        repository: such as ``user/name`` or ``hf://user/name``.
        onnx: what ``export`` wrote of the same model; its card is uploaded in place of the run's.
        revision: the branch; made where it is missing. None: the main branch.
        public: whether a new repository is seen by everybody.

    Returns:
        What the repository has.

    Raises:
        SchnRayError: the run is not finished or is damaged, the export is of another model, or the
            hub does not take the files.
    """
    address = _target(repository, revision)
    files = _files(run, onnx, address)
    with hub_errors(str(address)):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi(library_name="schn-ray")
        api.create_repo(address.repository, private=not public, exist_ok=True)
        if revision is not None:
            api.create_branch(address.repository, branch=revision, exist_ok=True)
        before = api.model_info(address.repository, revision=revision)
        names = {file.rfilename for file in before.siblings or ()}
        _require_own(address, names)
        stale = sorted(names & {ONNX_FILE, ONNX_DESCRIBED} - files.keys())
        commit = api.create_commit(
            address.repository,
            [
                *(CommitOperationAdd(name, content) for name, content in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=_MESSAGE,
            revision=revision,
            parent_commit=before.sha,  # what stays of it was looked at
        )
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in files.items()
    }
    return Pushed(
        address=address,
        commit=commit.oid,
        url=commit.commit_url,
        files=sizes,
        removed=tuple(stale),
        private=bool(before.private),
        unchanged=commit.oid == before.sha,
    )


def _require_own(address: HubAddress, names: set[str]) -> None:
    """Refuse to write over what is not a model of ours."""
    if SPEC not in names and (others := sorted(names - {CARD, ".gitattributes"})):
        raise SchnRayError(
            f"{address} holds something else ({others[0]}, and no {SPEC}): push into a repository "
            "of its own"
        )


def _target(repository: str, revision: str | None) -> HubAddress:
    full = repository if repository.startswith(SCHEME) else f"{SCHEME}{repository}"
    address = hub_address(full)
    if address is None or address.revision is not None or address.file is not None:
        raise SchnRayError(
            f"{repository} is not the name of a repository: give user/name, and a branch as "
            "--revision"
        )
    return HubAddress(address.repository, revision)


def _files(
    run: Path | str, onnx: Path | str | None, address: HubAddress
) -> dict[str, bytes | Path]:
    """Return name -> content of what is uploaded, each compared with its SHA-256."""
    path = model_directory(run)
    model = fingerprint(path)
    files: dict[str, bytes | Path] = {name: path / name for name in (WEIGHTS, SPEC)}
    card, digests = read_card(path), {name: read_checksums(path)[name] for name in files}
    if onnx is not None:
        exported, card = _export(onnx, model)
        digests |= {name: hashlib.sha256(data).hexdigest() for name, data in exported.items()}
        files |= exported
    files[CHECKSUMS] = checksum_lines(digests).encode()
    text = card.removeprefix(_METADATA).partition(_USE_HEADING)[0].rstrip()
    files[CARD] = f"{_METADATA}{text}\n{_USE_HEADING}{_USE.format(address=address)}".encode()
    return files


def _export(onnx: Path | str, model: str) -> tuple[dict[str, bytes], str]:
    """Return the files of an export, and its card."""
    file = onnx_file(onnx)
    exported = load_onnx(onnx)
    if file is None or exported.fingerprint != model:
        raise SchnRayError(
            f"{onnx} was exported of another model than the one to push: export this one first"
        )
    stem = file.removesuffix(ONNX)
    files = {ONNX_FILE: read_file(file), ONNX_DESCRIBED: read_file(stem + DESCRIBED)}
    card = read_file(f"{stem}.md").decode(errors="replace")
    return files, card.replace(f"`{Path(file).name}`", f"`{ONNX_FILE}`")
