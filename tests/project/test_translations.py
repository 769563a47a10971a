"""The Persian editions of the notebooks: the same code and outputs, every word translated, none outdated."""

from __future__ import annotations

import re

import nbformat
import pytest
from conftest import ROOT
from nbformat import NotebookNode
from project.translate_notebooks import main, mark_of, right_to_left, translated

from triptych.errors import UserError
from triptych.publishing.address import repository_address

NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def load(name: str) -> NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def words(notebook: NotebookNode) -> list[str]:
    """The Markdown cells but the badge."""
    return [c.source for c in notebook.cells if c.cell_type == "markdown" and "badge" not in c.metadata.get("tags", [])]


@pytest.fixture
def folder(tmp_path):
    """A folder with one lesson and its translation."""
    cells = [
        nbformat.v4.new_markdown_cell("# A lesson\n\n$$a = b$$", id="title"),
        nbformat.v4.new_code_cell("print(1)", id="one"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "lesson.ipynb")
    (tmp_path / "fa").mkdir()
    (tmp_path / "fa/lesson.md").write_text(f"<!-- title {mark_of(cells[0].source)} -->\n# یک درس\n\n$$a = b$$\n")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_the_edition_is_what_the_command_writes(name):
    """No cell without its translation, none that is outdated; code and outputs to the last byte."""
    edition = load(f"fa/{name}")
    assert edition == translated(load(name), NOTEBOOKS / f"fa/{name}.md")
    code, theirs = ([cell for cell in load(n).cells if cell.cell_type == "code"] for n in (name, f"fa/{name}"))
    assert code == theirs
    owner = repository_address().removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/fa/{name}.ipynb"
    assert target in edition.cells[0].source and target in (ROOT / "docs/notebooks.md").read_text()


def test_there_are_as_many_editions_as_lessons():
    assert sorted(path.stem for path in (NOTEBOOKS / "fa").glob("*.ipynb")) == NAMES
    assert sorted(path.stem for path in (NOTEBOOKS / "fa").glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_persian_words_around_the_same_formulas(name):
    english, persian = load(name), load(f"fa/{name}")
    for ours, theirs in zip(words(english), words(persian), strict=True):
        letters = len(re.findall("[آ-ی]", theirs))
        assert letters > 0.25 * len(re.sub(r"\$.*?\$|`.*?`|\(.*?\)", "", ours, flags=re.DOTALL)), theirs
        found = [[text.strip(" .,;") for text in DISPLAYED.findall(source)] for source in (ours, theirs)]
        assert found[0] == found[1]
        assert FENCED.findall(ours) == FENCED.findall(theirs)
        assert ours.count("## ") == theirs.count("## ")
        assert not re.search("[يكة٠-٩]", theirs), "Arabic letters or digits"


@pytest.mark.parametrize("name", [*NAMES, *(f"fa/{name}" for name in NAMES)])
def test_links_lead_somewhere(name):
    for source in words(load(name)):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", source):
            assert (NOTEBOOKS / name).parent.joinpath(target).exists(), target


def test_from_right_to_left_but_for_formulas_and_code():
    text = "# سلام\n\nکد `--flag x` و Solver++ اینجا.\n\n$$a = b$$\n\n| الف | ب |\n|---|---|\n\n```bash\nls\n```\n"
    parts = re.findall(r'<div dir="(\w+)">\n\n(.*?)\n\n</div>', right_to_left(text), re.DOTALL)
    assert [direction for direction, _ in parts] == ["rtl", "ltr", "rtl", "ltr"]
    assert parts[0][1] == '# سلام\n\nکد <span dir="ltr">`--flag x`</span> و <span dir="ltr">Solver++</span> اینجا.'
    assert parts[1][1] == "$$a = b$$" and parts[3][1] == "```bash\nls\n```"


def test_the_command_writes_editions(folder):
    main(folder)
    edition = nbformat.read(folder / "fa/lesson.ipynb", as_version=4)
    assert "یک درس" in edition.cells[0].source and edition.cells[1].source == "print(1)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells[0].update(source="# Another lesson"), "cell title was translated from another"),
        (lambda cells: cells.append(nbformat.v4.new_markdown_cell("more", id="more")), "more has no translation"),
        (lambda cells: cells.pop(0), "no Markdown cell title any more"),
    ],
)
def test_a_translation_that_is_outdated_missing_or_left_over_is_named(change, message, folder):
    notebook = nbformat.read(folder / "lesson.ipynb", as_version=4)
    change(notebook.cells)
    changed = notebook.cells[0].source
    nbformat.write(notebook, folder / "lesson.ipynb")
    with pytest.raises(UserError, match=message):
        main(folder)
    assert not (folder / "fa/lesson.ipynb").exists()
    if "another" in message:  # the mark it asks for is the right one
        with pytest.raises(UserError, match=mark_of(changed)):
            main(folder)


def test_a_lesson_without_persian_words_is_named(folder):
    (folder / "fa/lesson.md").unlink()
    with pytest.raises(UserError, match="does not exist"):
        main(folder)
