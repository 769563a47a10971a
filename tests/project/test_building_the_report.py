"""The report is typeset, offline, and what stands in the way is said."""

from __future__ import annotations

import re
import runpy
import shutil
import sys

import pytest
from conftest import ROOT
from project.build_report import REPORT, links, main
from report_text import (
    everything,
    needs_typst,
)

from triptych.errors import UserError


@needs_typst
def test_both_editions_are_typeset_offline(tmp_path, monkeypatch):
    """No source imports a package, the only thing typst would download, and proxies lead nowhere."""
    assert "@preview" not in everything("fa") + everything("en") + (REPORT / "template.typ").read_text("utf-8")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    flags = ["--name", "نام Name", "--id", "00123", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["project/build_report.py", *flags])
    runpy.run_path(str(ROOT / "scripts/project/build_report.py"), run_name="__main__")
    for ending in ("", "-en"):
        content = (tmp_path / "out" / f"HW3-نام Name-00123{ending}.pdf").read_bytes()
        assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
        assert len(re.findall(rb"/Type\s*/Page\b", content)) > 15
        assert b"Vazirmatn" in content if not ending else b"Libertinus" in content


@needs_typst
@pytest.mark.parametrize("ending", ["", "-en"])
def test_the_title_page_leads_to_the_project_and_its_notebooks(tmp_path, monkeypatch, ending):
    from pypdf import PdfReader

    monkeypatch.setenv("TRIPTYCH_REPOSITORY", "https://github.com/some-one/a.fork")
    main("Name", "1", tmp_path)
    first = PdfReader(tmp_path / f"HW3-Name-1{ending}.pdf").pages[0]
    targets = {link.get_object()["/A"]["/URI"] for link in first["/Annots"]}
    colab = "https://colab.research.google.com/github/some-one/a.fork/blob/main/notebooks/"
    notebooks = {colab + path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert targets == {"https://github.com/some-one/a.fork", *notebooks}
    assert "https://github.com/some-one/a.fork" in first.extract_text()


@pytest.mark.parametrize("address", ["https://github.com/owner", "https://example.org/owner/name", "owner/name"])
def test_an_address_that_colab_cannot_open_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_REPOSITORY", address)
    with pytest.raises(UserError, match="Repository under"):
        main("Name", "1", tmp_path)


def test_the_code_of_the_title_page_is_the_address():
    """Its modules are those that segno makes of the address; a quiet border is left around."""
    import segno

    address = "https://github.com/some-one/a.fork"
    drawn = links(segno, address)["qr"]
    side = segno.make(address, micro=False).symbol_size(border=1)[0]
    assert drawn.startswith("<svg") and f'width="{side}"' in drawn


@needs_typst
def test_names_that_are_no_file_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="file names"):
        main("a/b", "1", tmp_path)
    with pytest.raises(UserError, match="empty"):
        main(" ", "1", tmp_path)


@needs_typst
def test_a_missing_picture_is_named(tmp_path, monkeypatch):
    import project.build_report as build_report

    chapter = tmp_path / "report/en/vae.typ"
    chapter.parent.mkdir(parents=True)
    chapter.write_text('#figure(image("../../docs/images/lost.png"))')
    for name in ("sheets", "plots"):
        shutil.copy(REPORT / f"{name}.json", tmp_path / "report")
    monkeypatch.setattr(build_report, "ROOT", tmp_path)
    monkeypatch.setattr(build_report, "REPORT", tmp_path / "report")
    with pytest.raises(UserError, match=r"docs/images/lost\.png"):
        main("Name", "1", tmp_path / "out")


@pytest.mark.parametrize("package", ["typst", "segno"])
def test_without_a_package_the_message_says_what_to_install(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["project/build_report.py", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "scripts/project/build_report.py"), run_name="__main__")
    assert left.value.code == 2
    assert "pip install -e '.[report]'" in capsys.readouterr().err
