"""A small Hub on this machine, for the unmodified client to talk to over TCP: repositories, commits, LFS and Xet.

Only what a push and a pull of models need. Content is kept in memory (Xet's in a folder). Faults can be set: see
:meth:`HubServer.fail`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}


@dataclass(frozen=True)
class Blob:
    """A file in a commit: its content, or the SHA-256 and size of a large one kept apart."""

    content: bytes = b""
    sha256: str | None = None
    lfs_size: int = 0

    @property
    def size(self) -> int:
        return self.lfs_size if self.sha256 else len(self.content)

    @property
    def oid(self) -> str:
        pointer = f"oid sha256:{self.sha256}\nsize {self.lfs_size}\n".encode()
        content = pointer if self.sha256 else self.content
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Repo:
    """A repository: its branches and tags, and the files of each commit."""

    name: str
    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, ref: str, files: dict[str, Blob], message: str) -> str:
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{self.refs.get(ref)} {message} {len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.refs[ref] = files, message, sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class RefusalError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose ``METHOD path`` matches."""

    pattern: str
    times: int
    status: int = 0
    code: str = ""
    cut: int | None = None
    flip: bool = False
    then: Callable[[], object] | None = None


class HubServer:
    """The server's state; :func:`serve_hub` runs it."""

    def __init__(self, xet: Path | None = None) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.xet = xet
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.authorized: list[str] = []
        self.lock = threading.RLock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_url(self) -> str:
        # Another host name: the client follows a redirect to the same one, and then misses the headers before it.
        return f"http://localhost:{self.port}"

    def fail(self, pattern: str, times: int = 1, **how: Any) -> None:
        """Answer ``status`` and ``code``, ``cut`` off after so many bytes, ``flip`` a bit, or call ``then`` first."""
        self.faults.append(Fault(pattern, times, **how))

    def xet_files(self) -> dict[str, tuple[str, int]]:
        """SHA-256 to (Xet hash, size) of every file in the shards that the client has written.

        A shard is a header and then, for each file, an entry with its hash and counts, one entry for each
        segment (its size among them), as many again if bit 31 of the flags is set, and one with the SHA-256 if
        bit 30 is; all of 48 bytes. A hash of 0xff ends them.
        """
        found = {}
        for path in self.xet.rglob("*") if self.xet else ():
            data = path.read_bytes() if path.is_file() else b""
            if not data.startswith(b"HFRepoMetaData\0"):
                continue
            entries = [data[at : at + 48] for at in range(48, len(data) - 47, 48)]
            at = 0
            while at < len(entries) and entries[at][:32] != b"\xff" * 32:
                flags, count = (int.from_bytes(entries[at][i : i + 4], "little") for i in (32, 36))
                size = sum(int.from_bytes(e[36:40], "little") for e in entries[at + 1 : at + 1 + count])
                end = at + 1 + count * (2 if flags >> 31 & 1 else 1)
                if flags >> 30 & 1:
                    found[_hash_text(entries[end][:32])] = (_hash_text(entries[at][:32]), size)
                    end += 1
                at = end
        return found


def _hash_text(raw: bytes) -> str:
    """Xet's way to write a hash: four little-endian 64-bit words in hex."""
    return "".join(f"{int.from_bytes(raw[i : i + 8], 'little'):016x}" for i in range(0, 32, 8))


