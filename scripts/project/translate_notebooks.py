"""Write the Persian editions of the notebooks: their code and what it gave, around the words of notebooks/fa/*.md.

    python scripts/project/translate_notebooks.py     # after run_notebooks.py; executes nothing

notebooks/fa/NAME.md translates each Markdown cell of notebooks/NAME.ipynb. Above a translation stand the cell's id and
a mark of the English text it was made from, `<!-- elbo 1a2b3c4d -->`: where that text has changed, the command stops
and says so, until somebody has looked at the translation again and written the new mark.
"""

from __future__ import annotations

from triptych.cli import command

import hashlib
import re
from pathlib import Path

import nbformat

from triptych.errors import UserError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
HEAD = re.compile(r"^<!-- ([\w-]+) ([0-9a-f]{8}) -->\n", re.MULTILINE)
LEFT_TO_RIGHT = re.compile(r"(```.*?^```$|^\$\$.*?\$\$[.,;:؛،]?$|^<!--.*?-->$)", re.MULTILINE | re.DOTALL)
# code, and a name whose signs would wander to its other side: DPM-Solver++
LATIN = re.compile(r"((?<!`)`[^`\n]+`(?!`)|[A-Za-z][\w-]*\+\+)")


def main(folder: Path = NOTEBOOKS) -> None:
    """Write the Persian editions.

    Args:
        folder: of the English notebooks; the Persian texts and editions lie in fa/ inside.
    """
    for path in sorted(folder.glob("*.ipynb")):
        notebook = translated(nbformat.read(path, as_version=4), folder / "fa" / f"{path.stem}.md")
        target = folder / "fa" / path.name
        partial = target.with_suffix(".partial")
        nbformat.write(notebook, partial)
        partial.replace(target)
        print(target)


def translated(notebook: nbformat.NotebookNode, texts: Path) -> nbformat.NotebookNode:
    """The notebook with the words of `texts`.

    Raises:
        UserError: there are none, a cell has no translation or an outdated one, or a translation has no cell.
    """
    if not texts.is_file():
        raise UserError(f"{texts} does not exist: it is to hold the Persian words of the notebook.")
    parts = HEAD.split(texts.read_text("utf-8"))[1:]
    words = {cell: (mark, text.strip()) for cell, mark, text in zip(*[iter(parts)] * 3, strict=True)}
    for cell in notebook.cells:
        if "badge" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace("/notebooks/", "/notebooks/fa/")
        elif cell.cell_type == "markdown":
            mark, text = words.pop(cell.id, (None, ""))
            if mark != mark_of(cell.source):
                what = "has no translation" if mark is None else "was translated from another text"
                raise UserError(
                    f"{texts}: cell {cell.id} {what}. Translate it, and write above the translation: "
                    f"<!-- {cell.id} {mark_of(cell.source)} -->"
                )
            cell.source = right_to_left(text)
    if words:
        raise UserError(f"{texts}: there is no Markdown cell {', '.join(words)} any more.")
    return notebook


def mark_of(text: str) -> str:
    """What tells one text from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def right_to_left(text: str) -> str:
    """Persian Markdown as Jupyter, Colab and GitHub show it from right to left, but for formulas of their own and code.

    The blank lines are needed: what follows an HTML tag without one is not read as Markdown.
    """
    parts = []
    for number, part in enumerate(LEFT_TO_RIGHT.split(text)):
        if part.strip():
            words = part.strip() if number % 2 else LATIN.sub(r'<span dir="ltr">\1</span>', part.strip())
            parts.append(f'<div dir="{("rtl", "ltr")[number % 2]}">\n\n{words}\n\n</div>')
    return "\n\n".join(parts)


if __name__ == "__main__":
    command(main)
