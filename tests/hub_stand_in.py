"""A small local stand-in of the Hugging Face hub's HTTP endpoints: repositories, trees, files, commits, Git LFS.

Only models, only what huggingface_hub asks for, nothing on disk. As on the real hub who is not logged in learns nothing
of what is private or absent (401), and a token that may only read is refused (403) when it writes.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

WRITER, READER = "hf_writer", "hf_reader"
_FIRST = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """status and X-Error-Code of an answer."""

    def __init__(self, status: int, code: str = "", said: str = "") -> None:
        super().__init__(said or code or str(status))
        self.status, self.code, self.said = status, code, said


@dataclass
class Repo:
    """branches: commit of each.  commits: files of each.  messages: of commits, the newest last."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        digest = hashlib.sha1(repr((branch, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[digest] = files
        self.branches[branch] = digest
        self.messages.append(message)
        return digest

    def at(self, revision: str) -> str:
        found = self.branches.get(revision, revision)
        if found not in self.commits:
            raise Refused(404, "RevisionNotFound")
        return found


class Hub:
    """The stand-in, serving from a thread until `close`.

    asked: every request as (method, path).
    lfs: large files by SHA-256, had from another host name, as they are there.  large: endings of what goes there.
    breaks: paths in a repository whose next download ends in the middle.  ranges: the Range headers that were sent.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.large = (".safetensors",)
        self.asked: list[tuple[str, str]] = []
        self.breaks: list[str] = []
        self.ranges: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store = f"http://localhost:{self._server.server_port}/lfs"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def create(self, name: str, files: dict[str, bytes] | None = None, private: bool = False) -> Repo:
        made = self.repos[name] = Repo(private)
        made.commit("main", _FIRST | (files or {}), "initial commit")
        return made

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.repos[name]
        return {path: data for path, data in repo.commits[repo.at(revision)].items() if path not in _FIRST}

    def downloads(self) -> list[str]:
        """Paths in a repository whose content was asked for, large files by their SHA-256."""
        contents = [
            path for how, path in self.asked if how == "GET" and ("/resolve/" in path or path.startswith("/lfs/"))
        ]
        return sorted(path.split("/", 5 if "/resolve/" in path else 2)[-1] for path in contents)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A hub without repositories, an empty cache, and a token that may write."""
    made = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by Git LFS, as without hf_xet
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    try:
        yield made
    finally:
        made.close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.asked.append((self.command, path))
        try:
            for pattern, handle in _ROUTES:
                if found := re.fullmatch(pattern, path):
                    return handle(self, body, *found.groups())
            raise Refused(404, "EntryNotFound")
        except Refused as refused:
            said = {"X-Error-Code": refused.code, "X-Error-Message": refused.said}
            headers = {name: value for name, value in said.items() if value}
            self.send(json.dumps({"error": refused.said or refused.code}).encode(), refused.status, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {"Content-Length": str(len(data)), "Content-Type": "application/json", "Connection": "close"}
        for name, value in (always | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_part(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        """A file from where the client asks; the connection may break in the middle."""
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            self.hub.ranges.append(self.headers["Range"])
            start = int(found[1])
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        if self.command == "GET" and path in self.hub.breaks:
            self.hub.breaks.remove(path)
            self.send(data[: len(data) // 2], 200, headers | {"Content-Length": str(len(data))})
            self.close_connection = True
            return
        self.send(data[start:], 206 if start else 200, headers)

    def tell(self, record: Any) -> None:
        self.send(json.dumps(record).encode())

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def may_write(self) -> None:
        if not self.token:
            raise Refused(401, said="Invalid username or password.")
        if self.token != WRITER:
            raise Refused(403, said="You don't have the required permissions to perform this action")

    def repo(self, name: str) -> Repo:
        found = self.hub.repos.get(name)
        if found is None or (found.private and not self.token):
            raise Refused(404 if self.token else 401, "RepoNotFound")
        if found.gated and self.token != WRITER:
            raise Refused(403, "GatedRepo", "Access to this model is restricted")
        return found


def _create(to: _Handler, body: bytes) -> None:
    to.may_write()
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if name in to.hub.repos:
        return to.send(json.dumps({"error": "exists", "url": f"{to.hub.url}/{name}"}).encode(), 409)
    to.hub.create(name, private=asked.get("visibility") == "private" or asked.get("private") is True)
    to.tell({"url": f"{to.hub.url}/{name}"})


def _branch(to: _Handler, _: bytes, name: str, branch: str) -> None:
    to.may_write()
    repo = to.repo(name)
    if branch in repo.branches:
        raise Refused(409, said="Reference already exists")
    repo.branches[branch] = repo.at("main")
    to.tell({})


def _info(to: _Handler, _: bytes, name: str, revision: str | None) -> None:
    repo = to.repo(name)
    commit = repo.at(revision or "main")
    siblings = [{"rfilename": path, "size": len(data)} for path, data in repo.commits[commit].items()]
    readme = repo.commits[commit].get("README.md", b"").decode().split("---\n")
    card = {"cardData": yaml.safe_load(readme[1])} if len(readme) > 2 else {}
    told = {"id": name, "modelId": name, "sha": commit, "private": repo.private, "tags": [], "siblings": siblings}
    to.tell(told | card)


def _tree(to: _Handler, _: bytes, name: str, revision: str) -> None:
    repo = to.repo(name)
    entries = []
    for path, data in repo.commits[repo.at(revision)].items():
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _git(data)}
        if (sha := hashlib.sha256(data).hexdigest()) in to.hub.lfs:
            entry["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 134}
        entries.append(entry)
    to.tell(entries)


def _validate(to: _Handler, body: bytes) -> None:
    front = json.loads(body)["content"].split("---\n")[1]
    found = yaml.safe_load(front)
    if found.get("license") == "nonsense":
        said = '"license" must be one of [mit]'
        told = said if to.headers["Accept"] == "text/plain" else json.dumps({"errors": [{"message": said}]})
        return to.send(told.encode(), 400)
    to.tell({"errors": [], "warnings": []})


def _preupload(to: _Handler, body: bytes, name: str, revision: str) -> None:
    to.may_write()
    there = to.repo(name).commits[to.repo(name).at(revision)]
    to.tell({"files": [_upload_mode(one["path"], there, to.hub.large) for one in json.loads(body)["files"]]})


def _upload_mode(path: str, there: dict[str, bytes], endings: tuple[str, ...]) -> dict[str, Any]:
    large = path.endswith(endings)
    known = (
        {} if path not in there else {"oid": hashlib.sha256(there[path]).hexdigest() if large else _git(there[path])}
    )
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known}


def _commit(to: _Handler, body: bytes, name: str, branch: str) -> None:
    to.may_write()
    repo = to.repo(name)
    lines = [json.loads(line) for line in body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, repo.at(branch)):
        raise Refused(412, said="The branch has moved")
    files = dict(repo.commits[repo.at(branch)])
    for line in lines[1:]:
        value = line["value"]
        large = line["key"] == "lfsFile"
        files[value["path"]] = to.hub.lfs[value["oid"]] if large else base64.b64decode(value["content"])
    made = repo.commit(branch, files, header["summary"])
    to.tell({"commitUrl": f"{to.hub.url}/{name}/commit/{made}", "commitOid": made, "pullRequestUrl": None})


def _batch(to: _Handler, body: bytes, name: str) -> None:
    to.may_write()
    to.repo(name)
    objects = json.loads(body)["objects"]
    for one in objects:
        if one["oid"] not in to.hub.lfs:
            one["actions"] = {"upload": {"href": f"{to.hub.store}/{one['oid']}"}}
    to.tell({"transfer": "basic", "objects": objects})


def _lfs(to: _Handler, body: bytes, oid: str) -> None:
    if to.command == "PUT":
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, said="content does not match its id")
        to.hub.lfs[oid] = body
        return to.tell({})
    to.send(to.hub.lfs[oid], headers={"ETag": f'"{oid}"'})


def _resolve(to: _Handler, _: bytes, name: str, revision: str, path: str) -> None:
    repo = to.repo(name)
    commit = repo.at(revision)
    if path not in repo.commits[commit]:
        raise Refused(404, "EntryNotFound")
    data = repo.commits[commit][path]
    headers = {"X-Repo-Commit": commit, "ETag": f'"{_git(data)}"', "Content-Type": "application/octet-stream"}
    sha = hashlib.sha256(data).hexdigest()
    if sha not in to.hub.lfs:
        return to.send_part(path, data, headers)
    linked = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(data)), "Location": f"{to.hub.store}/{sha}"}
    to.send(b"", 302, headers | linked)


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_NAME = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Any]] = [
    (r"/api/repos/create", _create),
    (r"/api/validate-yaml", _validate),
    (rf"/api/models/{_NAME}/branch/(.+)", _branch),
    (rf"/api/models/{_NAME}/tree/(.+)", _tree),
    (rf"/api/models/{_NAME}/preupload/(.+)", _preupload),
    (rf"/api/models/{_NAME}/commit/(.+)", _commit),
    (rf"/api/models/{_NAME}(?:/revision/(.+))?", _info),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _batch),
    (r"/lfs/([0-9a-f]{64})", _lfs),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", _resolve),
]
