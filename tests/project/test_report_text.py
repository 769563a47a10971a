"""The report's text: every question answered in both languages, every result, formula, source and picture there."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image
from project.build_report import REPORT, cut_pictures, pictures
from report_text import (
    CHAPTERS,
    EXACT,
    FAMILIES,
    LANGUAGES,
    QUESTIONS,
    RESULTS,
    answer,
    everything,
    newest,
    prose,
    read,
)

SHEETS, PLOTS = (json.loads((REPORT / f"{name}.json").read_text()) for name in ("sheets", "plots"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_asked_answered_and_has_sources(language, question):
    text = answer(language, question)
    assert "#asked[" in text and "#sources(" in text
    body = text.split("#sources(")[0]
    assert len(re.findall(r"\w+", body)) > 150, "a few paragraphs"
    assert "$" in body or "#eq." in body, "with the mathematics"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", RESULTS)
def test_every_result_is_shown(language, chapter):
    """The checklist of the implementations: each section, table and figure is there, with words about it."""
    text = read(language, chapter)
    for label in RESULTS[chapter]:
        assert f"<{label}>" in text, label
    sections = [label for label in RESULTS[chapter] if label.startswith("results")]
    assert re.findall(r"^== [^\n]*<([\w-]+)>", text, re.MULTILINE) == sections
    assert len(re.findall(r"\w+", text)) > 250 * len(sections)
    assert f'#include "{chapter}.typ"' in read(language, "main" if chapter == "results" else "results")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_exact_world_is_shown_with_exercises_and_answers(language):
    text = read(language, "exact")
    assert re.findall(r"^== [^\n]*<([\w-]+)>", text, re.MULTILINE) == EXACT["sections"]
    assert [label for label in EXACT["shown"] if f"<{label}>" not in text] == []
    assert text.count("#exercise(") >= 6


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_and_table_is_mentioned(language):
    text = everything(language)
    labels = set(re.findall(r"<((?:fig|tab)-[\w-]+)>", text))
    assert len(labels) > 50
    assert sorted(label for label in labels if not re.search(rf"@{label}\b", text)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_figure_floats(language):
    """A float may part a sentence: figures stand where they are written, between paragraphs."""
    assert "placement" not in everything(language)


@pytest.mark.parametrize("chapter", [*CHAPTERS, *RESULTS, "exact"])
def test_both_languages_have_the_same_questions_formulas_figures_and_sources(chapter):
    for pattern in (r"^==? [^\n]*<([\w-]+)>", r"#eq\.([\w-]+)", r"<(eq-[\w-]+)>", r"<((?:fig|tab)-[\w-]+)>"):
        fa, en = (re.findall(pattern, read(language, chapter), re.MULTILINE) for language in LANGUAGES)
        assert fa == en
    for question in (q for q in QUESTIONS if q.startswith(chapter)):
        fa, en = (re.findall(r"<(\w+\d{4}\w*)>", answer(language, question)) for language in LANGUAGES)
        assert fa == en, question


WITHDRAWN = {  # statements that measurements or mathematics don't bear out, and words that were translated word by word
    "en": [
        "draws from\n$p(bold(x)_0|bold(x)_t)$",
        "another\n  sample of the images that fit for another seed",
        "squared difference of\n  means, so",
        "lost because the posterior is taken for a Gaussian",
        "speaks of, measured",
        "nothing done",
        "spoiled",
        "stands in @results",
        "one in name only",
        "training computes",
    ],
    "fa": [
        "از $p(bold(x)_0|bold(x)_t)$ نمونه",
        "مربع تفاضل میانگین‌هاست؛ پس",
        "زیان تخاصمی به کار برداشتن",
        "به بهای تنوع می‌خرد",
        "در جای تصویرهای خود حس",
        "آموزگاری دیگر",
        "چه اندازه بازی",
        "این نتایج چه نیستند",
    ],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_withdrawn_statements_do_not_return(language):
    text = everything(language)
    assert [words for words in WITHDRAWN[language] if words in text] == []


def test_restoring_in_several_steps_loses_far_less_than_a_posterior_draw_would():
    """What the text of the families rests on: twice the squared error would be 3 dB."""
    measured = {(row["level"], row["method"]): row["psnr"] for row in newest(*FAMILIES)}
    for level in {level for level, _ in measured}:
        assert 0 < measured[level, "diffusion, 1 step"] - measured[level, "diffusion, 25 steps"] < 1.5
    for language in LANGUAGES:
        assert "DPM-Solver++" in read(language, "results-families")


def test_labels_are_large_enough_to_read():
    """Nothing the report draws itself is set smaller than 7 pt; tables inside charts make up for being set smaller."""
    for name in ("charts", "pictures", "diagrams"):
        text = (REPORT / f"{name}.typ").read_text("utf-8")
        sizes = [float(size) for size in re.findall(r"size(?::| =) ([\d.]+)pt", text)]
        assert sizes and min(size for size in sizes if size > 3) >= 7, name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_formula_is_used_and_every_one_used_exists(language):
    defined = set(
        re.findall(r"^#let ([\w-]+)(?:\(.*?\))? = \$ ", (REPORT / "equations.typ").read_text("utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"#eq\.([\w-]+)", everything(language))) == defined


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_cited_paper_is_listed_and_every_listed_one_is_cited(language):
    listed = yaml.safe_load((REPORT / "references.yml").read_text("utf-8"))
    cited = set(re.findall(r"[@<]([a-z]+\d{4}[a-z]*)\b", everything(language)))
    assert cited == set(listed)
    for key, paper in listed.items():
        assert str(paper["date"]) in key and paper["author"] and paper["title"] and paper["parent"], key


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reference_has_its_target(language):
    text = everything(language)
    labels = set(re.findall(r"<([a-z][\w-]*)>", text))
    for name in re.findall(r"@((?:eq|fig|tab|vae|gan|diffusion|results|exact)-[\w-]+)", text):
        assert name in labels, name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_picture_exists(language):
    shown = [path for source in (REPORT / language).glob("*.typ") for path in pictures(source)] + cut_pictures()
    assert len(shown) >= 15
    assert [path for path in shown if not path.is_file()] == []


@pytest.mark.parametrize("sheet", SHEETS)
def test_the_images_of_a_sheet_are_where_the_report_cuts_them_out(sheet):
    """A sheet that was drawn anew with other measures is noticed: its gaps are white, its images are not."""
    measures = SHEETS[sheet]
    picture = Image.open(ROOT / sheet).convert("L")
    assert list(picture.size) == measures["size"]
    grey = np.asarray(picture)
    left, top, side = measures["left"], measures["top"], measures["side"]
    for row in range(int((grey.shape[0] - top) // measures["down"])):
        for column in range(int((grey.shape[1] - left) // measures["across"])):
            x, y = round(left + column * measures["across"]), round(top + row * measures["down"])
            assert (grey[y + 2 : y + side - 2, x - 2] > 240).all() and (grey[y - 2, x + 2 : x + side - 2] > 240).all()
            assert (grey[y + 2 : y + side - 2, x + 2 : x + side - 2] < 240).mean() > 0.1


@pytest.mark.parametrize("plot", PLOTS)
def test_the_frame_of_a_plot_is_where_the_report_cuts_it_out(plot):
    measures = PLOTS[plot]
    picture = Image.open(ROOT / measures["path"]).convert("L")
    assert list(picture.size) == measures["size"]
    grey = np.asarray(picture)
    left, top, right, bottom = measures["box"]
    if measures["x"] or "latent" in plot:  # the frame's lines, just outside
        assert (grey[top:bottom, left - 2] < 150).all() and (grey[bottom, left:right] < 150).all()
    for _, x in measures["x"]:
        assert grey[bottom + 4, x] < 150
    for _, y in measures["y"]:
        assert grey[y, left - 5] < 150


def test_persian_text_has_persian_digits_and_letters():
    """Outside mathematics, code, names and labels there are no Latin digits and no Arabic yeh or kaf."""
    for path in (REPORT / "fa").glob("*.typ"):
        text = path.read_text("utf-8")
        assert not set("يك٠١٢٣") & set(text), path.name
        words = re.sub(
            r"\$[^$]*\$|`[^`]*`|<[^>\n]*>|@[\w-]+|\"[^\"]*\"|^\s*columns.*$|level: 1|at\(\d\)|number: \d,",
            " ",
            prose(text),
            flags=re.MULTILINE,
        )
        for word in re.findall(r"(?<![\w.-])[0-9][\w.%]*", words):
            assert re.fullmatch(r"[0-9]+(pt|%)|2M", word), f"{path.name}: {word}"
