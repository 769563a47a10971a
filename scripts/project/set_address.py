"""Write the repository's address wherever it stands: badges, notebooks, citation, documents, cards, pyproject.toml.

    python scripts/project/set_address.py https://github.com/OWNER/REPO      # or: make address URL=...

The report, and what is executed in the notebooks, take it from pyproject.toml. Repeating the command changes nothing.
"""

from __future__ import annotations

from triptych.cli import command

import re
from pathlib import Path

from triptych.errors import UserError
from triptych.publishing.address import checked_address, declared_in

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "*.md",
    "*.cff",
    "docs/**/*.md",
    "notebooks/**/*.ipynb",
    "pretrained/*/README.md",
    "space/*.md",
    "metrics/*/README.md",
    "triptych/publishing/templates/*.md",
    "pyproject.toml",
)


def main(url: str, project: Path = ROOT) -> None:
    """Set the repository's address.

    Args:
        url: the address, https://github.com/OWNER/REPO.
        project: the checkout.
    """
    new = checked_address(url)
    old = declared_in(project / "pyproject.toml")
    if not old:
        raise UserError(f"{project / 'pyproject.toml'} has no Repository under [project.urls].")
    changed = []
    for path in places(project):
        text = path.read_text("utf-8")
        now = replaced(text, old, new)
        if now != text:
            path.write_text(now, "utf-8")
            changed.append(str(path.relative_to(project)))
    print(f"{new}: {', '.join(changed) or 'it stands everywhere already'}")


def places(project: Path) -> list[Path]:
    """The files that may name the address, each once; pyproject.toml at the end, so that an interrupted command can be
    repeated."""
    return list(dict.fromkeys(path for place in PLACES for path in sorted(project.glob(place)) if path.is_file()))


def replaced(text: str, old: str, new: str) -> str:
    """`text` with the address `new` for `old`, in links to Colab too, which name the repository without the host.

    No other address changes: neither another repository's nor one that begins alike.
    """
    for form in ("https://github.com/", "https://colab.research.google.com/github/"):
        before, after = (form + address.removeprefix("https://github.com/") for address in (old, new))
        text = re.sub(rf"{re.escape(before)}(?![\w-]|\.(?!git\b)\w)", lambda _, after=after: after, text)
    return text


if __name__ == "__main__":
    command(main)
