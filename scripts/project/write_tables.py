"""Write the tables of the README and of docs/ from records/, and hold the sentences there that state numbers to them.

    python scripts/project/write_tables.py

docs/numbers.yaml says what stands in each table and each sentence, and where it comes from. A table is replaced between
the two marks <!-- table: NAME --> and <!-- end -->, each on a line of its own; what is outside stays as it is. A
sentence is looked for: one that says something else than the records is named, and not changed.
"""

from __future__ import annotations

from triptych.cli import command

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from triptych.errors import UserError
from triptych.paths import project_path
from triptych.studies.numbers import Numbers

BEGIN, END = re.compile(r"<!-- table: (.*) -->"), "<!-- end -->"
PROJECT = project_path()


def main(folder: Path = PROJECT) -> None:
    """Write the tables, look for the sentences.

    Args:
        folder: of the project, with README.md, docs/ and records/.
    """
    settings = folder / "docs" / "numbers.yaml"
    entries = read(settings)
    numbers = Numbers(folder / "records")
    paths = [folder / "README.md", *sorted((folder / "docs").glob("*.md"))]
    before = {path: path.read_bytes().decode("utf-8") for path in paths}  # line ends stay as they are
    shown: set[str] = set()
    after = {path: with_tables(path, text, entries["tables"], numbers, shown) for path, text in before.items()}
    if left_out := entries["tables"].keys() - shown:
        raise UserError(f"{settings}: no document shows {', '.join(sorted(left_out))}: mark the place, or remove it.")
    for path, text in after.items():
        if text != before[path]:
            path.write_bytes(text.encode("utf-8"))
            print(f"{path}: written")
    wrong = [
        said
        for name, sentences in entries["sentences"].items()
        for said in not_said(settings, folder / name, sentences, numbers)
    ]
    if wrong:
        raise UserError(" ".join(wrong))
    print(f"{len(shown)} tables and {sum(map(len, entries['sentences'].values()))} sentences are those of the records.")


def read(settings: Path) -> dict[str, Any]:
    """The entries of docs/numbers.yaml: ``tables`` by name, and ``sentences`` by document."""
    if not settings.is_file():
        raise UserError(f"{settings} is not there; --folder must name a clone of the repository.")
    try:
        entries = yaml.safe_load(settings.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{settings} can't be read: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, dict) or entries.keys() != {"tables", "sentences"} or not all(entries.values()):
        raise UserError(f"{settings} must have tables and sentences, and nothing else.")
    return entries


def with_tables(path: Path, text: str, tables: dict[str, Any], numbers: Numbers, shown: set[str]) -> str:
    """The `text` of the document `path`, with its tables as the records have them; their names are added to `shown`."""
    kept: list[str] = []
    begun = ""  # the line that began the table which the lines belong to
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        mark, where = line.strip(), f"{path}, line {number}"
        ending = line[len(line.rstrip("\r\n")) :]
        if found := BEGIN.fullmatch(mark):
            if begun:
                raise UserError(f"{begun} is not closed before {where}: a line {END!r} is missing.")
            begun, name = f"{where}: table {found[1]!r}", found[1]
            if name not in tables:
                raise UserError(f"{begun} is not in docs/numbers.yaml.{nearest(name, tables)}")
            shown.add(name)
            try:
                table = numbers.table(tables[name])
            except UserError as error:
                raise UserError(f"{begun}: {error}") from None
            kept += [line, *(f"{row}{ending}" for row in table.splitlines())]
        elif mark == END:
            if not begun:
                raise UserError(f"{where}: {END!r} closes no table.")
            begun = ""
            kept.append(line)
        elif not begun:
            kept.append(line)
    if begun:
        raise UserError(f"{begun} is not closed: a line {END!r} is missing.")
    return "".join(kept)


def nearest(name: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {close[0]}?" if close else ""


def not_said(settings: Path, path: Path, sentences: list[str], numbers: Numbers) -> list[str]:
    """What the document `path` should say by the records, and doesn't."""
    if not path.is_file():
        raise UserError(f"{settings}: {path} is not there.")
    text = " ".join(path.read_text("utf-8").split())
    missing = []
    for number, sentence in enumerate(sentences, start=1):
        try:
            said = numbers.text(sentence)
        except UserError as error:
            raise UserError(f"{settings}: sentence {number} of {path.name}: {error}") from None
        if said not in text:
            missing.append(
                f"{path} should say {said!r}, and says {most_alike(said, text)!r}: the numbers are the records', "
                f"the words those of {settings.name}; change what is wrong."
            )
    return missing


def most_alike(said: str, text: str) -> str:
    """The part of `text` that is most like what should be said, by its words."""
    words, wanted = text.split(), said.split()
    starts = range(max(1, len(words) - len(wanted) + 1))
    best = max(starts, key=lambda k: sum(a == b for a, b in zip(words[k:], wanted, strict=False)))
    return " ".join(words[best : best + len(wanted)])


if __name__ == "__main__":
    command(main)
