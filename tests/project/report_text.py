"""What the report must hold, and its text as the tests read it."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest
from conftest import ROOT
from project.build_report import REPORT

LANGUAGES = ("fa", "en")

QUESTIONS = [
    f"{chapter}-{letter}" for chapter, n in (("vae", 3), ("gan", 4), ("diffusion", 7)) for letter in "abcdefg"[:n]
]

CHAPTERS = ("vae", "gan", "diffusion")

EXACT = {  # the chapter on a world where everything is known
    "sections": ["exact-world", "exact-gap", "exact-distances", "exact-paths", "exact-exercises"],
    "shown": ["fig-exact-hills", "tab-exact-gap", "fig-exact-contest", "fig-exact-distances", "fig-exact-paths"],
}

RESULTS = {  # what the chapter on the implementations must show, by file: sections, tables and figures
    "results": ["results-lab"],
    "results-vae": [
        "results-vae",
        "tab-vae-layers",
        "tab-results-elbo",
        "tab-results-vae",
        "fig-results-latent",
        "fig-results-reconstructions",
        "fig-results-prior",
        "fig-results-interpolations",
        "fig-results-vae-scores",
    ],
    "results-gan": [
        "results-gan",
        "tab-gan-layers",
        "fig-results-game",  # loss curves
        "tab-results-denoising",
        "fig-results-tradeoff",
        "fig-results-levels",
        "tab-results-sweep",
        "tab-results-seeds",
        "tab-results-digits",
    ],
    "results-diffusion": [
        "results-diffusion",
        "tab-unet-layers",
        "fig-results-loss",
        "tab-results-back",  # forward and reverse process
        "fig-results-back",
        "fig-results-classes",  # per class
        "tab-results-classes",
        "tab-results-scores",
        "fig-results-samples",
        "results-parameters",
        "fig-results-reconstruction",
        "tab-results-steps",
        "fig-results-steps",
        "tab-results-guidance",
        "tab-results-noise",
        "fig-results-noise",
    ],
    "results-families": [
        "results-families",
        "tab-results-restoring",
        "fig-results-restorations",
        "tab-results-costs",
    ],
}

RECORDS = ROOT / "records"
FAMILIES = ("three_families/rows.jsonl", "level", "method")

HAS_TYPST = importlib.util.find_spec("typst") is not None


needs_typst = pytest.mark.skipif(not HAS_TYPST, reason="typst isn't installed: pip install -e '.[report]'")


def read(language: str, chapter: str) -> str:
    return (REPORT / language / f"{chapter}.typ").read_text("utf-8")


def everything(language: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted((REPORT / language).glob("*.typ")))


def prose(text: str) -> str:
    """Without what is drawn or computed: the bodies of figures, imports, tables of words."""
    text = re.sub(r"#figure\(.*?caption:", "", text, flags=re.DOTALL)
    text = re.sub(r"^#let [\w-]+ = \(.*?^\)", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^\s*#import.*$|^#let .*$", "", text, flags=re.MULTILINE)


def answer(language: str, question: str) -> str:
    """What stands between a question's heading and the next."""
    text = read(language, question.split("-")[0])
    return re.search(rf"^== [^\n]*<{question}>\n(.*?)(?=^== |\Z)", text, re.MULTILINE | re.DOTALL).group(1)


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in (RECORDS / path).read_text().splitlines()]


def newest(path: str, *key: str) -> list[dict]:
    """Of rows with the same key the last one counts, and only those of the last row's judge and pipeline."""
    found = rows(path)
    same = [k for k in ("judge", "seed", "dtype") if k in found[-1]]
    alike = [row for row in found if all(row[k] == found[-1][k] for k in same)]
    return list({tuple(row[k] for k in key): row for row in alike}.values())
