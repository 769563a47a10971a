"""The report: every question answered in both languages, every formula the code's own, every number the records'."""

from __future__ import annotations

from triptych.cli import in_full

import importlib.util
import json
import math
import re
import runpy
import shlex
import shutil
import statistics
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import get_type_hints

import jsonargparse
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from diffusers import DDIMScheduler, DDPMScheduler
from PIL import Image
from project.build_report import REPORT, cut_pictures, links, main, pictures
from project.collect_records import main as collect_records
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from triptych.errors import UserError
from triptych.losses.diffusion import diffuse, min_snr_weight, predicted_x0, prediction_target, signal_to_noise
from triptych.losses.gan import discriminator_loss, generator_loss, r1_penalty
from triptych.losses.vae import bernoulli_nll, gaussian_nll, importance_weighted_bound, kl_to_standard_normal
from triptych.studies.records import known_studies

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
SHEETS, PLOTS = (json.loads((REPORT / f"{name}.json").read_text()) for name in ("sheets", "plots"))
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


# ---- the text ------------------------------------------------------------------------------------------------


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


# ---- variational autoencoder ---------------------------------------------------------------------------------


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def draws(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_kl_of_gaussians(generator):
    """kl-steps, kl."""
    mean, logvar = draws(5, 4, generator=generator), draws(5, 4, generator=generator)
    sigma = (logvar / 2).exp()
    formula = 0.5 * (mean**2 + sigma**2 - 1 - (sigma**2).log())
    torch.testing.assert_close(formula, kl_to_standard_normal(mean, logvar))
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(formula, kl_divergence(Normal(mean, sigma), standard))
    log_q = -0.5 * (2 * math.pi * sigma**2).log() - 0.5
    log_p = -0.5 * math.log(2 * math.pi) - 0.5 * (mean**2 + sigma**2)
    torch.testing.assert_close(log_q, -Normal(mean, sigma).entropy())
    torch.testing.assert_close(log_q - log_p, formula)


def test_likelihoods(generator):
    """bernoulli, gaussian."""
    logits, s = draws(3, 1, 4, 4, generator=generator), torch.tensor(0.3, dtype=torch.float64)
    binary = (draws(3, 1, 4, 4, generator=generator) > 0).double()
    x_hat = logits.sigmoid()
    formula = -(binary * x_hat.log() + (1 - binary) * (1 - x_hat).log()).flatten(1).sum(1)
    torch.testing.assert_close(formula, bernoulli_nll(logits, binary))
    torch.testing.assert_close(formula, -Independent(Bernoulli(logits=logits), 3).log_prob(binary))
    formula = ((binary - x_hat) ** 2 / (2 * s**2) + s.log() + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    torch.testing.assert_close(formula, gaussian_nll(x_hat, binary, s.log()))
    torch.testing.assert_close(formula, -Independent(Normal(x_hat, s), 3).log_prob(binary))


def test_elbo_splits_the_likelihood(generator):
    """elbo-split, elbo and iwae, on a linear model whose likelihood and posterior are known: x = w z + s noise."""
    w, s, x = torch.tensor(1.3).double(), torch.tensor(0.7).double(), torch.tensor(0.9).double()
    evidence = Normal(0.0, (w**2 + s**2).sqrt()).log_prob(x)
    posterior = Normal(w * x / (w**2 + s**2), (s**2 / (w**2 + s**2)).sqrt())
    mean, logvar = torch.tensor([[0.2]]).double(), torch.tensor([[-1.0]]).double()
    q = Normal(mean.item(), math.exp(logvar.item() / 2))
    expected_error = (x - w * mean) ** 2 + w**2 * logvar.exp()  # E_q (x - w z)^2
    reconstruction = expected_error / (2 * s**2) + s.log() + 0.5 * math.log(2 * math.pi)
    neg_elbo = reconstruction + kl_to_standard_normal(mean, logvar)
    torch.testing.assert_close(evidence, (-neg_elbo + kl_divergence(q, posterior)).squeeze())

    z = mean + (logvar / 2).exp() * draws(200_000, 1, 1, generator=generator)
    log_likelihood = Normal(w * z[..., 0], s).log_prob(x)  # (K, B)
    bounds = {k: groups(log_likelihood, z, mean, logvar, k) for k in (1, 20)}
    assert bounds[1] == pytest.approx(-neg_elbo.item(), abs=0.01)
    assert bounds[1] < bounds[20] <= evidence.item() + 1e-3


def groups(log_likelihood, z, mean, logvar, k: int) -> float:
    """The mean of many importance-weighted bounds of k draws."""
    by_k = z.reshape(k, -1, 1), log_likelihood.reshape(k, -1)
    batch = by_k[0].shape[1]
    return importance_weighted_bound(by_k[1], by_k[0], mean.expand(batch, 1), logvar.expand(batch, 1)).mean().item()


def test_reparameterised_gradient(generator):
    """reparameterised: for h(z) = z^2, E h = mu^2 + sigma^2, with gradients 2 mu and 2 sigma."""
    mu, sigma = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.4, 0.8))
    (mu + sigma * draws(400_000, generator=generator)).square().mean().backward()
    assert mu.grad.item() == pytest.approx(0.8, abs=0.01)
    assert sigma.grad.item() == pytest.approx(1.6, abs=0.02)