@contextmanager
def serve_hub(xet: Path | None = None) -> Iterator[HubServer]:
    hub = HubServer(xet)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self._read_body()
        if self.body is None:
            return
        line = f"{self.command} {unquote(url.path)}"
        with self.hub.lock:
            self.hub.requests.append(line)
            if "Authorization" in self.headers:
                self.hub.authorized.append(line)
            fault = next((f for f in self.hub.faults if f.times and re.search(f.pattern, line)), None)
            if fault:
                fault.times -= 1
        self.cut, self.flip = (fault.cut, fault.flip) if fault else (None, False)
        if fault and fault.then:
            fault.then()
        try:
            if fault and fault.status:
                raise RefusalError(fault.status, fault.code)
            if self.command in ("PUT", "POST") and self.cut is not None:
                self._hang_up()
                return
            for pattern, method in ROUTES:
                match = re.fullmatch(pattern, f"{self.command} {url.path}")
                if match:
                    with self.hub.lock:
                        answer = method(self, *(unquote(part) for part in match.groups()))
                    if answer is not None:
                        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
                    return
            raise RefusalError(404, "", f"no such route: {line}")
        except RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            body = json.dumps({"error": refusal.message}).encode()
            self._send(refusal.status, body, {k: v for k, v in headers.items() if v})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _read_body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.flip and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :]
        self.wfile.write(body[: self.cut])
        if self.cut is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    # Who asks, and for what ------------------------------------------------------------------------------

    def _user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise RefusalError(401, "", "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def _repo(self, name: str, write: bool = False) -> Repo:
        user, repo = self._user(), self.hub.repos.get(name)
        owned = user is not None and name.startswith(f"{user}/")
        if repo is None or (repo.private and not owned):
            raise RefusalError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not owned:
            raise RefusalError(403, "", "You don't have the rights to write to it")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, Blob]]:
        sha = repo.resolve(revision)
        if sha is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repo.commits[sha]

    def _json(self) -> Any:
        return json.loads(self.body)

    # Repositories ----------------------------------------------------------------------------------------

    def create(self) -> dict[str, str]:
        user, asked = self._user(), self._json()
        if user is None:
            raise RefusalError(401, "", "Invalid username or password.")
        if asked.get("organization") not in (None, user):
            raise RefusalError(403, "", "You don't have the rights to create a model under this namespace")
        name = f"{user}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repos:
            self._send(409, json.dumps({**answer, "error": "You already created this repo"}).encode(), {})
            return None
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        repo = self.hub.repos[name] = Repo(name, private)
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, "initial commit")
        return answer

    def info(self, name: str, revision: str = "main") -> dict[str, Any]:
        repo = self._repo(name)
        sha, files = self._files(repo, revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
        if "blobs" in self.query:
            for entry in siblings:
                blob = files[entry["rfilename"]]
                entry |= {"size": blob.size, "blobId": blob.oid}
                if blob.sha256:
                    entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 130}
        return {"id": name, "modelId": name, "sha": sha, "private": repo.private, "siblings": siblings}

    def tree(self, name: str, revision: str) -> list[dict[str, Any]]:
        _, files = self._files(self._repo(name), revision)
        xet = self.hub.xet_files()
        entries = []
        for path, blob in sorted(files.items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
            if blob.sha256:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
            if blob.sha256 in xet:
                entry["xetHash"] = xet[blob.sha256][0]
            entries.append(entry)
        return entries

    def branch(self, name: str, branch: str) -> dict[str, str]:
        repo = self._repo(name, write=True)
        if branch in repo.refs:
            raise RefusalError(409, "", "Reference already exists")
        start = (self._json() if self.body else {}).get("startingPoint") or "main"
        repo.refs[branch], _ = self._files(repo, start)
        return {}

    def tag(self, name: str, revision: str) -> dict[str, str]:
        repo = self._repo(name, write=True)
        repo.refs[self._json()["tag"]], _ = self._files(repo, revision)
        return {}

    # Commits ---------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, Any]:
        text = self._json()["content"]
        licence = re.search(r"^license: (.+)$", text, re.MULTILINE)
        if not re.match(r"---\n(.+\n)+---\n", text) or (licence and licence[1] not in ("mit", "cc-by-4.0", "other")):
            errors = [{"message": '"license" must be one of [mit, cc-by-4.0, other]'}]
            self._send(400, json.dumps({"errors": errors, "warnings": []}).encode(), {})
            return None
        return {"errors": [], "warnings": []}

    def preupload(self, name: str, revision: str) -> dict[str, Any]:
        _, files = self._files(self._repo(name, write="create_pr" not in self.query), revision)
        answers = []
        for entry in self._json()["files"]:
            mode = "lfs" if entry["path"].endswith((".safetensors", ".png")) else "regular"
            old = files.get(entry["path"])
            oid = (old.sha256 or old.oid) if old else None
            answers.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def commit(self, name: str, revision: str) -> dict[str, Any]:
        request = "create_pr" in self.query
        repo = self._repo(name, write=not request)
        head, files = self._files(repo, revision)
        files = dict(files)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head):
            raise RefusalError(412, "", "A commit has happened since. Please refresh and try again.")
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                size = value.get("size")
                if value["oid"] not in self.hub.objects and value["oid"] not in self.hub.xet_files():
                    raise RefusalError(422, "", f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = Blob(sha256=value["oid"], lfs_size=size)
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
        ref = f"refs/pr/{number}" if request else revision
        if request:
            repo.refs[ref] = head
        sha = repo.commit(ref, files, header["summary"])
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"}
        return {**answer, "pullRequestUrl": f"{self.hub.url}/{name}/discussions/{number}"} if request else answer

    # Large files -----------------------------------------------------------------------------------------

    def batch(self, name: str) -> dict[str, Any]:
        self._repo(name)
        objects, asked = [], self._json()
        transfer = "xet" if self.hub.xet and "xet" in asked["transfers"] else "basic"
        for one in asked["objects"]:
            upload = {"href": f"{self.hub.storage_url}/storage/{one['oid']}", "header": {}}
            known = one["oid"] in self.hub.objects
            objects.append({**one, **({} if known else {"actions": {"upload": upload}})})
        return {"transfer": transfer, "objects": objects}

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusalError(400, "", "the content does not have this hash")
        self.hub.objects[oid] = self.body
        self._send(200, b"", {"ETag": oid})

    def fetch(self, oid: str) -> None:
        self._send(200, self.hub.objects[oid], {"ETag": oid})

    def resolve(self, name: str, revision: str, path: str) -> None:
        sha, files = self._files(self._repo(name), revision)
        if path not in files:
            raise RefusalError(404, "EntryNotFound", "Entry not found")
        blob = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.oid}"'}
        if blob.sha256 is None:
            self._send(200, blob.content, headers)
            return
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if (xet := self.hub.xet_files().get(blob.sha256)) is not None:
            route = f"{self.hub.url}/api/models/{name}/xet-read-token/{sha}"
            headers |= {"X-Xet-Hash": xet[0], "X-Xet-Refresh-Route": route}
        self._send(302, b"", {**headers, "Location": f"{self.hub.storage_url}/storage/{blob.sha256}"})

    def xet_token(self, name: str, kind: str, revision: str) -> dict[str, Any]:
        self._repo(name, write=kind == "write" and "create_pr" not in self.query)
        if self.hub.xet is None:
            raise RefusalError(404)
        access = {"casUrl": f"local://{self.hub.xet}", "accessToken": "xet", "exp": int(time.time()) + 3600}
        names = {"casUrl": "X-Xet-Cas-Url", "accessToken": "X-Xet-Access-Token", "exp": "X-Xet-Token-Expiration"}
        body = json.dumps(access).encode()
        self._send(200, body, {names[k]: str(v) for k, v in access.items()} | {"Content-Type": "application/json"})
        return None


