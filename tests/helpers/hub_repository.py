"""What the test Hub keeps: users, and repositories with commits, tags and files that have real git identities."""

import hashlib
import json
from dataclasses import dataclass, field


LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".png", ".zip")


def git_sha(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


@dataclass
class User:
    """Whom a token belongs to; `role` is "read" or "write"."""

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()


@dataclass
class File:
    content: bytes
    is_lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @property
    def oid(self) -> str:
        """The git blob's sha1."""
        return git_sha("blob", self.pointer if self.is_lfs else self.content)

    def entry(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


@dataclass
class Commit:
    oid: str
    title: str
    author: str
    files: dict[str, File]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, tag or sha names."""
        if revision in ("main", "refs/heads/main"):
            return self.head
        oid = self.tags.get(revision, revision)
        return next((c for c in self.commits if c.oid == oid), None)

    def commit(self, title: str, author: str, files: dict[str, File]) -> Commit:
        listing = json.dumps([len(self.commits), title, {p: f.oid for p, f in sorted(files.items())}]).encode()
        self.commits.append(Commit(git_sha("commit", listing), title, author, files))
        return self.head


def is_lfs(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)
