"""Where the project's own files lie: scripts, models, metrics and configs, in a checkout or installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# A wheel carries them inside the package (setup.py), so that no other package of site-packages meets their names.
PROJECT = PACKAGE / "lab" if (PACKAGE / "lab").is_dir() else PACKAGE.parent


def project_path(*parts: str) -> Path:
    """A file or folder of the project, such as ``project_path("scripts", "score.py")``; it may not be there."""
    return PROJECT.joinpath(*parts)


def is_checkout() -> bool:
    """Whether this is the project's working tree, with its tests, documents and history, and not an installed copy."""
    return PROJECT != PACKAGE / "lab"
