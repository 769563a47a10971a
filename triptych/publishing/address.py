"""Where the project lives: one setting for the report's links and the notebooks' badges."""

from __future__ import annotations

import os
import re

from triptych.errors import UserError
from triptych.paths import project_path


def repository_address() -> str:
    """Where the project lives, such as https://github.com/someone/triptych.

    Raises:
        UserError: it is no GitHub address.
    """
    declared = re.search(r'^Repository = "(.*)"$', project_path("pyproject.toml").read_text("utf-8"), re.MULTILINE)
    address = os.environ.get("TRIPTYCH_REPOSITORY") or (declared.group(1) if declared else "")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise UserError(
            f"the repository's address {address!r} is not of the form https://github.com/owner/name, which Colab can "
            f"open. Set Repository under [project.urls] in pyproject.toml, or TRIPTYCH_REPOSITORY."
        )
    return address
