"""Execute the notebooks in place, after writing the repository's address into their badges and Colab cells.

    python scripts/project/run_notebooks.py                                 # all: half an hour of one core
    python scripts/project/run_notebooks.py --notebooks notebooks/01_vae.ipynb
    python scripts/project/run_notebooks.py --execute false                 # only those two cells

The address is Repository under [project.urls] in pyproject.toml (`make address`), or TRIPTYCH_REPOSITORY. Data comes
from the Hub, or from where TRIPTYCH_MNIST and TRIPTYCH_CIFAR10 point. Needs the extra: pip install -e '.[notebooks]'
"""

from __future__ import annotations

from triptych.cli import command, listed

import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from PIL import Image

from triptych.errors import UserError
from triptych.publishing.address import repository_address

ROOT = Path(__file__).resolve().parents[2]
BRANCH = "main"
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/{name})"
)
FETCH = """\
import os
import sys

if "google.colab" in sys.modules:  # there: fetch the project and what the session lacks; elsewhere this does nothing
    !test -d /content/project || git clone --quiet --depth 1 {address} /content/project
    %cd -q /content/project
    %run notebooks/colab.py
    sys.path.insert(0, os.getcwd())"""


def main(notebooks: str | None = None, execute: bool = True, timeout: int = 3600) -> None:
    """Execute notebooks.

    Args:
        notebooks: which, separated by commas; all of notebooks/ if not given.
        execute: false = write the address only.
        timeout: seconds a cell may take.
    """
    address = repository_address()
    for path in list(map(Path, listed(notebooks))) or sorted((ROOT / "notebooks").glob("*.ipynb")):
        if not path.is_file():
            raise UserError(f"{path} does not exist.")
        notebook = nbformat.read(path, as_version=4)
        write_address(notebook, address, path.name)
        if execute:
            run(notebook, path, timeout)
        partial = path.with_suffix(".partial")
        nbformat.write(notebook, partial)
        partial.replace(path)
        print(f"{path}  {path.stat().st_size / 1000:,.0f} kB")


def write_address(notebook: nbformat.NotebookNode, address: str, name: str) -> None:
    """Put the address into the two cells that are tagged for it."""
    repository = address.removeprefix("https://github.com/")
    texts = {
        "badge": BADGE.format(repository=repository, branch=BRANCH, name=name),
        "colab": FETCH.format(address=address),
    }
    for tag, text in texts.items():
        (cell,) = (cell for cell in notebook.cells if tag in cell.metadata.get("tags", []))
        cell.source = text


def run(notebook: nbformat.NotebookNode, path: Path, timeout: int = 3600) -> None:
    """Execute all cells where the notebook lies; keep what they say, but no progress bars, warnings and times.

    Raises:
        UserError: a cell failed.
    """
    client = NotebookClient(
        notebook, timeout=timeout, coalesce_streams=True, resources={"metadata": {"path": str(path.resolve().parent)}}
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        raise UserError(f"{path.name} stopped, and is left as it was: {error}") from None
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def smaller(png: str) -> str:
    """The same picture to the eye, base64 in and out, two thirds as large, without the transparency of matplotlib.

    A chart gets a palette of 256 colours; photographs, which have more than all the shades of a chart, keep six of each
    value's eight bits.
    """
    picture, packed = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    if picture.getcolors(4096):
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    else:
        picture = picture.point([round((value >> 2) * 255 / 63) for value in range(256)] * 3)
    picture.save(packed, "png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


if __name__ == "__main__":
    command(main)