NAME, PART = r"([\w.-]+/[\w.-]+)", r"([^/]+)"
ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"GET /api/models/{NAME}", Handler.info),
    (rf"GET /api/models/{NAME}/revision/{PART}", Handler.info),
    (rf"GET /api/models/{NAME}/tree/{PART}/?", Handler.tree),
    (rf"POST /api/models/{NAME}/branch/{PART}", Handler.branch),
    (rf"POST /api/models/{NAME}/tag/{PART}", Handler.tag),
    (rf"POST /api/models/{NAME}/preupload/{PART}", Handler.preupload),
    (rf"POST /api/models/{NAME}/commit/{PART}", Handler.commit),
    (rf"GET /api/models/{NAME}/xet-(read|write)-token/{PART}", Handler.xet_token),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /storage/([0-9a-f]{64})", Handler.store),
    (r"(?:GET|HEAD) /storage/([0-9a-f]{64})", Handler.fetch),
    (rf"(?:GET|HEAD) /{NAME}/resolve/{PART}/(.+)", Handler.resolve),
]


def connect(patch: pytest.MonkeyPatch, hub: HubServer, home: Path, *, token: str | None = "hf_alice") -> None:
    """Point the client in this process at ``hub``, with its cache in ``home`` and Xet off.

    It reads its environment when it is imported, so its constants are set as well.
    """
    from huggingface_hub import constants, file_download

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_ETAG_TIMEOUT"):
        patch.delenv(name, raising=False)
    if token:
        patch.setenv("HF_TOKEN", token)
    values: dict[str, Any] = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in values.items():
        patch.setattr(constants, name, value)
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # older clients keep a copy
        patch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", values["HUGGINGFACE_CO_URL_TEMPLATE"])
    set_offline(patch, False)


def set_offline(patch: pytest.MonkeyPatch, offline: bool) -> None:
    """As if HF_HUB_OFFLINE were set, or not."""
    from huggingface_hub import constants, utils

    patch.setattr(constants, "HF_HUB_OFFLINE", offline)
    if hasattr(utils, "reset_sessions"):  # older clients look at it once a session
        utils.reset_sessions()


def client_environment(
    hub: HubServer, home: Path, *, token: str | None = "hf_alice", xet: bool = False
) -> dict[str, str]:
    """The environment of another process that uses ``hub``, with an empty cache in ``home``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | mine | ({"HF_TOKEN": token} if token else {}) | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})
