"""Tables in Markdown, and scores in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from triptych.measures import MEASURES


def markdown(titles: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table with a heading: one title a column, and rows of as many cells; no newline at the end."""
    titles = list(titles)
    lines = [_line(titles), "|---" * len(titles) + "|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def with_interval(row: Mapping[str, Any], key: str, digits: int | None = None) -> str:
    """A score with half its interval where it has one, "3.82 ± 0.30"; `digits` are its measure's if not given."""
    digits = MEASURES[key].digits if digits is None else digits
    interval = row.get(f"{key}_interval")
    return f"{row[key]:.{digits}f}" + (f" ± {interval:.{digits}f}" if interval is not None else "")


def percent_with_interval(share: float, half: float) -> str:
    """A share in [0, 1] and half its interval as "85.3 ± 0.1 %"; to three digits where the interval is that small."""
    digits = next((digits for digits in (1, 2) if 100 * half >= 0.5 * 10**-digits or not half), 3)
    return f"{100 * share:.{digits}f} ± {100 * half:.{digits}f} %"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
