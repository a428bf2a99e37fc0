"""A small Hugging Face Hub in memory, on loopback, for the real `huggingface_hub` client over real HTTP.

It speaks what the client speaks for models and data sets: create, rights, commits (regular and LFS files), tags,
downloads. Every request is logged; requests it does not know are answered 501 and listed in `unhandled`. Faults are
made on demand with [`Hub.fail`].
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repository import LFS_SUFFIXES, Commit, File, Repo, User, git_sha, is_lfs


LICENSES = ("apache-2.0", "mit", "unknown", "other")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Fault:
    """
    What happens to the next `times` requests that match, after `skip` of them. `kind` is a status, "cut" (half the
    body is read, then the connection is closed), "lost" (the request is carried out, its reply is not sent) or "down"
    (nothing listens for `seconds`).
    """

    method: str | None
    pattern: str
    kind: int | str
    times: int = 1
    headers: dict = field(default_factory=dict)
    seconds: float = 0.0
    skip: int = 0
    fired: int = 0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Connections that clients or faults cut are no news."""


class Hub:
    """The server. `with Hub() as hub:` listens on a free port; `hub.endpoint` is its address."""

    def __init__(self):
        self.users = {"hf_write": User("me", "write", ("my-org",)), "hf_read": User("me", "read")}
        self.users["hf_other"] = User("somebody-else")
        self.lock = threading.RLock()
        self.server, self.port, self.open = None, 0, set()
        self.listening = threading.Event()
        # What a request waits for before it is handled: a test holds uploads back with it.
        self.gate = threading.Event()
        self.reset()

    def reset(self):
        """Forget everything but the users."""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.unhandled: list[str] = []
        self.tokens_at_storage = 0
        self.faults: list[Fault] = []
        self.gate.set()

    def __enter__(self):
        self._listen()
        return self

    def __exit__(self, *exception):
        self._close()

    def _listen(self):
        self.server = Server(("127.0.0.1", self.port), type("BoundHandler", (Handler,), {"hub": self}))
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.listening.set()

    def _close(self):
        self.listening.clear()
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def go_down(self, seconds: float):
        """Close the port and every connection, and listen again after `seconds`."""

        def pause():
            self._close()
            time.sleep(seconds)
            self._listen()

        threading.Thread(target=pause, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, home, token: str | None = "hf_write") -> dict[str, str]:
        """Environment variables that make a process use this Hub."""
        variables = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        variables |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
        return variables | ({"HF_TOKEN": token} if token else {})

    def fail(self, method: str | None, pattern: str, kind: int | str, **options):
        """Make requests fail, see [`Fault`]."""
        self.faults.append(Fault(method, pattern, kind, **options))

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.fired < fault.times and fault.method in (method, None) and re.search(fault.pattern, path):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.fired += 1
                    return fault
        return None

    def repo(self, name: str, kind: str = "models") -> Repo:
        return self.repos[kind, name]

    def add_repo(self, name: str, kind: str = "models", private: bool = False, files: dict | None = None) -> Repo:
        """Make a repository with a first commit, as the Hub does."""
        repo = self.repos[kind, name] = Repo(kind, name, private)
        attributes = "".join(f"*{s} filter=lfs diff=lfs merge=lfs -text\n" for s in LFS_SUFFIXES).encode()
        contents = {".gitattributes": attributes, **(files or {})}
        repo.commit("initial commit", name.split("/")[0], {p: File(c, is_lfs(p)) for p, c in contents.items()})
        return repo


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str, code: str | None = None):
        self.status, self.text, self.code = status, text, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    ROUTES = [
        ("POST", r"/api/repos/create", "create"),
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/(models|datasets)/([^/]+/[^/]+)/auth-check(/write)?", "auth_check"),
        ("POST", r"/api/(models|datasets)/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/(models|datasets)/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/api/(models|datasets)/([^/]+/[^/]+)/tag/([^/]+)", "create_tag"),
        ("DELETE", r"/api/(models|datasets)/([^/]+/[^/]+)/tag/([^/]+)", "delete_tag"),
        ("GET", r"/api/(models|datasets)/([^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/(models|datasets)/([^/]+/[^/]+)/commits/([^/]+)", "commits"),
        ("GET", r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", "tree"),
        ("POST", r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/([^/]+)", "paths_info"),
        ("GET", r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", "repo_info"),
        ("POST", r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("POST", r"/lfs-verify", "lfs_verify"),
        ("PUT", r"/storage/([0-9a-f]{64})", "store"),
        ("GET", r"/storage/([0-9a-f]{64})", "load"),
        ("GET", r"/api/agent-harnesses", "not_there"),
        ("GET", r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    ]

    def setup(self):
        super().setup()
        self.hub.open.add(self.connection)

    def finish(self):
        self.hub.open.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def answer(self):
        """Read a request, let a fault have its way, else carry it out."""
        hub, url = self.hub, urlsplit(self.path)
        method = "GET" if self.command == "HEAD" else self.command
        hub.requests.append((self.command, self.path))
        fault = hub.fault_for(self.command, self.path)
        if fault is not None and fault.kind in ("cut", "down"):
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            if fault.kind == "down":
                hub.go_down(fault.seconds)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.body = self.read_body()
        hub.bodies.append(self.body)
        if fault is not None and isinstance(fault.kind, int):
            return self.reply_json({"error": "made to fail"}, fault.kind, fault.headers)
        hub.gate.wait()
        self.query, self.commit_header = parse_qs(url.query), {}
        routes = ((name, re.fullmatch(pattern, url.path)) for verb, pattern, name in self.ROUTES if verb == method)
        name, match = next(((name, match) for name, match in routes if match), (None, None))
        if match is None:
            hub.unhandled.append(f"{self.command} {self.path}")
            return self.reply_json({"error": "not handled"}, 501)
        try:
            with hub.lock:
                answer = getattr(self, f"on_{name}")(*(unquote(g) if g else g for g in match.groups()))
        except Refused as refused:
            headers = {"X-Error-Message": refused.text}
            headers |= {"X-Error-Code": refused.code} if refused.code else {}
            return self.reply_json({"error": refused.text}, refused.status, {**headers, **self.commit_header})
        if fault is not None:  # "lost"
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if isinstance(answer, tuple):
            self.reply(*answer)
        else:
            self.reply_json(answer)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply_json(self, content, status: int = 200, headers: dict | None = None):
        self.reply(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(content).encode())

    def reply(self, status: int, headers: dict, content: bytes = b""):
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # Who asks, and for what.

    def user(self, needed: bool = False) -> User | None:
        header = self.headers.get("Authorization")
        if header is None:
            if needed:
                raise Refused(401, "Invalid username or password.")
            return None
        user = self.hub.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return user

    @staticmethod
    def may_write(user: User | None, name: str) -> bool:
        return user is not None and user.role == "write" and name.split("/")[0] in (user.name, *user.organizations)

    def find(self, kind: str, name: str, write: bool = False) -> Repo:
        user = self.user(needed=write)
        repo = self.hub.repos.get((kind, name))
        owns = user is not None and name.split("/")[0] in (user.name, *user.organizations)
        if repo is None or (repo.private and not owns):
            raise Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write and not self.may_write(user, name):
            raise Refused(403, "You don't have the rights to write to this repository")
        return repo

    def find_commit(self, kind, name, revision) -> tuple[Repo, Commit]:
        repo = self.find(kind, name)
        commit = repo.at(revision or "main")
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        self.commit_header = {"X-Repo-Commit": commit.oid}
        return repo, commit

    # The routes.

    def on_not_there(self):
        raise Refused(404, "no such page")

    def on_whoami(self):
        user = self.user(needed=True)
        token = {"accessToken": {"displayName": "test", "role": user.role}}
        organizations = [{"name": o, "roleInOrg": "admin"} for o in user.organizations]
        return {"type": "user", "name": user.name, "fullname": user.name, "orgs": organizations, "auth": token}

    def on_create(self):
        user, wanted = self.user(needed=True), json.loads(self.body)
        name = f"{wanted.get('organization') or user.name}/{wanted['name']}"
        kind = f"{wanted.get('type') or 'model'}s"
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.hub.repos:
            return 409, {"Content-Type": "application/json"}, json.dumps({"url": url}).encode()
        if not self.may_write(user, name):
            raise Refused(403, f"You don't have the rights to create a {kind[:-1]} under this namespace")
        self.hub.add_repo(name, kind, wanted.get("visibility") == "private")
        return {"url": url, "name": name}

    def on_auth_check(self, kind, name, write):
        self.find(kind, name, write=write is not None)
        return {}

    def on_validate_yaml(self):
        license = re.search(r"^license: (.*)$", json.loads(self.body)["content"], re.MULTILINE)
        if license and license[1] not in LICENSES:
            message = json.dumps({"errors": [{"message": '"license" must be one of ...'}], "warnings": []}).encode()
            return 400, {"Content-Type": "application/json"}, message
        return {"errors": [], "warnings": []}

    def on_preupload(self, kind, name, revision):
        repo = self.find(kind, name, write=True)
        out = []
        for file in json.loads(self.body)["files"]:
            old = repo.head.files.get(file["path"])
            oid = None if old is None else old.sha256 if old.is_lfs else old.oid
            mode = "lfs" if is_lfs(file["path"]) else "regular"
            out.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": out}

    def on_lfs_batch(self, dataset, name):
        self.find("datasets" if dataset else "models", name, write=True)
        out = []
        for item in json.loads(self.body)["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.stored:
                storage = f"http://localhost:{self.hub.port}"
                upload, verify = {"href": f"{storage}/storage/{item['oid']}"}, {"href": f"{storage}/lfs-verify"}
                entry["actions"] = {"upload": upload, "verify": verify}
            out.append(entry)
        return {"objects": out, "transfer": "basic"}

    def on_store(self, sha256):
        self.hub.tokens_at_storage += "Authorization" in self.headers
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise Refused(400, "the content is not what was announced")
        self.hub.stored[sha256] = self.body
        return {}

    def on_lfs_verify(self):
        item = json.loads(self.body)
        if len(self.hub.stored.get(item["oid"], b"")) != item["size"]:
            raise Refused(404, "not stored")
        return {}

    def on_commit(self, kind, name, revision):
        repo = self.find(kind, name, write=True)
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        header, files = lines[0]["value"], dict(repo.head.files)
        if header.get("parentCommit") not in (None, repo.head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise Refused(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = File(self.hub.stored[value["oid"]], is_lfs=True)
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        commit = repo.commit(header["summary"], self.user().name, files)
        return {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit.oid}", "commitOid": commit.oid}

    def on_create_tag(self, kind, name, revision):
        repo = self.find(kind, name, write=True)
        commit, tag = repo.at(revision), json.loads(self.body)["tag"]
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if tag in repo.tags:
            raise Refused(409, "Tag reference exists already")
        repo.tags[tag] = commit.oid
        return {}

    def on_delete_tag(self, kind, name, tag):
        if self.find(kind, name, write=True).tags.pop(tag, None) is None:
            raise Refused(404, "no such tag", "RevisionNotFound")
        return {}

    def on_refs(self, kind, name):
        repo = self.find(kind, name)
        tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": oid} for t, oid in repo.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
        return {"branches": [main], "tags": tags, "converts": []}

    def on_commits(self, kind, name, revision):
        repo = self.find(kind, name)
        return [
            {"id": c.oid, "title": c.title, "message": "", "date": DATE, "authors": [{"user": c.author}]}
            for c in reversed(repo.commits)
        ]

    def on_repo_info(self, kind, name, revision):
        repo, commit = self.find_commit(kind, name, revision)
        siblings = []
        for path, file in commit.files.items():
            item = {"rfilename": path}
            if "blobs" in self.query:
                item |= {"size": len(file.content), "blobId": file.oid}
                if file.is_lfs:
                    sizes = {"size": len(file.content), "pointerSize": len(file.pointer)}
                    item["lfs"] = {"sha256": file.sha256, **sizes}
            siblings.append(item)
        dates = {"lastModified": DATE, "createdAt": DATE}
        flags = {"private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        return {"id": name, "author": name.split("/")[0], "sha": commit.oid, "siblings": siblings, **dates, **flags}

    def on_tree(self, kind, name, revision, folder):
        commit = self.find_commit(kind, name, revision)[1]
        prefix = f"{folder}/" if folder else ""
        deep = self.query.get("recursive", ["false"])[0].lower() in ("1", "true")
        out, folders = [], set()
        for path, file in commit.files.items():
            rest = path.removeprefix(prefix)
            if not path.startswith(prefix):
                continue
            parents = rest.split("/")[:-1]
            for depth in range(1, len(parents) + 1) if deep else range(1, min(len(parents), 1) + 1):
                folders.add(prefix + "/".join(parents[:depth]))
            if deep or not parents:
                out.append(file.entry(path))
        if folder and not out and not folders:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        return out + [{"type": "directory", "path": f, "oid": git_sha("tree", f.encode()), "size": 0} for f in folders]

    def on_paths_info(self, kind, name, revision):
        files = self.find_commit(kind, name, revision)[1].files
        paths = parse_qs(self.body.decode()).get("paths", [])
        return [files[p].entry(p) for p in paths if p in files]

    def on_resolve(self, dataset, name, revision, path):
        commit = self.find_commit("datasets" if dataset else "models", name, revision)[1]
        file = commit.files.get(path)
        if file is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        if file.is_lfs:
            self.hub.stored[file.sha256] = file.content
            linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
            location = f"http://localhost:{self.hub.port}/storage/{file.sha256}"
            return 302, {"Location": location, **linked, **self.commit_header}
        return self.ranged(file.content, {"ETag": f'"{file.oid}"', **self.commit_header})

    def on_load(self, sha256):
        self.hub.tokens_at_storage += "Authorization" in self.headers
        if sha256 not in self.hub.stored:
            raise Refused(404, "not stored")
        return self.ranged(self.hub.stored[sha256], {"ETag": f'"{sha256}"'})

    def ranged(self, content: bytes, headers: dict):
        headers = {"Accept-Ranges": "bytes", **headers}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match is None:
            return 200, headers, content
        first, last = int(match[1]), int(match[2] or len(content) - 1)
        total = len(content)
        return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{total}"}, content[first : last + 1]
