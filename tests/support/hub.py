"""A stand-in for the Hugging Face hub: what uploads and downloads of models need of its API."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"


@dataclass
class Repository:
    """Files of each commit, and the latest commit of each branch."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha


@dataclass
class Hub:
    """What the server holds, and what it was asked for.

    Attributes:
        url: where it answers.
        objects: SHA-256 -> content of large files.
        requests: method and path of each.
        accepted: SHA-256 of large files that are taken; where others come, the connection breaks.
        before: is called before a request is read.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    accepted: set[str] | None = None
    before: Callable[[], None] = lambda: None

    def files(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        repo = self.repositories[repository]
        return repo.commits[repo.branches[branch]]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run the stand-in on a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: object = None, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            headers.setdefault("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def missing(self, code: str) -> None:
            self.answer(404, {"error": code}, X_Error_Code=code, X_Error_Message=code)

        def owner(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_any(self) -> None:
            hub.before()
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            parts = [unquote(part) for part in path.strip("/").split("/")]
            if self.command == "PUT" and parts[0] == "objects":
                return self.put_object(parts[1])
            body = self.body()
            if path == "/api/repos/create":
                return self.create(json.loads(body))
            if path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if parts[:2] == ["api", "models"]:
                return self.api("/".join(parts[2:4]), parts[4:], body)
            if parts[-1] == "batch":
                return self.batch(json.loads(body))
            if parts[2:3] != ["resolve"]:
                return self.missing("EntryNotFound")
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

        def put_object(self, sha256: str) -> None:
            if hub.accepted is not None and sha256 not in hub.accepted:
                self.close_connection = True
                return
            content = self.body()
            assert hashlib.sha256(content).hexdigest() == sha256
            hub.objects[sha256] = content
            self.answer(200)

        def create(self, request: dict[str, Any]) -> None:
            if not self.owner():
                return self.answer(401, {"error": "Invalid username or password."})
            name = f"{request['organization']}/{request['name']}"
            url = {"url": f"{hub.url}/{name}"}
            if name in hub.repositories:
                return self.answer(409, url)
            private = request.get("visibility") == "private" or request.get("private", False)
            hub.repositories[name] = Repository(private)
            hub.repositories[name].commit("main", {".gitattributes": b""})
            self.answer(200, url)

        def readable(self, name: str) -> Repository | None:
            repo = hub.repositories.get(name)
            if repo is None or (repo.private and not self.owner()):
                self.missing("RepoNotFound")
                return None
            return repo

        def api(self, name: str, action: list[str], body: bytes) -> None:
            repo = self.readable(name)
            if repo is None:
                return
            verb, revision = action[:2] if action else ("revision", "main")
            if verb == "branch":
                if revision in repo.branches:
                    return self.answer(409, {"error": "exists"})
                repo.branches[revision] = repo.branches["main"]
                return self.answer(200, {})
            sha = repo.branches.get(revision, revision)
            if sha not in repo.commits:
                return self.missing("RevisionNotFound")
            files = repo.commits[sha]
            if verb == "revision":
                siblings = [{"rfilename": file} for file in files]
                info = {"id": name, "sha": sha, "private": repo.private, "siblings": siblings}
                return self.answer(200, info)
            if verb == "tree":
                return self.answer(200, [_entry(*file) for file in files.items()])
            if not self.owner():
                return self.answer(403, {"error": "You don't have the rights"})
            if verb == "preupload":
                modes = [_mode(file["path"], files) for file in json.loads(body)["files"]]
                return self.answer(200, {"files": modes})
            assert verb == "commit", verb
            after = dict(files)
            for line in map(json.loads, body.splitlines()):
                if line["value"].get("parentCommit", sha) != sha:
                    return self.answer(412, {"error": "A commit has happened since."})
                _apply(line["key"], line["value"], after)
            sha = repo.commit(revision, after)
            self.answer(200, {"commitUrl": f"{hub.url}/{name}/commit/{sha}", "commitOid": sha})

        def batch(self, request: dict[str, Any]) -> None:
            objects = [
                {"oid": one["oid"], "size": one["size"]}
                | (
                    {}
                    if one["oid"] in hub.objects
                    else {"actions": {"upload": {"href": f"{hub.url}/objects/{one['oid']}"}}}
                )
                for one in request["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})

        def resolve(self, name: str, revision: str, file: str) -> None:
            repo = self.readable(name)
            if repo is None:
                return
            sha = repo.branches.get(revision, revision)
            content = repo.commits[sha].get(file)
            if content is None:
                return self.missing("EntryNotFound")
            etag = f'"{_etag(file, content)}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=sha)

    def _apply(key: str, value: Any, files: dict[str, bytes]) -> None:
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]

    for method in ("GET", "HEAD", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.do_any)
    return Handler


def _is_large(file: str) -> bool:
    return file.endswith((".safetensors", ".onnx"))


def _etag(file: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if _is_large(file) else blob_id(content)


def _mode(file: str, files: dict[str, bytes]) -> dict[str, Any]:
    mode = {"path": file, "uploadMode": "lfs" if _is_large(file) else "regular"}
    oid = {"oid": _etag(file, files[file])} if file in files else {}
    return mode | {"shouldIgnore": False} | oid


def _entry(file: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": file, "size": len(content), "oid": blob_id(content)}
    if _is_large(file):
        sha256 = hashlib.sha256(content).hexdigest()
        return entry | {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}}
    return entry
