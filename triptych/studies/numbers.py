"""Numbers of the records, as the documents show them: tables and sentences are templates, filled from records/.

A template is Jinja's; docs/numbers.yaml says how it is written, and what it finds in the records.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from textwrap import shorten
from typing import Any

import jinja2
import yaml

from triptych.errors import UserError
from triptych.evaluation.statistics import binomial_interval
from triptych.figures.tables import markdown
from triptych.jsonl import read_rows
from triptych.studies.records import made_by

Row = Mapping[str, Any]
COMPARABLE = ("data", "split", "judge")  # in these the rows of one table agree, unless one is its key


class Numbers:
    """Renders templates and tables from the records in a folder.

    Args:
        folder: the records' folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        # a name that isn't there is an error, never an empty cell
        self.environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        self.environment.filters |= {f.__name__: f for f in (fixed, interval, percent, over, mean, median)}
        self.environment.globals |= {f.__name__: f for f in (self.row, self.rows, self.record, self.found, the)}
        self.environment.globals["binomial"] = binomial_interval
        self._known: dict[str, list[tuple[Path, Any]]] = {}

    def rows(self, files: str, **where: Any) -> list[Row]:
        """The rows of all `files` (a pattern, within the records) that have these entries, in their order.

        A file of JSON is one row, and so is every line of JSON lines and every line of a table in Markdown; ``folder``
        is the name of the folder that the file lies in.

        Raises:
            UserError: there is no such file, or no such row.
        """
        found: list[Row] = []
        for path, content in self._contents(files):
            for row in content if isinstance(content, list) else [content]:
                found.append({"folder": path.parent.name, **row})
        found = [row for row in found if all(key in row and row[key] == value for key, value in where.items())]
        if not found:
            raise UserError(f"{self.folder / files}: no row has {_listed(where)}.")
        return found

    def row(self, files: str, **where: Any) -> Row:
        """The row that was measured last of those that :meth:`rows` gives."""
        return self.rows(files, **where)[-1]

    def record(self, file: str) -> Any:
        """What a file of JSON or YAML holds."""
        ((_, content),) = self._contents(file)
        return content

    def found(self, file: str, pattern: str) -> list[str]:
        """What the group of a regular expression stands for, wherever it fits in the text of `file`.

        Raises:
            UserError: there is no such file, or it fits nowhere.
        """
        (path,) = self._paths(file)
        fits = re.findall(pattern, path.read_text("utf-8"))
        if not fits:
            raise UserError(f"{path}: nothing there fits {pattern!r}.")
        return fits

    def text(self, template: str, values: Row | None = None) -> str:
        """A template, filled in, on one line.

        Raises:
            UserError: it names what is not there, or is no template.
        """
        try:
            return " ".join(self.environment.from_string(template).render(values or {}).split())
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"{shorten(template, 120)!r} can't be filled in: {error}.") from None

    def table(self, table: Mapping[str, Any]) -> str:
        """A table in Markdown as its entry in docs/numbers.yaml describes it, no newline at the end.

        Raises:
            UserError: the entry is none of the four kinds, or asks for what the records don't hold.
        """
        kinds: dict[frozenset, Callable[..., str]] = {
            frozenset({"rows", "columns"}): self._by_columns,
            frozenset({"rows", "cell"}): self._by_two_keys,
            frozenset({"head", "lines"}): self._cell_by_cell,
            frozenset({"of", "number"}): self._as_written,
        }
        if frozenset(table) not in kinds:
            kind = "; ".join(" and ".join(sorted(keys, reverse=True)) for keys in kinds)
            raise UserError(f"it has {_listed(table)}; a table has {kind}.")
        return kinds[frozenset(table)](**table)

    def _by_columns(self, rows: Mapping[str, Any] | list[Row], columns: Mapping[str, str]) -> str:
        """A line for each row of the records, or for each that is listed."""
        chosen = rows if isinstance(rows, list) else self._chosen(rows)
        lines = ([self.text(cell, {**row, "this": row}) for cell in columns.values()] for row in chosen)
        return markdown(columns, lines)

    def _by_two_keys(self, rows: Mapping[str, Any], cell: str) -> str:
        """The first key goes down, the second across; a pair that has no row is left empty."""
        chosen = self._chosen(rows)
        if isinstance(rows["key"], str) or len(rows["key"]) != 2:
            raise UserError(f"its key is {rows['key']!r}; with a cell it has two, of what goes down and across.")
        across = rows["key"][1]
        cells = {(row["label"], row[across]): self.text(cell, {**row, "this": row}) for row in chosen}
        titles = sorted({row[across] for row in chosen})
        labels = dict.fromkeys(row["label"] for row in chosen)
        return markdown(["", *titles], ([label, *(cells.get((label, t), "") for t in titles)] for label in labels))

    def _cell_by_cell(self, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
        return markdown(head, ([self.text(cell) for cell in line] for line in lines))

    def _as_written(self, of: str, number: int) -> str:
        """One of the tables in a record's Markdown, the first being 1."""
        (path,) = self._paths(of)
        tables = [block for block in re.split(r"\n{2,}", path.read_text("utf-8").strip()) if block.startswith("|")]
        if not 1 <= number <= len(tables):
            raise UserError(f"{self.folder / of}: it has {len(tables)} tables, and none is number {number}.")
        return tables[number - 1]

    def _chosen(self, wanted: Mapping[str, Any]) -> list[Row]:
        """The row that was measured last for each ``key``, with its ``label``; those ``shown``, in that order."""
        if not {"of", "key"} <= wanted.keys() <= {"of", "key", "where", "shown"}:
            raise UserError(f"its rows have {', '.join(wanted)}; they have of and key, and may have where and shown.")
        of, keys = wanted["of"], [wanted["key"]] if isinstance(wanted["key"], str) else wanted["key"]
        newest = {tuple(_entry(row, k) for k in keys): row for row in self.rows(of, **wanted.get("where", {}))}
        for field in COMPARABLE:
            several = {row[field] for row in newest.values() if field in row}
            if len(several) > 1 and field not in keys:
                raise UserError(
                    f"{self.folder / of}: its rows differ in {field} ({', '.join(sorted(several))}), which where "
                    f"must choose from: they can't be compared."
                )
        shown = wanted.get("shown") or {first: first for first, *_ in newest}
        if missing := [value for value in shown if value not in {first for first, *_ in newest}]:
            raise UserError(f"{self.folder / of}: no row has {keys[0]} {_listed(missing)}.")
        return [
            {**row, "label": label}
            for value, label in shown.items()
            for have, row in newest.items()
            if have[0] == value
        ]

    def _contents(self, files: str) -> list[tuple[Path, Any]]:
        if files not in self._known:
            self._known[files] = [(path, _read(path)) for path in self._paths(files)]
        return self._known[files]

    def _paths(self, files: str) -> list[Path]:
        paths = sorted(self.folder.glob(files))
        if not paths:
            raise UserError(f"{self.folder / files} is not there. It is made by: {made_by(Path(files))}")
        return paths


def fixed(value: float, digits: int = 0, scale: float = 1) -> str:
    """`scale` times `value` with so many digits, halves away from zero as people round: "1,234.50"."""
    rounded = (Decimal(repr(value)) * Decimal(repr(scale))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded + 0:,}"  # + 0: no -0.0


def interval(row: Row, key: str, digits: int) -> str:
    """A score of `row`, with half its interval where it has one: "29.13 ± 0.06"."""
    return _with_half(_entry(row, key), row.get(f"{key}_interval"), digits)


def percent(row: Row, key: str, digits: int) -> str:
    """The same of a share, in percent: "96.3 ± 0.8 %"."""
    return _with_half(_entry(row, key), row.get(f"{key}_interval"), digits, 100) + " %"


def over(rows: Sequence[Row], key: str, digits: int) -> str:
    """Mean ± standard deviation over several runs."""
    values = [_entry(row, key) for row in rows]
    return _with_half(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, digits)


def mean(rows: Iterable[Row], key: str) -> float:
    """Of one entry of all rows."""
    return statistics.mean(_entry(row, key) for row in rows)


def median(rows: Iterable[Row], key: str) -> float:
    """Of one entry of all rows."""
    return statistics.median(_entry(row, key) for row in rows)


def the(rows: Iterable[Row], key: str, digits: int | None = None) -> Any:
    """The one value that an entry has in all rows, rounded to `digits` if they are given.

    Raises:
        UserError: it has several.
    """
    values = {_entry(row, key) if digits is None else fixed(_entry(row, key), digits) for row in rows}
    if len(values) != 1:
        raise UserError(f"the rows have several values of {key!r}: {_listed(sorted(values))}.")
    return values.pop()


def _with_half(value: float, half: float | None, digits: int, scale: int = 1) -> str:
    """With as many more digits as `half` needs to be no zero."""
    if half is None:
        return fixed(value, digits, scale)
    while half > 0 and not float(fixed(half, digits, scale)):
        digits += 1
    return f"{fixed(value, digits, scale)} ± {fixed(half, digits, scale)}"


def _entry(row: Row, key: str) -> float:
    if key not in row:
        raise UserError(f"a row has no {key!r}; it has {_listed(row)}.")
    return row[key]


def _read(path: Path) -> Any:
    if path.suffix == ".jsonl":
        return read_rows(path)
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return list(_rows_of_tables(text))
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def _rows_of_tables(text: str) -> Iterator[Row]:
    """The lines of all tables in Markdown, with the ``heading`` that they stand under."""
    heading, head = "", None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            head = None
        elif head is None:
            head = cells
        elif not line.startswith("|-"):
            yield {"heading": heading, **dict(zip(head, cells, strict=True))}


def _listed(entries: Any) -> str:
    if isinstance(entries, Mapping) and all(isinstance(value, (str, int, float)) for value in entries.values()):
        entries = [f"{key} {value!r}" for key, value in entries.items()] or ["anything"]
    return ", ".join(map(str, entries)) or "nothing"
