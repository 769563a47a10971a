"""Measurements as rows of a JSON lines file: what has been measured is found again, so a study can be interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Rows:
    """Rows in the order they were measured.

    A row is a dict; the entries that say what was measured, and how, are its key. Nothing is ever removed: where two
    rows have the same key the later one counts.

    Args:
        path: the file; made, with its folder, when the first row is added.
    """

    def __init__(self, path: Path):
        self.path = path
        text = path.read_text() if path.exists() else ""
        # A process killed while it wrote leaves half a line; that row is measured again.
        self._rows: list[dict[str, Any]] = [json.loads(line) for line in text.split("\n")[:-1]]
        self._torn = bool(text) and not text.endswith("\n")

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The newest row that has these entries."""
        return next(reversed(self.find_all(**key)), None)

    def find_all(self, **key: Any) -> list[dict[str, Any]]:
        """All rows that have these entries, in the order they were measured."""
        return [row for row in self._rows if all(row.get(k) == v for k, v in key.items())]

    def add(self, row: dict[str, Any]) -> None:
        """Append `row`, at once on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._torn:
            self.path.write_text("".join(json.dumps(row) + "\n" for row in self._rows))
            self._torn = False
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._rows.append(row)
