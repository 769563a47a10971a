"""Install the project in a Colab session and leave alone what the session has: each notebook's first cell runs this.

Colab comes with torch for its GPU and most of what requirements.txt asks for. Where all of that suffices, only the
project itself is installed. Otherwise pip is given the whole list and not the missing part alone: it keeps what
suffices and fits, and replaces what doesn't fit the new (an older diffusers refuses a newer huggingface_hub, say).
torch and torchvision, which were built for the session's GPU, stay as they are if they are new enough.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
HELD = ("torch", "torchvision")

Versions = Callable[[str], str | None]
Requires = Callable[[str], list[str] | None]


def installed(name: str) -> str | None:
    """The version of an installed package, None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read(path: Path) -> list[Requirement]:
    """The requirements of a file, without its comments."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def suffices(wanted: Requirement, versions: Versions, requires: Requires = metadata.requires) -> bool:
    """Whether what is installed meets a requirement, the packages that its extras ask for among it."""
    version = versions(wanted.name)
    if version is None or not wanted.specifier.contains(version, prereleases=True):
        return False
    more = [Requirement(text) for text in requires(wanted.name) or ()] if wanted.extras else []
    asked = [one for one in more if one.marker and any(one.marker.evaluate({"extra": name}) for name in wanted.extras)]
    return all(suffices(one, versions, requires) for one in asked)


def lacking(wanted: list[Requirement], versions: Versions = installed) -> list[Requirement]:
    """What is missing, too old or too new."""
    return [one for one in wanted if not suffices(one, versions)]


def held(wanted: list[Requirement], versions: Versions = installed) -> list[str]:
    """What pip may not touch, as it reads constraints: "torch==2.11.0+cu128"."""
    return [f"{one.name}=={versions(one.name)}" for one in wanted if one.name in HELD and suffices(one, versions)]


def replaced(before: Mapping[str, str | None], after: Mapping[str, str | None], loaded: Collection[str]) -> list[str]:
    """The packages whose version changed after this session had loaded them: it goes on with the old ones."""
    return [name for name, version in before.items() if version not in (None, after[name]) and name in loaded]


def versions_of(wanted: list[Requirement]) -> dict[str, str | None]:
    return {canonicalize_name(one.name): installed(one.name) for one in wanted}


def loaded_packages() -> set[str]:
    """What this session has imported, under the names that pip uses."""
    packages = metadata.packages_distributions()
    return {canonicalize_name(name) for module in list(sys.modules) for name in packages.get(module, ())}


def install(arguments: list[str]) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *arguments], check=True)


def install_requirements(path: Path = PROJECT / "requirements.txt") -> None:
    """Let pip make up for what is lacking, if anything is."""
    wanted = read(path)
    if lacks := lacking(wanted):
        print("This session lacks", ", ".join(map(str, lacks)))
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("\n".join(held(wanted)))
            install(["--constraint", str(constraints), "--requirement", str(path)])


def main() -> None:
    wanted = read(PROJECT / "requirements.txt")
    before, loaded = versions_of(wanted), loaded_packages()
    install_requirements()
    install(["--no-deps", "--editable", str(PROJECT)])
    if names := replaced(before, versions_of(wanted), loaded):
        print(f"This session had loaded other versions of {', '.join(names)}.")
        print("Restart it (Runtime, Restart session), and run the notebook from the top.")


if __name__ == "__main__":
    main()
