"""What finished studies leave behind, and what the report is built from: small files, copied as they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from triptych.errors import UserError
from triptych.paths import project_path


@dataclass(frozen=True)
class Study:
    """A run or a study whose results are kept.

    Attributes:
        command: what makes it, said where a file of it is missing.
        files: patterns of what is kept, within its folder.
    """

    command: str
    files: tuple[str, ...]


@cache
def known_studies() -> dict[str, Study]:
    """By folder, in runs/ as in records/: what ``studies.yaml`` lists, in its order.

    Raises:
        UserError: the file isn't there, as in an installed copy, or an entry lacks its command or its files.
    """
    path = project_path("studies.yaml")
    if not path.exists():
        raise UserError(f"{path} is not there: records are kept in a clone of the repository.")
    entries = yaml.safe_load(path.read_text())
    for name, entry in entries.items():
        if set(entry) != {"command", "files"} or not all(entry.values()):
            raise UserError(f"{path}: {name} must have a command and files, and nothing else.")
    return {name: Study(entry["command"], tuple(entry["files"])) for name, entry in entries.items()}


def collect(study: str, source: Path, target: Path) -> list[Path]:
    """Copy what `study` keeps from its folder `source` into ``target/<study>``; returns the copies.

    Files that are not there are passed over: whoever needs them says so (:func:`made_by`). The study is entered in
    ``target/studies.json``: of what is listed there the report shows what it has a section for, and insists on it.
    """
    copies = []
    for pattern in known_studies()[study].files:
        for path in sorted(source.glob(pattern)):
            copy = target / study / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copies.append(copy)
    index = target / "studies.json"
    known = json.loads(index.read_text()) if index.exists() else []
    target.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps([name for name in known_studies() if name in {*known, study}], indent=2) + "\n")
    return copies


def made_by(path: Path) -> str:
    """The command that makes the study which the record `path`, relative to the records' folder, belongs to."""
    found = known_studies().get(path.parts[0])
    return found.command if found else "no command we know"
