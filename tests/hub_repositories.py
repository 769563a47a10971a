"""What the stand-in Hub keeps, repositories with branches, tags and commits of files, and what it takes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

LARGE = {".safetensors", ".png"}  # kept as LFS objects, as the Hub's .gitattributes say
TASKS = {"unconditional-image-generation", "image-to-image", "image-classification"}
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "openrail", "other"}


class Refusal(Exception):
    """An answer that is no success: (status, message, the Hub's error code)."""


@dataclass(frozen=True)
class File:
    """A file of a commit: its content, and whether it is an LFS object."""

    content: bytes
    large: bool

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Repo:
    """A repository: commits by id, each a dict of files, and the names of some."""

    private: bool
    sdk: str | None = None
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, File], message: str, branch: str = "main") -> str:
        told = json.dumps([len(self.commits), message, {path: file.sha256 for path, file in files.items()}])
        oid = hashlib.sha1(told.encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.branches[branch] = files, message, oid
        return oid

    def resolve(self, revision: str) -> str:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid
