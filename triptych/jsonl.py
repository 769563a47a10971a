"""Measurements as rows of a JSON lines file: what has been measured is found again, so a study can be interrupted."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from triptych.errors import UserError


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file, none if it isn't there; half a line at its end is passed over.

    Raises:
        UserError: it is no file of JSON lines.
    """
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows, and whether the last line is a whole one."""
    try:
        text = path.read_text() if path.exists() else ""
    except ValueError:
        raise UserError(f"{path} is no text, so no rows can be read from it. Put it back from a copy.") from None
    *lines, last = text.split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict):
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}, line {number}, is no row ({line[:40]!r}). Remove that line, or put the file back from a copy."
            ) from None
    with suppress(ValueError):  # nothing, or half a line: a process is writing it, or was killed while it did
        row = json.loads(last)
        rows += [row] if isinstance(row, dict) else []
    return rows, not last


class Rows:
    """Rows in the order they were measured.

    A row is a dict; the entries that say what was measured, and how, are its key. Nothing is ever removed: where two
    rows have the same key the later one counts.

    Args:
        path: the file; made, with its folder, when the first row is added.
    """

    def __init__(self, path: Path):
        self.path = path
        self._rows, whole = _parse(path)  # a row that was not written whole is measured again
        self._torn = not whole

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
