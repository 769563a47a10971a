"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def markdown(titles: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table with a heading: one title a column, and rows of as many cells; no newline at the end."""
    titles = list(titles)
    lines = [_line(titles), "|---" * len(titles) + "|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
