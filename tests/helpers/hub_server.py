"""A small Hugging Face Hub in memory, on loopback, for the real `huggingface_hub` client over real HTTP.

It speaks what the client speaks for models and data sets: create, rights, commits (regular and LFS files), tags,
downloads. Every request is logged; requests it does not know are answered 501 and listed in `unhandled`. Faults are
made on demand with [`Hub.fail`].
"""

import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from .hub_repository import LFS_SUFFIXES, File, Repo, User, is_lfs
from .hub_routes import Refused, Routes


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
        # A pattern of paths whose requests are not answered as long as it is set.
        self.hold: str | None = None

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


class Handler(Routes, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: "Hub"

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
        while hub.hold is not None and re.search(hub.hold, self.path):
            time.sleep(0.1)
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
