"""The requests that the test Hub knows: repositories, rights, commits, tags, large files, downloads."""

import base64
import hashlib
import json
import re
from urllib.parse import parse_qs

from .hub_repository import Commit, File, Repo, User, git_sha, is_lfs


DATE = "2026-01-01T00:00:00.000Z"
LICENSES = ("apache-2.0", "mit", "unknown", "other")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str, code: str | None = None):
        self.status, self.text, self.code = status, text, code


class Routes:
    """
    What the handler of a request answers. It has `hub`, `headers`, `command`, `body` and `query`; an answer is a JSON
    value, or `(status, headers, content)`.
    """

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

    commit_header: dict

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
