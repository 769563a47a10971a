"""The Hub's HTTP, answered from the memory of a stand-in: users and their tokens, repositories, LFS uploads, files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_repositories import LARGE, LICENSES, TASKS, File, Refusal, Repo

if TYPE_CHECKING:
    from stand_in_hub import StandInHub


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: StandInHub

    # ---- the wire --------------------------------------------------------------------------------

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def serve(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        for fault, left in self.hub.faults.items():
            method, pattern = fault.split(" ", 1)
            if left > 0 and method == self.command and re.search(pattern, self.route):
                self.hub.faults[fault] -= 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
                self.hub.asked.append((self.command, self.route, 0))
                self.close_connection = True
                self.connection.close()
                return
        self.body = self.read_body()
        try:
            with self.hub.lock:
                status, content, headers = self.answer()
        except Refusal as refusal:
            status, message, code = refusal.args
            echo = f"{message} (you sent {self.headers.get('Authorization')})"  # as careless servers do
            content = json.dumps({"error": echo}).encode()
            headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.hub.asked.append((self.command, self.route, status))
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # ---- who -------------------------------------------------------------------------------------

    @property
    def user(self) -> dict[str, Any] | None:
        given = self.headers.get("Authorization")
        if given is None:
            return None
        user = self.hub.users.get(given.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header", None)
        return user

    def may_write(self, owner: str) -> bool:
        user = self.user
        if user is None or user["auth"]["accessToken"]["role"] == "read":
            return False
        return owner in {user["name"], *(org["name"] for org in user["orgs"])}

    def repo(self, kind: str, repo_id: str, write: bool = False) -> Repo:
        repo, user = self.hub.repos.get((kind, repo_id)), self.user
        owner = repo_id.split("/")[0]
        seen = repo is not None and (
            not repo.private or (user is not None and owner in {user["name"], *(o["name"] for o in user["orgs"])})
        )
        if not seen:
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not self.may_write(owner):
            raise Refusal(403, "You don't have the rights to write to this repository", None)
        return repo

    # ---- what ------------------------------------------------------------------------------------

    def answer(self) -> tuple[int, bytes, dict[str, str]]:
        repo_id = r"(?P<repo_id>[^/]+/[^/]+)"
        api = rf"/api/(?P<kind>models|spaces|datasets)/{repo_id}"
        plain = rf"/(?:(?P<kind>spaces|datasets)/)?{repo_id}"
        routes = (
            ("GET", r"/api/whoami-v2", self.whoami),
            ("POST", r"/api/validate-yaml", self.validate),
            ("POST", r"/api/repos/create", self.create),
            ("GET", rf"{api}(?:/revision/(?P<revision>[^/]+))?", self.info),
            ("GET", rf"{api}/auth-check(?P<write>/write)?", self.auth_check),
            ("GET", rf"{api}/refs", self.refs),
            ("GET", rf"{api}/tree/(?P<revision>[^/]+)", self.tree),
            ("POST", rf"{api}/branch/(?P<name>[^/]+)", self.branch),
            ("POST", rf"{api}/tag/(?P<revision>[^/]+)", self.tag),
            ("POST", rf"{api}/preupload/(?P<revision>[^/]+)", self.preupload),
            ("POST", rf"{api}/commit/(?P<revision>[^/]+)", self.commit),
            ("POST", rf"{plain}\.git/info/lfs/objects/batch", self.batch),
            ("PUT", r"/lfs/(?P<oid>\w+)", self.put_object),
            ("GET|HEAD", rf"{plain}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self.resolve),
        )
        for method, pattern, function in routes:
            match = re.fullmatch(pattern, self.route)
            if match and re.fullmatch(method, self.command):
                found = {key: unquote(value) if value else value for key, value in match.groupdict().items()}
                if "kind" in found:
                    found["kind"] = found["kind"] or "models"
                result = function(**found)
                return result if isinstance(result, tuple) else (200, json.dumps(result).encode(), {})
        raise Refusal(404, f"The stand-in knows no {self.command} {self.route}", None)

    def whoami(self) -> Any:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.", None)
        return self.user

    def validate(self) -> Any:
        """What the Hub is known to refuse: metadata that are no mapping, or entries of another type or unknown."""
        asked = json.loads(self.body)
        errors: list[str] = []
        match = re.match(r"\s*---\n(.*?)\n---\n", asked["content"], re.DOTALL)
        data = yaml.safe_load(match.group(1)) if match else None
        if not isinstance(data, dict):
            errors.append("metadata is missing or no mapping")
            data = {}
        if data.get("license") not in LICENSES:
            errors.append('"license" must be one of the known ones')
        for key in ("tags", "datasets"):
            if not all(isinstance(item, str) for item in data.get(key, [])) or not isinstance(data.get(key, []), list):
                errors.append(f'"{key}" must be a list of strings')
        if asked["repoType"] == "model":
            if data.get("pipeline_tag") not in TASKS:
                errors.append('"pipeline_tag" is unknown')
            for model in data.get("model-index", []):
                for result in model["results"]:
                    wanted = {"task": ("type",), "dataset": ("type", "name")}
                    for part, keys in wanted.items():
                        if not all(isinstance(result.get(part, {}).get(key), str) for key in keys):
                            errors.append(f'"model-index[0].results.{part}" lacks one of {keys}')
                    for metric in result["metrics"]:
                        if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), (int, float)):
                            errors.append('"model-index[0].results.metrics" must have type and value')
        elif data.get("sdk") not in {"gradio", "docker", "static"} or not isinstance(data.get("title"), str):
            errors.append('"sdk" and "title" are required of a Space')
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        return (400 if errors else 200), json.dumps(answer).encode(), {}

    def create(self) -> Any:
        asked = json.loads(self.body)
        if self.user is None:
            raise Refusal(401, "Invalid username or password.", None)
        owner = asked.get("organization") or self.user["name"]
        if not self.may_write(owner):
            raise Refusal(403, "You don't have the rights to create a repository under this namespace", None)
        kind, repo_id = asked.get("type", "model") + "s", f"{owner}/{asked['name']}"
        url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if (kind, repo_id) in self.hub.repos:
            answer = {"error": "You already created this repository", "url": url}
            return 409, json.dumps(answer).encode(), {}
        repo = Repo(private=asked.get("visibility") == "private", sdk=asked.get("sdk"))
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in sorted(LARGE))
        repo.commit({".gitattributes": File(attributes.encode(), False)}, "initial commit")
        self.hub.repos[kind, repo_id] = repo
        return {"url": url}

    def info(self, kind: str, repo_id: str, revision: str | None) -> Any:
        repo = self.repo(kind, repo_id)
        oid = repo.resolve(revision or "main")
        siblings = [{"rfilename": path} for path in repo.commits[oid]]
        return {"id": repo_id, "sha": oid, "private": repo.private, "siblings": siblings, "tags": []}

    def auth_check(self, kind: str, repo_id: str, write: str | None) -> Any:
        self.repo(kind, repo_id, write=write is not None)
        return {}

    def refs(self, kind: str, repo_id: str) -> Any:
        repo = self.repo(kind, repo_id)

        def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{prefix}/{n}", "targetCommit": oid} for n, oid in names.items()]

        return {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}

    def tree(self, kind: str, repo_id: str, revision: str) -> Any:
        repo = self.repo(kind, repo_id)
        entries = []
        files = repo.commits[repo.resolve(revision)]
        for folder in {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}:
            entries.append({"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
        for path, file in files.items():
            entry = {"type": "file", "path": path, "oid": file.blob_id, "size": len(file.content)}
            if file.large:
                entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def branch(self, kind: str, repo_id: str, name: str) -> Any:
        repo = self.repo(kind, repo_id, write=True)
        if name in repo.branches:
            raise Refusal(409, f"Reference already exists: {name}", None)
        repo.branches[name] = repo.resolve((json.loads(self.body) or {}).get("startingPoint", "main"))
        return {}

    def tag(self, kind: str, repo_id: str, revision: str) -> Any:
        repo, name = self.repo(kind, repo_id, write=True), json.loads(self.body)["tag"]
        if name in repo.tags:
            raise Refusal(409, f"Tag reference exists already: {name}", None)
        repo.tags[name] = repo.resolve(revision)
        return {}

    def preupload(self, kind: str, repo_id: str, revision: str) -> Any:
        repo = self.repo(kind, repo_id, write=True)
        there = repo.commits[repo.resolve(revision)]
        files = []
        for asked in json.loads(self.body)["files"]:
            path, old = asked["path"], there.get(asked["path"])
            mode = "lfs" if PurePosixPath(path).suffix in LARGE else "regular"
            answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if old is not None:
                answer["oid"] = old.sha256 if old.large else old.blob_id
            files.append(answer)
        return {"files": files}

    def batch(self, kind: str, repo_id: str) -> Any:
        self.repo(kind, repo_id, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def put_object(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content does not match its sha256", None)
        self.hub.objects[oid] = self.body
        return {}

    def commit(self, kind: str, repo_id: str, revision: str) -> Any:
        repo = self.repo(kind, repo_id, write=True)
        files, message = dict(repo.commits[repo.resolve(revision)]), ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refusal(400, f"{value['path']}: its LFS object was never uploaded", None)
                files[value["path"]] = File(self.hub.objects[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise Refusal(400, f"The stand-in knows no operation {key}", None)
        oid = repo.commit(files, message, revision)
        url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    def resolve(self, kind: str, repo_id: str, revision: str, path: str) -> Any:
        repo = self.repo(kind, repo_id)
        oid = repo.resolve(revision)
        file = repo.commits[oid].get(path)
        if file is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{file.sha256 if file.large else file.blob_id}"'}
        if file.large:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(file.content))}
        return 200, file.content, headers | {"Content-Type": "application/octet-stream"}
