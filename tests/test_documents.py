"""The project's papers: how to cite it, contribute, find a way out, and what continuous integration runs."""

from __future__ import annotations

import os
import re
import sys

import pytest
import yaml
from conftest import ROOT, environment, launched

PYPROJECT = (ROOT / "pyproject.toml").read_text()
PAPERS = ("CONTRIBUTING.md", "CHANGELOG.md", "docs/troubleshooting.md", "docs/architecture.md")


def test_the_citation_is_a_cff_and_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]  # what the schema asks for
    assert citation["authors"] and all("name" in author or "family-names" in author for author in citation["authors"])
    for key, field in (("version", "version"), ("license", "license"), ("repository-code", "Repository")):
        assert str(citation[key]) == re.search(rf'^{field} = "(.*)"', PYPROJECT, re.MULTILINE)[1]


def test_the_workflow_runs_what_continuous_integration_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"} and os.access(ROOT / ".ci/run", os.X_OK)
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_name_what_exists(name):
    text = (ROOT / name).read_text()
    assert max(map(len, text.splitlines())) <= 120
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`|cpu )make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\b(?:tests|scripts|configs|pretrained|docs|triptych)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path


def test_trust_is_asked_for_in_the_words_that_are_quoted(tmp_path):
    """And the code beside them runs."""
    text = (ROOT / "docs/troubleshooting.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    run = {"cwd": ROOT, "env": environment(HF_MODULES_CACHE=str(tmp_path))}
    refused = launched([sys.executable, "-c", code.replace(", trust_remote_code=True", "")], **run)
    quoted = re.search(r"```\n(ValueError.*?)```", text, re.DOTALL)[1]
    for part in re.split(r"\[?\.\.\.\]?", " ".join(quoted.split())):
        assert part.strip() in " ".join(refused.stderr.split())
    assert launched([sys.executable, "-c", code], **run).returncode == 0


@pytest.mark.parametrize(
    "path", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_lines_of_prose_end_at_120(path):
    """Tables, commands and pictures can't be broken."""
    prose = re.sub(r"^ *```.*?^ *```", "", (ROOT / path).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