def test_kl_is_information_and_the_mixture_s_divergence(generator):
    """kl-surgery, on discrete distributions."""
    data = torch.rand(5, generator=generator, dtype=torch.float64).softmax(0)
    q = draws(5, 7, generator=generator).softmax(1)  # q(z | x)
    prior = draws(7, generator=generator).softmax(0)
    mixture = data @ q
    average = (data[:, None] * q * (q / prior).log()).sum()
    information = (data[:, None] * q * (q / mixture).log()).sum()
    torch.testing.assert_close(average, information + (mixture * (mixture / prior).log()).sum())


def test_noise_in_the_code_punishes_slopes(generator):
    """smoothing is exact for a linear decoder."""
    decoder, x = draws(6, 3, generator=generator), draws(6, generator=generator)
    mu, sigma = draws(3, generator=generator), torch.rand(3, generator=generator, dtype=torch.float64)
    z = mu + sigma * draws(400_000, 3, generator=generator)
    sampled = (x - z @ decoder.T).square().sum(1).mean()
    formula = (x - decoder @ mu).square().sum() + (sigma**2 * decoder.square().sum(0)).sum()
    assert sampled.item() == pytest.approx(formula.item(), rel=0.01)


# ---- generative adversarial network --------------------------------------------------------------------------


def test_optimal_discriminator_and_the_value_against_it(generator):
    """minimax, optimal-discriminator, jensen-shannon, on distributions over nine points."""
    data, fake = (draws(9, generator=generator).softmax(0) for _ in range(2))

    def value(d: torch.Tensor) -> torch.Tensor:
        return (data * d.log()).sum() + (fake * (1 - d).log()).sum()

    best = data / (data + fake)
    m = (data + fake) / 2
    js = 0.5 * (data * (data / m).log()).sum() + 0.5 * (fake * (fake / m).log()).sum()
    torch.testing.assert_close(value(best), -math.log(4) + 2 * js)
    assert 0 < js < math.log(2)
    logits = best.logit().requires_grad_()
    (gradient,) = torch.autograd.grad(value(logits.sigmoid()), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    for _ in range(20):
        assert value((logits + 0.1 * draws(9, generator=generator)).sigmoid()) < value(best)
    assert (data * torch.full_like(data, 0.5).log()).sum() * 2 == pytest.approx(-math.log(4))  # at p_g = p_data


def test_adversarial_losses_in_logits(generator):
    """gan-losses, gan-gradients."""
    real, fake = draws(8, generator=generator), draws(8, generator=generator).requires_grad_()
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    torch.testing.assert_close(
        discriminator_loss("non_saturating", real, fake), -(d_real.log().mean() + (1 - d_fake).log().mean())
    )
    torch.testing.assert_close(generator_loss("non_saturating", real, fake), -d_fake.log().mean())
    (minimax,) = torch.autograd.grad((1 - d_fake).log().sum(), fake, retain_graph=True)
    (non_saturating,) = torch.autograd.grad(-d_fake.log().sum(), fake)
    torch.testing.assert_close(minimax, -d_fake.detach())
    torch.testing.assert_close(non_saturating, -(1 - d_fake.detach()))


def test_r1_penalty_is_half_the_squared_slope(generator):
    """r1, gamma left outside."""
    images = draws(3, 1, 2, 2, generator=generator).requires_grad_()
    logits = images.square().flatten(1).sum(1)
    formula = 0.5 * (2 * images.detach()).square().flatten(1).sum(1).mean()
    assert r1_penalty(logits, images).item() == pytest.approx(formula.item())


# ---- diffusion -----------------------------------------------------------------------------------------------


@pytest.fixture
def batch(generator):
    x0 = torch.rand(6, 3, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, draws(6, 3, 4, 4, generator=generator)


def test_schedules():
    """linear, cosine: the formulas count from 1 to T, diffusers from 0."""
    t = torch.arange(1, 1001, dtype=torch.float64)
    linear = 1e-4 + (t - 1) / 999 * (0.02 - 1e-4)
    torch.testing.assert_close(DDPMScheduler().betas.double(), linear, atol=1e-7, rtol=1e-4)

    def f(t: torch.Tensor) -> torch.Tensor:
        return torch.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    cosine = (1 - f(t) / f(t - 1)).clamp(max=0.999)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(scheduler.betas.double(), cosine, atol=1e-7, rtol=1e-4)
    prescribed = f(t) / f(torch.zeros(()))
    torch.testing.assert_close(scheduler.alphas_cumprod[:990].double(), prescribed[:990], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_forward_process_in_one_step_and_in_many(schedule, batch):
    """forward-step, forward-induction, forward-closed: mean and variance, carried through the single steps."""
    x0, eps = batch
    scheduler = DDPMScheduler(beta_schedule=schedule)
    mean, variance, closed = torch.ones(()).double(), torch.zeros(()).double(), []
    for beta in scheduler.betas.double():
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        closed.append((mean, variance))
    alpha_bar = (1 - scheduler.betas.double()).cumprod(0)
    torch.testing.assert_close(torch.stack([m for m, _ in closed]), alpha_bar.sqrt())
    torch.testing.assert_close(torch.stack([v for _, v in closed]), 1 - alpha_bar)
    t = torch.tensor([0, 1, 99, 500, 900, 999])
    formula = torch.stack([closed[i][0] * x + closed[i][1].sqrt() * e for i, x, e in zip(t, x0, eps, strict=True)])
    torch.testing.assert_close(formula, diffuse(x0, eps, alpha_bar[t]))
    torch.testing.assert_close(formula.float(), scheduler.add_noise(x0.float(), eps.float(), t), atol=1e-4, rtol=1e-3)


def test_score_is_the_noise(batch):
    """score."""
    x0, eps = batch
    alpha_bar = torch.tensor(0.37, dtype=torch.float64)
    x_t = diffuse(x0, eps, alpha_bar.expand(6)).requires_grad_()
    (score,) = torch.autograd.grad(Normal(alpha_bar.sqrt() * x0, (1 - alpha_bar).sqrt()).log_prob(x_t).sum(), x_t)
    torch.testing.assert_close(score, -eps / (1 - alpha_bar).sqrt())


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("t", [1, 2, 300, 999])
def test_posterior_of_a_step(schedule, t, batch):
    """posterior-bayes, posterior-precision, posterior, mean-from-noise, ancestral, against DDPMScheduler's step."""
    x0, eps = batch
    scheduler = DDPMScheduler(beta_schedule=schedule, variance_type="fixed_small", clip_sample=False)
    beta = scheduler.betas.double()[t]
    alpha_bar, alpha_bar_before = scheduler.alphas_cumprod.double()[t], scheduler.alphas_cumprod.double()[t - 1]
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    x_t = diffuse(x0, eps, alpha_bar.expand(6))
    mean = (alpha_bar_before.sqrt() * beta * x0 + alpha.sqrt() * (1 - alpha_bar_before) * x_t) / (1 - alpha_bar)
    variance = (1 - alpha_bar_before) / (1 - alpha_bar) * beta
    torch.testing.assert_close(1 / variance, alpha / beta + 1 / (1 - alpha_bar_before))
    weighed = variance * (alpha.sqrt() / beta * x_t + alpha_bar_before.sqrt() / (1 - alpha_bar_before) * x0)
    torch.testing.assert_close(mean, weighed)
    torch.testing.assert_close(mean, (x_t - beta / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt(), atol=1e-6, rtol=1e-6)

    # Bayes' rule pointwise: q(x_t | y) q(y | x_0) / q(x_t | x_0) is that Gaussian's density.
    y = mean + variance.sqrt() * eps.flip(0)
    bayes = (
        Normal(alpha.sqrt() * y, beta.sqrt()).log_prob(x_t)
        + Normal(alpha_bar_before.sqrt() * x0, (1 - alpha_bar_before).sqrt()).log_prob(y)
        - Normal(alpha_bar.sqrt() * x0, (1 - alpha_bar).sqrt()).log_prob(x_t)
    )
    torch.testing.assert_close(bayes, Normal(mean, variance.sqrt()).log_prob(y), atol=1e-6, rtol=1e-6)

    xi = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stepped = scheduler.step(eps, t, x_t, generator=torch.Generator().manual_seed(1)).prev_sample
    torch.testing.assert_close(stepped, mean + variance.sqrt() * xi, atol=2e-3, rtol=2e-3)


def test_the_last_step_is_the_image_itself(batch):
    """ancestral at t = 1 (0 in code)."""
    x0, eps = batch
    scheduler = DDPMScheduler(clip_sample=False)
    x_1 = diffuse(x0, eps, scheduler.alphas_cumprod.double()[:1].expand(6))
    torch.testing.assert_close(scheduler.step(eps, 0, x_1).prev_sample, x0, atol=1e-4, rtol=1e-4)


def test_bound_is_a_weighted_error_of_noise(batch):
    """bound-term: the KL of two Gaussians of equal variance, of means from true and from predicted noise."""
    _, eps = batch
    predicted, x_t = eps + 0.1 * eps.flip(0), eps.flip(1)
    alpha, alpha_bar, sigma = (torch.tensor(v, dtype=torch.float64) for v in (0.98, 0.4, 0.13))
    beta = 1 - alpha

    def mean(noise: torch.Tensor) -> torch.Tensor:
        return (x_t - beta / (1 - alpha_bar).sqrt() * noise) / alpha.sqrt()

    kl = kl_divergence(Normal(mean(eps), sigma), Normal(mean(predicted), sigma)).sum()
    formula = beta**2 / (2 * sigma**2 * alpha * (1 - alpha_bar)) * (eps - predicted).square().sum()
    torch.testing.assert_close(kl, formula)


def test_predictions_convert_and_their_errors_scale(batch):
    """velocity, conversions, errors, snr, min-snr."""
    x0, eps = batch
    alpha_bar = torch.tensor([0.999, 0.9, 0.6, 0.3, 0.1, 0.01], dtype=torch.float64)
    a = alpha_bar[:, None, None, None]
    x_t, v = diffuse(x0, eps, alpha_bar), a.sqrt() * eps - (1 - a).sqrt() * x0
    torch.testing.assert_close(v, prediction_target(x0, eps, alpha_bar, "v_prediction"))
    torch.testing.assert_close((x_t - (1 - a).sqrt() * eps) / a.sqrt(), x0)
    torch.testing.assert_close(a.sqrt() * x_t - (1 - a).sqrt() * v, x0)
    torch.testing.assert_close((x_t - a.sqrt() * x0) / (1 - a).sqrt(), eps)
    torch.testing.assert_close((1 - a).sqrt() * x_t + a.sqrt() * v, eps)
    for kind, target in (("epsilon", eps), ("v_prediction", v), ("sample", x0)):
        torch.testing.assert_close(predicted_x0(target, x_t, alpha_bar, kind), x0)

    snr = alpha_bar / (1 - alpha_bar)
    torch.testing.assert_close(snr, signal_to_noise(alpha_bar))
    wrong = x0 + 0.1 * eps.flip(0)
    wrong_eps = (x_t - a.sqrt() * wrong) / (1 - a).sqrt()
    wrong_v = a.sqrt() * wrong_eps - (1 - a).sqrt() * wrong
    of_x0, of_eps, of_v = ((p - q).square().flatten(1).sum(1) for p, q in ((wrong, x0), (wrong_eps, eps), (wrong_v, v)))
    torch.testing.assert_close(of_eps, snr * of_x0)
    torch.testing.assert_close(of_v, (snr + 1) * of_x0)
    capped = snr.clamp(max=5)
    for kind, weight in (("sample", capped), ("epsilon", capped / snr), ("v_prediction", capped / (snr + 1))):
        torch.testing.assert_close(weight, min_snr_weight(alpha_bar, kind, 5.0))


def test_guidance(batch):
    """guidance as the pipeline computes it, the same whatever is predicted; guided-density by Bayes' rule."""
    from models.pipeline_class_conditional import ClassConditionalPipeline

    x_t, cond = (part.float() for part in batch)
    uncond, s = cond.flip(0), 2.5

    class Unet:
        dtype = torch.float32

        def __call__(self, x, t, class_labels):
            answers = torch.where(
                class_labels[:, None, None, None] == 10, uncond.repeat(2, 1, 1, 1), cond.repeat(2, 1, 1, 1)
            )
            return type("Output", (), {"sample": answers})

    pipeline = type("Pipeline", (), {"unet": Unet(), "guide": None})()
    labels, null = torch.full((6,), 3), torch.full((6,), 10)
    guided = ClassConditionalPipeline._denoise(pipeline, x_t, torch.tensor(5), labels, null, s)
    torch.testing.assert_close(guided, uncond + s * (cond - uncond))
    torch.testing.assert_close(guided, (1 + (s - 1)) * cond - (s - 1) * uncond)  # the paper's s = 1 + w
    alpha_bar = torch.full((6,), 0.3)
    for kind in ("epsilon", "v_prediction"):
        a, b, c = (predicted_x0(output, x_t, alpha_bar, kind) for output in (guided, cond, uncond))
        torch.testing.assert_close(a, c + s * (b - c), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_step(eta, batch):
    """ddim against DDIMScheduler; with eta 1 and neighbouring steps it is the posterior's variance."""
    x0, eps = batch
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    t, s = 599, 579
    a_t, a_s = scheduler.alphas_cumprod.double()[t], scheduler.alphas_cumprod.double()[s]
    x_t = diffuse(x0, eps, a_t.expand(6))
    sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
    xi = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    formula = a_s.sqrt() * x0 + (1 - a_s - sigma**2).sqrt() * eps + sigma * xi
    stepped = scheduler.step(eps, t, x_t, eta=eta, generator=torch.Generator().manual_seed(1)).prev_sample
    torch.testing.assert_close(stepped, formula, atol=1e-4, rtol=1e-4)
    if eta == 1:
        beta_tilde = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        torch.testing.assert_close(sigma**2, beta_tilde)
        mean = (a_s.sqrt() * (1 - a_t / a_s) * x0 + (a_t / a_s).sqrt() * (1 - a_s) * x_t) / (1 - a_t)
        torch.testing.assert_close(formula - sigma * xi, mean)


# ---- the results ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown() -> dict[str, list[str]]:
    """By language, every number of the results as it was handed to the page, in Latin digits."""
    import typst

    common = {"root": str(ROOT), "font_paths": [str(REPORT / "fonts")], "ignore_system_fonts": True}
    return {
        language: json.loads(typst.query(str(REPORT / language / "main.typ"), "<shown>", field="value", **common))
        for language in LANGUAGES
    }


def shapes(module: torch.nn.Module, *inputs: torch.Tensor) -> list[tuple[int, int]]:
    """(side, channels) of every layer's output, in the order of the computation."""
    found = []

    def note(_, __, output) -> None:
        if isinstance(output, torch.Tensor):
            found.append((output.shape[-1], output.shape[1]) if output.dim() == 4 else (1, output.shape[1]))

    layers = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d) or not list(part.children())]
    hooks = [part.register_forward_hook(note) for part in layers]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return found


@needs_typst
@pytest.mark.parametrize("language", LANGUAGES)
def test_layer_tables_are_the_networks(language):
    """Every row's output is one of a layer of the network that the record's settings build, in this order."""
    import typst
    from diffusers import UNet2DModel

    from models.gan import DenoisingUNet, PatchDiscriminator
    from models.vae import VAE

    common = {"root": str(ROOT), "font_paths": [str(REPORT / "fonts")], "ignore_system_fonts": True}
    rows = json.loads(typst.query(str(REPORT / language / "main.typ"), "<layer>", field="value", **common))
    vae = VAE(**record("vae_comparison/z2_seed0/config.yaml")["model"])
    game = record("gan_cifar10/config.yaml")
    image = torch.zeros(1, 3, 32, 32)
    unet = UNet2DModel.from_pretrained(ROOT / "pretrained/cifar10-class-conditional", subfolder="unet").float()
    computed = [
        *shapes(vae, torch.zeros(1, 1, 28, 28), torch.zeros(1, 2)),
        (16, 12),  # folding is no module
        *shapes(DenoisingUNet(**game["generator"]), image),
        (32, 3),
        *shapes(PatchDiscriminator(**game["discriminator"]), image, image),
        (16, 12),
        *shapes(unet, torch.zeros(1, 12, 16, 16), torch.tensor(5), torch.tensor([1])),
        (32, 3),
    ]
    at = 0
    for row in rows:
        assert tuple(row) in computed[at:], (row, at)
        at = computed.index(tuple(row), at)
    assert len(rows) > 35


def record(path: str) -> dict:
    text = (RECORDS / path).read_text()
    return yaml.safe_load(text) if path.endswith(".yaml") else json.loads(text)


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in (RECORDS / path).read_text().splitlines()]


def newest(path: str, *key: str) -> list[dict]:
    """Of rows with the same key the last one counts, and only those of the last row's judge and pipeline."""
    found = rows(path)
    same = [k for k in ("judge", "seed", "dtype") if k in found[-1]]
    alike = [row for row in found if all(row[k] == found[-1][k] for k in same)]
    return list({tuple(row[k] for k in key): row for row in alike}.values())


def largest(found: list[dict], *key: str) -> list[dict]:
    """Of the groups of rows with the same key the largest; of equals the one with the lowest Frechet distance."""
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        groups.setdefault(tuple(row[k] for k in key), []).append(row)
    return min(groups.values(), key=lambda group: (-len(group), min(row["frechet_distance"] for row in group)))


def written(value: float, digits: int) -> str:
    """As the report writes it: halves away from zero, where Python's format takes the even one."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{rounded:,}".replace("-", "\N{MINUS SIGN}")


def spread(value: float, half: float, digits: int) -> list[str]:
    """Value and deviation, with as many more digits as the deviation needs to be no zero."""
    while half > 0 and float(written(half, digits)) == 0:
        digits += 1
    return [written(value, digits), written(half, digits)]


def with_interval(row: dict, key: str, digits: int) -> list[str]:
    half = row.get(f"{key}_interval")
    return [written(row[key], digits)] if half is None else spread(row[key], half, digits)


def expected_numbers() -> list[str]:
    """What the tables must say, computed here from the records, independently of the typesetting."""
    found = []
    columns = {
        "neg_elbo": 2,
        "importance_weighted_nll": 2,
        "reconstruction": 2,
        "kl": 2,
        "mse": 4,
        "psnr": 2,
        "ssim": 3,
    }
    for seeds in record("vae_comparison/comparison.json").values():
        for key, digits in columns.items():
            values = [row[key] for row in seeds]
            found += spread(statistics.mean(values), statistics.stdev(values), digits)
        found.append(written(100 * statistics.mean(row["knn_accuracy"] for row in seeds), 1))
    listed = json.loads((RECORDS / "studies.json").read_text())
    for study in sorted({"denoising", "gan_sweep", "three_families", "denoising_mnist"} & set(listed)):
        measured = newest(f"{study}/rows.jsonl", "level", "method")
        levels = sorted({row["level"] for row in measured}, key=lambda level: float(level.split()[-1]))
        for row in measured:
            whole = study != "denoising" or row["level"] == levels[(len(levels) - 1) // 2]
            if whole and (row["method"] != "noisy" or study in ("denoising", "denoising_mnist")):
                found += [*with_interval(row, "psnr", 2), written(row["frechet_distance"], 3)]
                if study != "denoising_mnist":
                    found += with_interval(row, "perceptual_distance", 3)
    if "gan_seeds" in listed:
        measured = [row for row in newest("gan_seeds/rows.jsonl", "level", "method") if "seed" in row["method"]]
        for level in {row["level"] for row in measured}:
            of_seeds = [row["frechet_distance"] for row in measured if row["level"] == level]
            found += spread(statistics.mean(of_seeds), statistics.stdev(of_seeds), 3)
    if "scores" in listed:
        scores = record("scores/scores.json")
        found += with_interval(scores, "frechet_distance", 3) + with_interval(scores["floor"], "frechet_distance", 3)
    else:
        settings = {"scheduler": "DPMSolverMultistep", "num_inference_steps": 25, "guidance_scale": 3.0}
        scores = [row for row in rows("sampling/rows.jsonl") if settings.items() <= row.items()][-1]
    found.append(written(100 * scores["class_accuracy"], 1))
    for name, of_class in scores["per_class"].items():
        found.append(written(100 * of_class["accuracy"], 1))
        found.append(written(100 * record("classifier_cifar10/scores.json")["per_class"][name]["accuracy"], 1))
    if "reconstruction" in listed:
        for row in newest("reconstruction/rows.jsonl", "t"):
            found += [written(row["t"], 0), *with_interval(row, "psnr", 2)]
            found += spread(100 * row["kept"], 100 * row["kept_interval"], 1)
            found += [written(100 * of_class["kept"], 0) for of_class in row["per_class"].values()]
    sampled = newest("sampling/rows.jsonl", "scheduler", "num_inference_steps", "guidance_scale")
    # Steps are compared at the guidance, guidance by the sampler and steps, of which most was measured.
    at_a_guidance = largest(sampled, "guidance_scale")
    by_a_sampler = largest(sampled, "scheduler", "num_inference_steps")
    tables = [at_a_guidance] if len({row["num_inference_steps"] for row in at_a_guidance}) > 1 else []
    tables += [by_a_sampler] if len(by_a_sampler) > 1 else []
    found += [number for table in tables for row in table for number in with_interval(row, "frechet_distance", 2)]
    for path in sorted(RECORDS.glob("noise_study/*/scores.json")):
        found += with_interval(json.loads(path.read_text()), "frechet_distance", 2)
    if "mixture" in listed:
        exact = record("mixture/mixture.json")
        found.append(written(exact["world"]["entropy"], 3))
        found += [number for name in ("best", "linear", "network") for number in spread(*exact["bound"][name], 3)]
        found += [written(row[key], 3) for row in exact["contest"]["divergences"].values() for key in row]
        found += [number for way in ("mean", "draw", "flow") for number in spread(*exact["diffusion"]["ways"][way], 3)]
    for run in ("vae_comparison/z16_seed0", "regression_cifar10", "gan_cifar10", "diffusion_cifar10_cpu"):
        config = record(f"{run}/config.yaml")
        found.append(written(config["num_updates"] * config["batch_size"], 0))
        found.append(written(rows(f"{run}/timing.jsonl")[-1]["seconds"] / 60, 1))
    return found


@needs_typst
@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_are_those_of_the_records(shown, language):
    numbers = expected_numbers()
    assert len(numbers) > 70
    assert sorted(set(numbers) - set(shown[language])) == []


@needs_typst
def test_both_languages_show_the_same_numbers(shown):
    assert sorted(shown["fa"]) == sorted(shown["en"])


@needs_typst
def test_numbers_reach_the_page(shown, tmp_path):
    """In the text of the last chapter of the English PDF."""
    from pypdf import PdfReader

    main("Name", "1", tmp_path)
    pages = [page.extract_text() for page in PdfReader(tmp_path / "HW3-Name-1-en.pdf").pages[2:]]
    text = re.sub(r"[\u2066-\u2069\s]", "", "".join(pages))
    text = text[text.index("4Theimplementations") :]
    assert [number for number in shown["en"] if number not in text] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", RESULTS)
def test_no_result_is_typed_by_hand(language, chapter):
    """Outside mathematics, names and layout there is no digit; what is left are definitions."""
    text = re.sub(r"#asked\[.*?\n\n", "", prose(read(language, chapter)), flags=re.DOTALL)
    text = re.sub(r"\$[^$]*\$|`[^`]*`|<[^>\n]*>|@[\w-]+|\"[^\"]*\"|super\[2\]|at\(\d\)", "", text)
    text = re.sub(r"CIFAR-10|BM3D|95 %|۹۵ درصد|مقیاس ۲۵۵|of 255|4 and 9|۴ و ۹|guidance == 1|3 dB|۳ دسی‌بل", "", text)
    assert re.findall(r"[^\n]*\d[^\n]*", text) == []


@needs_typst
def test_a_missing_record_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch):
    import project.build_report as build_report

    for folder in ("report", "docs/images", "records", "triptych/figures"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "records/vae_comparison/comparison.json").unlink()
    monkeypatch.setattr(build_report, "ROOT", tmp_path)
    monkeypatch.setattr(build_report, "REPORT", tmp_path / "report")
    with pytest.raises(
        UserError, match=r"records/vae_comparison/comparison\.json.*latent_size\.py.*collect_records\.py"
    ):
        main("Name", "1", tmp_path / "out")


def test_collecting_copies_records_and_no_weights(tmp_path):
    run = tmp_path / "runs/noise_study/base"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("scores.json", "config.yaml", "model.safetensors", "checkpoints/state.json"):
        (run / name).write_text("{}")
    (run.parent / "table.md").write_text("| a |")
    collect_records(tmp_path / "runs", output=tmp_path / "records")
    kept = sorted(str(path.relative_to(tmp_path / "records")) for path in (tmp_path / "records").rglob("*.*"))
    assert kept[:3] == ["noise_study/base/config.yaml", "noise_study/base/scores.json", "noise_study/table.md"]
    assert kept[3:] == ["studies.json"] and json.loads((tmp_path / "records/studies.json").read_text()) == [
        "noise_study"
    ]
    with pytest.raises(UserError, match="overwrite"):
        collect_records(tmp_path / "runs", output=tmp_path / "records")
    (run / "scores.json").unlink()
    elsewhere = f"noise_study={tmp_path / 'runs/noise_study'}"
    collect_records(Path("nowhere"), elsewhere, tmp_path / "records", overwrite=True)
    assert not (tmp_path / "records/noise_study/base/scores.json").exists()


def test_collecting_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no study is there"):
        collect_records(tmp_path, output=tmp_path / "records")
    with pytest.raises(UserError, match=r"studies/sampling\.py"):
        collect_records(tmp_path, "sampling", tmp_path / "records")
    with pytest.raises(UserError, match="smapling"):
        collect_records(tmp_path, "smapling", tmp_path / "records")


@pytest.mark.parametrize("study", known_studies())
def test_the_command_of_a_study_is_understood_and_makes_its_folder(study, monkeypatch):
    """Every flag and value is one that the script knows, as it is copied from a message to a shell."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(known_studies()[study].command)
    (at,) = (i for i, word in enumerate(words) if word.startswith("scripts/"))
    main = importlib.import_module(words[at].removeprefix("scripts/").removesuffix(".py").replace("/", ".")).main
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    if words[at].startswith("scripts/train_"):
        parser.add_class_arguments(get_type_hints(main)["config"])
    else:
        parser.add_function_arguments(main, as_positional=True)
    given = parser.parse_args(in_full(parser, words[at + 1 :]))
    folder = Path(given.run.output_dir, given.name) if "run" in given else Path(given.output)
    assert Path("runs", study) in (folder, folder.parent)
    named = given.as_dict().get("experiment") or given.as_dict().get("pipeline")
    assert named is None or Path(named).exists()


@pytest.mark.parametrize("path", sorted(RECORDS.rglob("*.*")), ids=lambda path: str(path.relative_to(RECORDS)))
def test_records_are_small_and_name_no_machine(path):
    assert path.stat().st_size < 1_500_000
    if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
        assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|mnt|Users)/", path.read_text("utf-8"))


# ---- the building --------------------------------------------------------------------------------------------


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
