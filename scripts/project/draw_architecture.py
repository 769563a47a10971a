"""Draw which room of the house imports which, from the imports themselves, into docs/architecture.md.

    python scripts/project/draw_architecture.py

What stands between the two marks of that page is replaced: a drawing that GitHub renders (Mermaid), and a line for each
room and its modules, in the words of their own docstrings. Needs the extra: pip install -e '.[dev]'
"""

from __future__ import annotations

from triptych.cli import command

import ast
from pathlib import Path
from textwrap import fill

import grimp

from triptych.errors import UserError
from triptych.paths import project_path

BEGIN, END = "<!-- drawn by scripts/project/draw_architecture.py -->", "<!-- end of the drawing -->"
GROUND = "the ground floor"
PAGE = project_path("docs", "architecture.md")


def main(page: Path = PAGE) -> None:
    """Draw the rooms.

    Args:
        page: the document whose drawing is replaced.
    """
    text = page.read_text("utf-8") if page.is_file() else ""
    above, begun, rest = text.partition(f"{BEGIN}\n")
    _, ended, below = rest.partition(END)
    if not (begun and ended):
        raise UserError(f"{page} does not hold the lines {BEGIN!r} and {END!r}, between which the drawing goes.")
    page.write_text(f"{above}{BEGIN}\n{drawing()}\n{END}{below}", "utf-8")
    print(page)


def drawing() -> str:
    """The Mermaid drawing and the list of rooms, as Markdown."""
    arrows = imports_of_rooms()
    shown = [f"    {name_of(a)} --> {name_of(b)}" for a in arrows for b in sorted(nearest(a, arrows))]
    nodes = [f'    {name_of(room)}["{room}"]' for room in arrows]
    return "\n".join(["```mermaid", "flowchart TD", *nodes, *shown, "```", "", *rooms_in_words()])


def imports_of_rooms() -> dict[str, set[str]]:
    """Which room imports which, from the top down; modules that stand alone in triptych/ are one room."""
    graph = grimp.build_graph("triptych", "models", cache_dir=None)
    arrows: dict[str, set[str]] = {}
    for module in graph.modules - {"triptych"}:
        theirs = map(room_of, graph.find_modules_directly_imported_by(module))
        arrows.setdefault(room_of(module), set()).update(theirs)
    arrows["scripts"] = {
        room_of(node.module)
        for path in project_path("scripts").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ("triptych", "models")
    }
    arrows = {room: sorted(theirs - {room}) for room, theirs in arrows.items()}
    below = {room: len(reached(room, arrows)) for room in arrows}
    return {room: set(arrows[room]) for room in sorted(arrows, key=lambda room: (-below[room], room))}


def room_of(module: str) -> str:
    """ "triptych.data.order" -> "data"; a module that stands alone in triptych belongs to the ground floor."""
    first, *parts = module.split(".")
    if first != "triptych":
        return first
    return parts[0] if parts and project_path("triptych", parts[0]).is_dir() else GROUND


def reached(room: str, arrows: dict) -> set[str]:
    """All rooms that `room` imports, directly or not."""
    return set(arrows[room]).union(*(reached(other, arrows) for other in arrows[room]))


def nearest(room: str, arrows: dict[str, set[str]]) -> set[str]:
    """What `room` imports, without what follows from the rest."""
    return arrows[room] - set().union(*(reached(other, arrows) for other in arrows[room]))


def name_of(room: str) -> str:
    return room.replace(" ", "_")


def rooms_in_words() -> list[str]:
    """A Markdown list: every room, what it is for, and its modules."""
    folders = [path.parent for path in sorted(project_path("triptych").glob("*/__init__.py"))]
    lines = []
    for folder in [*folders, project_path("models")]:
        about = docstring(folder / "__init__.py").rstrip(".")
        modules = ", ".join(f"`{path.stem}`" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")
        lines.append(item(f"**{folder.name}/** {about}: {modules}."))
    for path in sorted(project_path("triptych").glob("[a-z]*.py")):
        lines.append(item(f"**{path.name}** ({GROUND}) {docstring(path)}"))
    return lines


def item(text: str) -> str:
    return fill(f"- {text}", 120, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def docstring(path: Path) -> str:
    """The first sentence of a module, read without running it."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    command(main)
