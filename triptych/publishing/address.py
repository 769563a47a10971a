"""Where the project lives: one setting for badges, citation, published cards, and the report's links."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

from triptych.errors import UserError
from triptych.paths import is_checkout, project_path

UNSET = "https://github.com/your_account/triptych"  # what stands in pyproject.toml until `make address`


def repository_address() -> str:
    """Where the project lives, such as https://github.com/someone/triptych: TRIPTYCH_REPOSITORY where that is set,
    else Repository under [project.urls] in pyproject.toml, which an installed copy has in its metadata.

    Raises:
        UserError: it is no GitHub address.
    """
    try:
        return checked_address(os.environ.get("TRIPTYCH_REPOSITORY") or _declared())
    except UserError as error:
        raise UserError(
            f"{error} `make address URL=...` sets it everywhere (Repository under [project.urls] in pyproject.toml), "
            f"TRIPTYCH_REPOSITORY for one command."
        ) from None


def _declared() -> str:
    if is_checkout():
        return declared_in(project_path("pyproject.toml"))
    urls = dict(line.split(", ", 1) for line in metadata.metadata("triptych").get_all("Project-URL") or ())
    return urls.get("Repository", "")


def declared_in(settings: Path) -> str:
    """Repository under [project.urls] of a pyproject.toml, "" if it has none."""
    found = re.search(r'^Repository = "(.*)"$', settings.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""


def checked_address(text: str) -> str:
    """`text` as a repository's address, without what browsers and git put at its end (a slash, ``.git``).

    Raises:
        UserError: it is no address of a GitHub repository.
    """
    address = text.strip().removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[a-z0-9][\w-]*/(?!\.{1,2}$)[\w.-]+", address, re.ASCII | re.IGNORECASE):
        raise UserError(
            f"the repository's address {text!r} is not of the form https://github.com/OWNER/REPO, which Colab can open."
        )
    return address
