"""Models on the Hugging Face hub: ``hf://user/name``, fetched into the hub's own cache.

A repository has the files of a model directory, see ``model_files``, and where an export was pushed
too, ``model.onnx`` with ``model.json``. ``hf://user/name@revision`` is a branch, a tag or a commit;
``hf://user/name/model.onnx`` is the export. Where torch is not installed, ``hf://user/name`` is the
export, too. The libraries' own variables apply: ``HF_TOKEN``, ``HF_HOME``, ``HF_ENDPOINT``,
``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote

from schn_ray.core.checksums import CHECKSUMS, compared_files
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import as_location

SCHEME = "hf://"
ONNX_FILE, ONNX_DESCRIBED = "model.onnx", "model.json"
_ADDRESS = re.compile(
    r"hf://(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>[^/]+\.onnx))?"
)
_NOT_MODELS = ("datasets/", "spaces/", "buckets/")
_SNAPSHOTS = "snapshots"  # folder of the hub's cache: one folder below it for each commit


class NotAModel(SchnRayError):
    """A repository lacks files of a model."""


@dataclass(frozen=True)
class HubAddress:
    """A model in a repository.

    Attributes:
        repository: such as ``user/name``.
        revision: a branch, a tag or a commit; None: the main branch.
        file: name of an ONNX file; None: the model as a whole.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{quote(self.revision, safe='')}"
        return f"{SCHEME}{self.repository}{revision}" + (f"/{self.file}" if self.file else "")


def hub_address(path: Path | str) -> HubAddress | None:
    """Return the model that an address names; None for anything else, also below a repository.

    Args:
        path: any path or URI.

    Raises:
        SchnRayError: an address of the hub without a user or a name.

    Example:
        >>> hub_address("hf://user/name@v1")
        HubAddress(repository='user/name', revision='v1', file=None)
        >>> hub_address("s3://bucket/run")
    """
    location = as_location(path)
    if not location.startswith(SCHEME) or location.removeprefix(SCHEME).startswith(_NOT_MODELS):
        return None
    match = _ADDRESS.fullmatch(location)
    if match is None and location.removeprefix(SCHEME).count("/") < 2:
        raise SchnRayError(
            f"{location} is not the address of a model: they are hf://user/name or "
            f"hf://user/name@revision, or with /{ONNX_FILE} at the end"
        )
    if match is None:
        return None
    revision = match["revision"]
    return HubAddress(match["repository"], revision and unquote(revision), match["file"])


def fetched(address: HubAddress, *names: str, optional: tuple[str, ...] = ()) -> Path:
    """Return the local folder of a model's files; what the cache has is not fetched again.

    Args:
        address: of the model.
        names: of the files that it must have.
        optional: of files that it may have.

    Raises:
        NotAModel: the repository lacks one of them.
        SchnRayError: no such repository, or the hub cannot be reached and the cache lacks them.
    """
    with hub_errors(str(address)):
        from huggingface_hub import snapshot_download

        patterns, revision = [*names, *optional], address.revision
        folder = Path(
            snapshot_download(address.repository, revision=revision, allow_patterns=patterns)
        )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise NotAModel(f"{address} is not a model that schn-ray reads: it has no {missing[0]}")
    return folder


def fetched_onnx(address: HubAddress) -> Path | None:
    """Return a model's ONNX file, fetched with its description; None if the network is to be run.

    Args:
        address: of an ONNX file; or of a model, which is run by torch where that is installed.

    Raises:
        SchnRayError: as for ``fetched``; or a file differs from ``SHA256SUMS``.
    """
    if address.file is None and find_spec("torch") is not None:
        return None
    file = address.file or ONNX_FILE
    names = file, file.removesuffix(".onnx") + ".json"
    try:
        folder = fetched(address, *names, CHECKSUMS)
    except NotAModel as error:
        raise NotAModel(
            f"{error}. It is what runs without torch: push the run with --onnx FILE, or "
            "pip install 'schn-ray[train]'"
        ) from error
    compared_files(folder, names, download_again(folder))
    return folder / file


def download_again(path: Path) -> str:
    """Say how to get a model's files anew.

    Args:
        path: of the model, here or in the hub's cache.
    """
    if path.parent.name == _SNAPSHOTS:
        return f"Remove {path.parents[1]}, and it is downloaded again"
    return "Copy it again from where it is sound, or train again"


@contextmanager
def hub_errors(address: str) -> Iterator[None]:
    """Turn what goes wrong with the hub into messages for its user.

    Args:
        address: of the repository.

    Raises:
        SchnRayError: in place of the library's errors.
    """
    from huggingface_hub import constants, errors

    # the base of httpx's errors, or of httpx2's, as the version has it
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    hub = constants.ENDPOINT
    log_in = "log in with 'hf auth login', or set HF_TOKEN"
    try:
        with _quiet_unless_watched():
            yield
    except errors.GatedRepoError as error:
        raise SchnRayError(f"{address} is gated: ask for access at {hub}, and {log_in}") from error
    except errors.RepositoryNotFoundError as error:
        raise SchnRayError(
            f"{address}: {hub} shows no such model to you. Correct the name; if it is private, "
            f"{log_in}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SchnRayError(f"{address}: the repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"no answer from {hub}"
        raise SchnRayError(
            f"{address} is not in the cache {constants.HF_HUB_CACHE}, and cannot be downloaded: "
            f"{why}"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise SchnRayError(f"{address}: HF_HUB_OFFLINE is set, and this needs the hub") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        reason = {
            401: f"it does not know you: {log_in}",
            412: "somebody else pushed there at the same time; run the same command again",
            403: f"you may not do this with your token: {log_in}",
        }.get(status, f"it answers {status}: {error.server_message or error}")
        raise SchnRayError(f"{address}, {hub}: {reason}") from error
    except errors.HFValidationError as error:
        raise SchnRayError(f"{address} is not a name of the hub: {error}") from error
    except RuntimeError as error:  # of an upload's threads
        raise SchnRayError(
            f"{address}: the upload to {hub} broke off ({error.__cause__ or error}). The "
            "repository is as it was; run the same command again"
        ) from error
    except transport as error:
        raise SchnRayError(
            f"{address}: {hub} cannot be reached ({type(error).__name__}: {error})"
        ) from error


@contextmanager
def _quiet_unless_watched() -> Iterator[None]:
    """Let the library draw its bars on a terminal only."""
    from huggingface_hub import utils

    if sys.stderr.isatty() or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
