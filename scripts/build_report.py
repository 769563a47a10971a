"""Typeset the report, in Persian and in English: HW3-<name>-<id>.pdf and HW3-<name>-<id>-en.pdf.

python scripts/build_report.py --name "Full Name" --id 12345 --output runs/report

Works offline; needs the `typst` package: pip install -e '.[report]'. Numbers and charts of our own results are read
from records/, which scripts/collect_records.py fills.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from triptych.config import UserError, command
from triptych.records import made_by

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "report"
EDITIONS = {"fa": "", "en": "-en"}  # language: what the file name ends in


def main(name: str = "Full Name", id: str = "00000", output: Path = Path("runs/report")) -> None:
    """Typeset the report.

    Args:
        name: the student's, for the title page and the file names.
        id: the student's number.
        output: folder the two PDFs are written to.
    """
    typst = load_typst()
    if not name.strip() or not id.strip():
        raise UserError("name and id must not be empty: they are on the title page and in the file names.")
    if set(name + id) & set('/\\:*?"<>|\n'):
        raise UserError(
            f"name {name!r} and id {id!r} become file names, so they can't hold any of / \\ : * ? \" < > |."
        )
    refuse_missing(sorted(REPORT.glob("*/*.typ")))
    output.mkdir(parents=True, exist_ok=True)
    for language, ending in EDITIONS.items():
        path = output / f"HW3-{name}-{id}{ending}.pdf"
        path.write_bytes(typeset(typst, language, name, id))
        print(path)


def load_typst() -> ModuleType:
    try:
        import typst
    except ImportError:
        raise UserError(
            "the report is typeset by the package typst, which isn't installed. Install it by "
            "pip install -e '.[report]', or let `make report` do it."
        ) from None
    return typst


def refuse_missing(sources: list[Path]) -> None:
    """Every picture a chapter shows, and the Persian font, must be there before anything is typeset."""
    missing = [path for source in sources for path in pictures(source) if not path.is_file()]
    missing += [path for path in fonts() if not path.is_file()]
    if missing:
        names = ", ".join(sorted({str(path.relative_to(ROOT)) for path in missing}))
        raise UserError(f"the report needs files that are not there: {names}. Restore them, e.g. by git checkout.")


def pictures(source: Path) -> list[Path]:
    """The images a chapter includes by name, whose paths are relative to it; those of records/ are read by typst."""
    named = re.findall(r'image\(\s*"([^"]+)"', source.read_text("utf-8"))
    return [(source.parent / name).resolve() for name in named if "/records/" not in name]


def fonts() -> list[Path]:
    return [REPORT / "fonts" / f"Vazirmatn-{weight}.ttf" for weight in ("Regular", "Bold")]


def typeset(typst: ModuleType, language: str, name: str, id: str) -> bytes:
    """The PDF of one edition; fonts of the machine are ignored, so that every machine makes the same pages."""
    try:
        return typst.compile(
            str(REPORT / language / "main.typ"),
            root=str(ROOT),
            font_paths=[str(REPORT / "fonts")],
            ignore_system_fonts=True,
            sys_inputs={"name": name, "id": id},
        )
    except typst.TypstError as error:
        said = str(getattr(error, "diagnostic", error))
        missing = re.search(r"file not found.*?records/([\w./-]+)", said, re.DOTALL)
        if missing:
            record = Path(missing.group(1))
            raise UserError(
                f"the report reads records/{record}, which is not there. Restore it by git checkout, or make it: "
                f"{made_by(record)}; then: python scripts/collect_records.py --studies {record.parts[0]}"
            ) from None
        raise UserError(f"typst could not typeset report/{language}: {said}") from None


if __name__ == "__main__":
    command(main)
