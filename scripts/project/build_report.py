"""Typeset the report, in Persian and in English: HW3-<name>-<id>.pdf and HW3-<name>-<id>-en.pdf.

python scripts/project/build_report.py --name "Full Name" --id 12345 --output runs/report

Works offline; needs the packages `typst` and `segno`: pip install -e '.[report]'. Numbers and charts of our own
results are read from records/, which scripts/project/collect_records.py fills. The links and the QR code of the title
page lead to Repository under [project.urls] in pyproject.toml, or to TRIPTYCH_REPOSITORY where that is set.
"""

from __future__ import annotations

from triptych.cli import command

import importlib
import io
import json
import re
from pathlib import Path
from types import ModuleType

from triptych.errors import UserError
from triptych.outputs import claim_folder
from triptych.publishing.address import repository_address
from triptych.studies.records import made_by

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "report"
EDITIONS = {"fa": "", "en": "-en"}  # language: what the file name ends in


def main(
    name: str = "Full Name", id: str = "00000", output: Path = Path("runs/report"), overwrite: bool = False
) -> None:
    """Typeset the report.

    Args:
        name: the student's, for the title page and the file names.
        id: the student's number.
        output: folder the two PDFs are written to.
        overwrite: write into an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    typst, segno = load("typst"), load("segno")
    if not name.strip() or not id.strip():
        raise UserError("name and id must not be empty: they are on the title page and in the file names.")
    if set(name + id) & set('/\\:*?"<>|\n'):
        raise UserError(
            f"name {name!r} and id {id!r} become file names, so they can't hold any of / \\ : * ? \" < > |."
        )
    refuse_missing(sorted(REPORT.glob("*/*.typ")))
    online = links(segno, repository_address())
    output.mkdir(parents=True, exist_ok=True)
    for language, ending in EDITIONS.items():
        path = output / f"HW3-{name}-{id}{ending}.pdf"
        path.write_bytes(typeset(typst, language, {"name": name, "id": id, **online}))
        print(path)


def load(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"the report needs the package {package}, which isn't installed. Install it by "
            "pip install -e '.[report]', or let `make report` do it."
        ) from None


def links(segno: ModuleType, address: str) -> dict[str, str]:
    """What the title page shows: the address, the notebooks' names as JSON, the address as a QR code in SVG."""
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    code = io.BytesIO()
    segno.make(address, micro=False).save(code, kind="svg", border=1, xmldecl=False)
    return {"repository": address, "notebooks": json.dumps(notebooks), "qr": code.getvalue().decode()}


def refuse_missing(sources: list[Path]) -> None:
    """Every picture a chapter shows, and the Persian font, must be there before anything is typeset."""
    shown = [path for source in sources for path in pictures(source)] + cut_pictures()
    missing = [path for path in shown if not path.is_file()]
    missing += [path for path in fonts() if not path.is_file()]
    if missing:
        names = ", ".join(sorted({str(path.relative_to(ROOT)) for path in missing}))
        raise UserError(f"the report needs files that are not there: {names}. Restore them, e.g. by git checkout.")


def pictures(source: Path) -> list[Path]:
    """The images a chapter includes by name, whose paths are relative to it; those of records/ are read by typst."""
    named = re.findall(r'image\(\s*"([^"]+)"', source.read_text("utf-8"))
    return [(source.parent / name).resolve() for name in named if "/records/" not in name]


def cut_pictures() -> list[Path]:
    """The sheets and plots that images and frames are cut out of."""
    sheets, plots = (json.loads((REPORT / f"{name}.json").read_text()) for name in ("sheets", "plots"))
    return [ROOT / path for path in {*sheets, *(plot["path"] for plot in plots.values())} if "records/" not in path]


def fonts() -> list[Path]:
    return [REPORT / "fonts" / f"Vazirmatn-{weight}.ttf" for weight in ("Regular", "Bold")]


def typeset(typst: ModuleType, language: str, inputs: dict[str, str]) -> bytes:
    """The PDF of one edition, told `inputs`; fonts of the machine are ignored: every machine makes the same pages."""
    try:
        return typst.compile(
            str(REPORT / language / "main.typ"),
            root=str(ROOT),
            font_paths=[str(REPORT / "fonts")],
            ignore_system_fonts=True,
            sys_inputs=inputs,
        )
    except typst.TypstError as error:
        said = str(getattr(error, "diagnostic", error))
        missing = re.search(r"file not found.*?records/([\w./-]+)", said, re.DOTALL)
        if missing:
            record = Path(missing.group(1))
            raise UserError(
                f"the report reads records/{record}, which is not there. Restore it by git checkout, or make it: "
                f"{made_by(record)}; then: python scripts/project/collect_records.py --studies {record.parts[0]}"
            ) from None
        raise UserError(f"typst could not typeset report/{language}: {said}") from None


if __name__ == "__main__":
    command(main)
