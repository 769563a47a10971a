"""A Hub on loopback for the tests: what huggingface_hub asks of the real one, answered from memory.

It speaks the Hub's HTTP: users and their tokens, repositories with branches, tags and commits, LFS uploads, metadata
validation, resolving files. Xet, which the client would use instead of LFS, is switched off in the client
(HF_HUB_DISABLE_XET). No product code knows of it.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from copy import deepcopy
from http.server import ThreadingHTTPServer
from typing import Any

from hub_repositories import Repo
from hub_requests import Handler


class StandInHub:
    """Users, repositories and what has been asked; ``with StandInHub() as hub`` serves at ``hub.endpoint``.

    Attributes:
        users: by token, what ``whoami`` answers.
        repos: by type ("models", "spaces") and id.
        asked: method and path of every request, with the status it got.
        faults: for each kind of request ("PUT /lfs"), how many of the next ones lose their connection half-way.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Be as at the beginning, at the same address."""
        self.users: dict[str, dict[str, Any]] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.faults: Counter[str] = Counter()

    def __enter__(self) -> StandInHub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add_user(self, name: str, token: str, role: str = "write", orgs: tuple[str, ...] = (), **more: Any) -> None:
        self.users[token] = {
            "type": "user",
            "name": name,
            "orgs": [{"type": "org", "name": org, "roleInOrg": "write"} for org in orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": f"{name}'s", "role": role, **more}},
        }

    def files(self, repo_id: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        repo = self.repos[kind, repo_id]
        files = repo.commits[repo.resolve(revision)]
        return {path: file.content for path, file in files.items() if path != ".gitattributes"}

    def copy(self, kind: str, repo_id: str, new_id: str) -> Repo:
        self.repos[kind, new_id] = deepcopy(self.repos[kind, repo_id])
        return self.repos[kind, new_id]

    def count(self, method: str, pattern: str) -> int:
        return sum(m == method and bool(re.search(pattern, path)) for m, path, _ in self.asked)
